import threading

import pytest
import torch

from svi_core.store import space
from svi_core.store.keep_marks import is_kept, kept_keys, require_clip_key, set_keep
from svi_core.store.records import ClipRecord
from svi_core.store.run_store import RunStore, chain_key
from svi_core.store.space import prune

KEYS = [chain_key(None, index) for index in range(12)]


@pytest.fixture
def store(tmp_path):
    with RunStore(tmp_path / "run ü") as opened:
        for index, key in enumerate(KEYS):
            opened.save_latent(ClipRecord(key, index, "a", index, {}), torch.zeros(1, 16, 1, 2, 2))
        yield opened


def test_a_mark_is_set_while_a_run_holds_the_folder_and_outlives_its_records(store):
    set_keep(store.folder, KEYS[0], True)
    store.add_measure(KEYS[0], "sample_seconds", 1.0)  # the run rewrites the record
    assert is_kept(store.folder, KEYS[0]) and kept_keys(store.folder) == {KEYS[0]}
    assert prune(store.folder, 1, set()) and store.load_latent(KEYS[0]) is not None
    set_keep(store.folder, KEYS[0], True)  # twice is once
    set_keep(store.folder, KEYS[0], False)
    set_keep(store.folder, KEYS[0], False)
    assert kept_keys(store.folder) == set() and prune(store.folder, 1, set()) == [KEYS[0]]


def test_only_a_clip_that_is_there_can_be_marked(store, tmp_path):
    with pytest.raises(ValueError, match="there is no clip 'ffffff"):
        set_keep(store.folder, "f" * 64, True)
    with pytest.raises(ValueError, match="there is no clip"):
        set_keep(tmp_path / "nowhere", KEYS[0], True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("key", ["", "f" * 63, "F" * 64, "f" * 64 + "\n", "../" + "f" * 61, "f" * 65, None, 7, ["f" * 64]])
def test_a_key_is_64_hex_digits_and_nothing_else(tmp_path, key):
    with pytest.raises(ValueError, match="64 hex digits"):
        require_clip_key(key)
    with pytest.raises(ValueError, match="64 hex digits"):
        set_keep(tmp_path, key, True)


def test_a_clip_cannot_be_marked_between_the_look_at_its_mark_and_its_removal(store, monkeypatch):
    looked, marked = threading.Event(), []

    def look_then_dawdle(folder, key):
        kept = is_kept(folder, key)
        looked.set()
        thread.join(0.5)
        return kept

    def mark():
        looked.wait()
        try:
            set_keep(store.folder, KEYS[0], True)
            marked.append(KEYS[0])
        except ValueError:
            pass

    thread = threading.Thread(target=mark)
    thread.start()
    monkeypatch.setattr(space, "is_kept", look_then_dawdle)
    removed = prune(store.folder, 1, set(KEYS[1:]))
    thread.join()
    assert removed == [KEYS[0]] and marked == [] and kept_keys(store.folder) == set()


def test_whatever_was_marked_while_clips_are_removed_is_there_to_stay(store):
    marked, begin = [], threading.Barrier(2)

    def mark_all():
        begin.wait()
        for key in reversed(KEYS):
            try:
                set_keep(store.folder, key, True)
                marked.append(key)
            except ValueError:
                pass

    thread = threading.Thread(target=mark_all)
    thread.start()
    begin.wait()
    removed = prune(store.folder, 1, set())
    thread.join()
    assert set(marked) | set(removed) == set(KEYS) and not set(marked) & set(removed)
    assert all(store.load_latent(key) is not None and store.record(key) is not None for key in marked)
