import os
from pathlib import Path

import pytest
import torch

from svi_core.store.keep_marks import set_keep
from svi_core.store.records import ClipRecord, ShownClip
from svi_core.store.run_store import RunStore, chain_key
from svi_core.store.space import prune, within_budget


class Stop(BaseException):
    pass


def record(key, index=0):
    return ClipRecord(key, index, f"prompt {index}", 42 * index, {})


def latent(seed=0):
    return torch.randn(1, 16, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


KEY = chain_key(None, "a")


@pytest.fixture
def store(tmp_path):
    with RunStore(tmp_path / "run ü") as opened:
        yield opened


def test_budget_removes_the_longest_unused_first_and_keeps_what_is_marked(store):
    keys = [chain_key(None, index) for index in range(5)]
    for index, key in enumerate(keys):
        store.save_latent(record(key, index), latent(index))
        for path in store.clips.glob(f"{key}*"):
            os.utime(path, (1000 + index, 1000 + index))
    set_keep(store.folder, keys[0], True)
    size = sum(p.stat().st_size for p in store.clips.iterdir())
    assert prune(store.folder, size, set()) == []
    assert prune(store.folder, size // 2, {keys[1]}) == [keys[2], keys[3], keys[4]]
    assert {p.stem for p in store.clips.iterdir()} == {keys[0], keys[1]}


def test_segments_that_a_video_does_not_show_go_before_earlier_takes(store):
    """Another coding of a clip in use can be made again from its latent; a kept clip keeps all of its files."""
    kept, used, take = (chain_key(None, index) for index in range(3))
    for index, key in enumerate((kept, used, take)):
        store.save_latent(record(key, index), latent(index))
        for name in ("old", "new"):
            store.segment_path(key, name).write_bytes(bytes(1000))
    set_keep(store.folder, kept, True)
    shown = {store.segment_path(key, "new") for key in (kept, used)}
    size = sum(path.stat().st_size for path in store.clips.iterdir())
    assert prune(store.folder, size - 1, {kept, used}, shown) == []
    assert not store.segment_path(used, "old").exists() and store.load_latent(used) is not None
    assert store.segment_path(kept, "old").exists() and store.segment_path(take, "old").exists()
    assert prune(store.folder, 1, {kept, used}, shown) == [take]
    assert set(store.clips.glob("*.mp4")) == shown | {store.segment_path(kept, "old")}


def test_a_cancelled_run_spares_the_clips_of_the_video_before(store):
    """They may be its own, which it had not come to yet; once a video is made only that one's clips stay."""
    keys = [chain_key(None, index) for index in range(4)]
    for index, key in enumerate(keys):
        store.save_latent(record(key, index), latent(index))
    before, again = [ShownClip(key, "", 0, 81) for key in keys[:3]], []
    (store.folder / "video.mp4").touch()
    store.write_manifest(before, "video.mp4")
    with pytest.raises(Stop), within_budget(store.folder, 1, lambda: set(again), []):
        again.append(keys[0])
        raise Stop
    assert {path.stem for path in store.clips.iterdir()} == set(keys[:3])
    with within_budget(store.folder, 1, lambda: set(again), []):
        again.append(keys[1])
    assert {path.stem for path in store.clips.iterdir()} == set(keys[:2])
    (store.folder / "run.json").write_text("no manifest")
    with pytest.raises(Stop), within_budget(store.folder, 1, set, []):
        raise Stop
    assert {path.stem for path in store.clips.iterdir()} == set(keys[:2]), "what it showed is not known, so nothing goes"


def test_the_beginning_of_a_key_keeps_its_clip(store):
    keys = [chain_key(None, index) for index in range(3)]
    for index, key in enumerate(keys):
        store.save_latent(record(key, index), latent(index))
    assert set(prune(store.folder, 1, {keys[0], keys[1][:12]})) == {keys[2]}


def test_foreign_files_in_the_folder_are_left_alone(store):
    store.save_latent(record(KEY), latent())
    (store.clips / "notes.txt").write_text("mine")
    (store.clips / "folder").mkdir()
    assert prune(store.folder, 1, set()) == [KEY]
    assert sorted(path.name for path in store.clips.iterdir()) == ["folder", "notes.txt"]


def test_what_cannot_be_removed_stays_and_does_not_fail_a_run(store, monkeypatch, caplog):
    store.save_latent(record(KEY), latent())
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "open in a player")))
    assert prune(store.folder, 1, set()) == []
    monkeypatch.undo()
    assert store.load_latent(KEY) is not None and "it stays for now" in caplog.text
