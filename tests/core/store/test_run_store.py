import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from svi_core.files import atomic_file
from svi_core.files.fingerprint import file_sha256
from svi_core.files.sealed_json import read_sealed, write_sealed
from svi_core.store import records, run_store
from svi_core.store.records import ClipRecord, ShownClip, read_manifest, read_records, require_unchanged
from svi_core.store.run_store import RunStore, chain_key
from tests.small_disk import fill, small_disk

ROOT = Path(__file__).resolve().parents[3]


class Stop(BaseException):
    pass


def record(key, index=0, **facts):
    return ClipRecord(key, index, f"prompt {index} ü", 42 * index, {}, **facts)


def latent(seed=0):
    return torch.randn(1, 16, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


KEY, OTHER = chain_key(None, "a"), chain_key(None, "b")


@pytest.fixture
def store(tmp_path):
    with RunStore(tmp_path / "run ü") as opened:
        yield opened


def test_round_trip(store):
    assert store.load_latent(KEY) is None and store.record(KEY) is None
    store.save_latent(record(KEY), latent())
    assert torch.equal(store.load_latent(KEY), latent())
    assert store.record(KEY) == record(KEY)


def test_keys_chain():
    first, other = chain_key(None, "prompt"), chain_key(None, "other")
    assert chain_key(first, "next") != chain_key(other, "next") != chain_key(None, "next")
    assert chain_key(first, "next") == chain_key(chain_key(None, "prompt"), "next")


def test_a_stored_take_is_never_overwritten(store):
    store.save_latent(record(KEY), latent(0))
    store.save_latent(record(KEY), latent(1))
    assert torch.equal(store.load_latent(KEY), latent(0))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_text("hello")


def pickled(path):
    torch.save({"latent": latent()}, path)


@pytest.mark.parametrize("damage", [truncate, flip, empty, foreign, pickled], ids=lambda f: f.__name__)
def test_a_damaged_clip_is_named_set_aside_and_not_trusted(store, caplog, damage):
    store.save_latent(record(KEY), latent())
    path = store.clips / f"{KEY}.safetensors"
    damage(path)
    damaged = path.read_bytes()
    assert store.load_latent(KEY) is None
    assert path.name in caplog.text and not path.exists()
    aside = list((store.folder / "set_aside").iterdir())
    assert len(aside) == 1 and aside[0].read_bytes() == damaged
    store.save_latent(record(KEY), latent())
    assert torch.equal(store.load_latent(KEY), latent())


def test_swapped_clips_are_noticed(store):
    store.save_latent(record(KEY), latent(0))
    store.save_latent(record(OTHER, 1), latent(1))
    a, b = (store.clips / f"{key}.safetensors" for key in (KEY, OTHER))
    swap = store.clips / "swap"
    a.rename(swap), b.rename(a), swap.rename(b)
    assert store.load_latent(KEY) is None and store.load_latent(OTHER) is None


def test_segments_are_trusted_by_their_hash_only(store):
    store.save_latent(record(KEY), latent())
    path = store.segment_path(KEY, "all")
    path.write_bytes(b"video")
    assert store.segment(KEY, "all") is None and not path.exists(), "no record vouches for it: an orphan of a crash"
    path.write_bytes(b"video")
    store.add_segment(KEY, "all", 5, "abc", {})
    assert store.segment(KEY, "all")["num_frames"] == 5
    path.write_bytes(b"other")
    assert store.segment(KEY, "all") is None and len(list((store.folder / "set_aside").iterdir())) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', "\x00"])
def test_a_broken_record_costs_only_itself(store, text):
    store.save_latent(record(KEY), latent())
    (store.clips / f"{KEY}.json").write_text(text)
    assert store.record(KEY) is None and torch.equal(store.load_latent(KEY), latent())


def test_only_one_process_works_in_a_folder(store):
    code = (
        "import sys; from pathlib import Path; from svi_core.store.run_store import RunStore\n"
        "try:\n    RunStore(Path(sys.argv[1])).__enter__()\nexcept ValueError as e:\n    print(e)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(store.folder)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"is in use by process {os.getpid()}" in run.stdout


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path; from svi_core.store.run_store import RunStore\n"
        "s = RunStore(Path(sys.argv[1])).__enter__()\n(s.clips / 'x.1.staging.mp4').write_text('half')\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    with RunStore(tmp_path) as again:
        assert not list(again.clips.iterdir()), "half-written files are tidied"


def test_manifest_tells_the_clips_of_its_video_only(store):
    clips = (ShownClip(KEY, "a ü", 0, 81), ShownClip(OTHER, "b", 42, 76))
    (store.folder / "video.mp4").write_bytes(b"frames")
    assert read_manifest(store.folder / "video.mp4") is None
    store.write_manifest(clips, "video.mp4")
    assert read_manifest(store.folder / "video.mp4") == clips
    assert read_manifest(store.folder / "another.mp4") is None
    (store.folder / "run.json").write_text('{"format": 1, "video": "video.mp4", "clips": [{}]}')
    with pytest.raises(ValueError, match="run.json is not a manifest"):
        read_manifest(store.folder / "video.mp4")


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_stop_at_every_commit_point_leaves_a_store_that_goes_on(tmp_path, monkeypatch, name):
    """Fail the k-th os.replace / os.fsync, for k = 1, 2, ... until a run gets through; each time the rest must be sound."""
    real = getattr(os, name)
    for stop_at in range(1, 30):
        folder, calls = tmp_path / f"{stop_at}", [0]

        def failing(*args, calls=calls, stop_at=stop_at):
            calls[0] += 1
            if calls[0] == stop_at:
                raise Stop
            return real(*args)

        monkeypatch.setattr(atomic_file.os, name, failing)
        finished = True
        try:
            with RunStore(folder) as store:
                for index in range(2):
                    store.save_latent(record(chain_key(None, index), index), latent(index))
        except Stop:
            finished = False
        monkeypatch.setattr(atomic_file.os, name, real)
        with RunStore(folder) as store:
            for index in range(2):
                found = store.load_latent(chain_key(None, index))
                assert found is None or torch.equal(found, latent(index))
                store.save_latent(record(chain_key(None, index), index), latent(index))
                assert torch.equal(store.load_latent(chain_key(None, index)), latent(index))
            assert not (folder / "set_aside").exists() and not list(store.clips.glob("*staging*"))
        if finished:
            break
    assert finished and stop_at > 4


def test_a_full_disk_is_told_with_the_file_and_nothing_half_written_stays(tmp_path):
    with small_disk(tmp_path / "disk", 16) as disk, RunStore(disk) as store:
        fill(disk, 1)
        with pytest.raises(OSError, match="No space left.*safetensors"):
            store.save_latent(record(KEY), torch.zeros(1, 16, 3, 32, 32))
        assert list(store.clips.iterdir()) == []


def test_vanished_folder_is_an_error_that_names_it(store):
    import shutil

    shutil.rmtree(store.clips)
    with pytest.raises(OSError, match=str(store.clips)):
        store.save_latent(record(KEY), latent())


def test_records_lists_the_clips_in_the_video_s_order(store):
    store.save_latent(record(OTHER, 1), latent(1))
    store.save_latent(record(KEY, 0), latent(0))
    assert [r.key for r in read_records(store.folder)] == [KEY, OTHER]


def test_measures_and_the_graph_s_key_of_a_clip_are_kept(store):
    store.save_latent(record(KEY, plan_key="old", measures={"sample_seconds": 1.5}), latent())
    store.add_measure(KEY, "decode_seconds", 0.25)
    store.ensure_record(record(KEY, plan_key="new"))
    assert store.record(KEY) == record(KEY, plan_key="new", measures={"sample_seconds": 1.5, "decode_seconds": 0.25})


def test_a_record_of_an_earlier_version_is_still_read(store):
    store.save_latent(record(KEY), latent())
    path = store.clips / f"{KEY}.json"
    facts = json.loads(path.read_text())
    del facts["plan_key"], facts["measures"], facts["checksum"]
    path.write_text(json.dumps(facts))
    assert store.record(KEY) == record(KEY)


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_records_are_read_without_the_lock_and_without_a_trace(store):
    other, third = chain_key(None, "b"), chain_key(None, "c")
    store.save_latent(record(other, 1, plan_key="p1"), latent(1))
    store.save_latent(record(KEY, 0, plan_key="p0"), latent(0))
    store.save_latent(record(third, 2), latent(2))
    (store.clips / f"{third}.json").write_text("{broken")
    (store.clips / f"{chain_key(None, 'd')}.json").write_text((store.clips / f"{KEY}.json").read_text())  # its latent is gone
    (store.clips / f"{KEY}.77.staging.safetensors").write_bytes(b"half")
    before = snapshot(store.folder)
    assert [known.plan_key for known in read_records(store.folder)] == ["p0", "p1"]  # while `store` holds the lock
    assert snapshot(store.folder) == before
    assert read_records(store.folder / "nothing here") == []


def test_swapped_records_are_set_aside(store):
    for key in (KEY, OTHER):
        store.save_latent(record(key), latent())
    one, two = (store.clips / f"{key}.json" for key in (KEY, OTHER))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)
    assert store.record(KEY) is None and store.record(OTHER) is None
    assert len(list((store.folder / "set_aside").iterdir())) == 2


def test_the_lock_is_released_even_where_the_owner_s_note_cannot_be_removed(tmp_path, monkeypatch, caplog):
    with RunStore(tmp_path):
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "read-only")))
    monkeypatch.undo()
    assert "the lock is released" in caplog.text
    with RunStore(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
@pytest.mark.parametrize("name", ["clips", ".owner", ".lock", "set_aside"])
def test_nothing_is_written_through_a_planted_link(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "run").mkdir()
    target = outside if name in ("clips", "set_aside") else outside / "new"
    (tmp_path / "run" / name).symlink_to(target)
    with pytest.raises(ValueError, match=f"{name} is a link that leads out"):
        RunStore(tmp_path / "run").__enter__()
    assert list(outside.iterdir()) == [] and [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_an_owner_s_note_that_is_no_text_does_not_block_the_folder(tmp_path):
    (tmp_path / ".owner").write_bytes(b"\xff\xfe" * 100)
    with RunStore(tmp_path):
        assert (tmp_path / ".owner").read_text() == str(os.getpid())


def test_what_a_stopped_ffmpeg_leaves_during_a_run_is_removed_at_its_end(tmp_path):
    with RunStore(tmp_path) as store:
        (store.clips / "x.1.staging.mp4").touch()  # by an ffmpeg whose process was killed before
    assert list(store.clips.iterdir()) == []


def test_facts_of_a_later_version_are_left_alone(store):
    """A record, a segment and a shown clip with one field more are read as before."""
    store.save_latent(record(KEY), latent())
    store.segment_path(KEY, "0-9").write_bytes(b"frames")
    store.add_segment(KEY, "0-9", 9, "f" * 64, {})
    path, known = store.clips / f"{KEY}.json", store.record(KEY)
    facts = read_sealed(path)
    facts["segments"]["0-9"]["more"] = facts["more"] = 1
    write_sealed(path, facts)
    assert store.record(KEY).segments["0-9"] == {**known.segments["0-9"], "more": 1}
    assert store.segment(KEY, "0-9")["num_frames"] == 9 and not (store.folder / "set_aside").exists()
    video, clip = store.folder / "video.mp4", ShownClip(KEY, "a", 0, 9)
    write_sealed(store.folder / "run.json", {"format": 1, "video": video.name, "clips": [{**vars(clip), "more": 1}]})
    assert read_manifest(video) == (clip,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format": 1, "video": "video.mp4", "cl', "it is not JSON (Unterminated string starting at at line 1, column 37)"),
        ('{"format": 1, "video": "video.mp4"}', "it lacks 'clips'"),
        ('{"format": 1, "video": 7, "clips": []}', "video is '7'"),
    ],
)
def test_a_damaged_manifest_is_set_aside_with_one_reason(tmp_path, caplog, text, reason):
    (tmp_path / "run.json").write_text(text)
    with RunStore(tmp_path):
        (aside,) = (tmp_path / "set_aside").iterdir()
        assert caplog.messages == [f"SVI: {tmp_path / 'run.json'} cannot be trusted ({reason}); moved to {aside}."]


def test_a_growing_video_is_sampled_and_a_finished_one_hashed_once(store, monkeypatch):
    """10 MB: hashing all of it after each clip of a long run would take longer and longer."""
    hashed = []

    def counted(path):
        hashed.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(records, "file_sha256", counted)
    monkeypatch.setattr(run_store, "file_sha256", counted)
    growing, final = store.folder / "video.mp4", store.folder / "video-1.mp4"
    for path in (growing, final):
        path.write_bytes(bytes(10_000_000))
    store.write_manifest([ShownClip(KEY, "a", 0, 9)], growing.name)
    require_unchanged(growing)
    assert hashed == []
    for damaged in (bytes(9_999_999), b"1" + bytes(9_999_999), bytes(9_999_999) + b"1"):
        growing.write_bytes(damaged)
        with pytest.raises(ValueError, match="video.mp4 is damaged, or still being written"):
            require_unchanged(growing)
    store.write_manifest([ShownClip(KEY, "a", 0, 9)], final.name, is_final=True)
    require_unchanged(final)
    require_unchanged(final)
    assert hashed == [final.name] * 2, "once written, once read"
    final.write_bytes(bytes(5_000_000) + b"1" + bytes(4_999_999))
    with pytest.raises(ValueError, match="video-1.mp4 is damaged"):
        require_unchanged(final)


def test_a_clip_that_moves_while_its_segment_is_recorded_keeps_both(store, monkeypatch):
    """One take stands at two neighbouring places: its segment is recorded in the background of the second."""
    store.save_latent(record(KEY), latent())
    store.segment_path(KEY, "0-9").write_bytes(b"frames")
    mover, write = threading.Thread(target=store.ensure_record, args=[record(KEY, 1)]), run_store.write_record

    def write_late(path, changed):
        if mover.ident is None:
            mover.start()
            mover.join(0.3)
        write(path, changed)

    monkeypatch.setattr(run_store, "write_record", write_late)
    store.add_segment(KEY, "0-9", 9, "hash", {})
    mover.join()
    known = store.record(KEY)
    assert known.index == 1 and list(known.segments) == ["0-9"]
