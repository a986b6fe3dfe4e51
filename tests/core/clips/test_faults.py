"""Faults of the machine that a run meets: a full disk, a clock that jumps, odd paths, many clips. tests/kill kills it.

The model side is fake; folders, files, ffmpeg and signals are real.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from svi_core.clips import growing_video as run_module
from svi_core.clips import run_video
from svi_core.clips.clip_plan import ClipPlan
from svi_core.files.atomic_file import STAGING_MARK
from svi_core.schedule.spec import MAX_CLIPS
from svi_core.schedule.text import parse_schedule
from svi_core.store import run_store
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import LAYOUTS, make_layout
from svi_core.video.frame_times import count_frames
from svi_core.video.video_file import WrittenFrames
from tests.core.clips.test_growing_video import moments, run
from tests.core.fakes import FakeMaker
from tests.small_disk import fill, free, set_writable, small_disk

ROOT = Path(__file__).resolve().parents[3]
LAYOUT = make_layout("2.0 Pro", num_frames=9)
posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX systems")


def sound_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a run's folder by name; whatever has a final name must be whole."""
    with RunStore(folder) as store:  # tidies
        files = {path.name: path.read_bytes() for path in store.clips.iterdir()}
        assert not [name for name in files if STAGING_MARK in name]
        for path in store.clips.glob("*.safetensors"):
            assert store.load_latent(path.stem) is not None
        for path in store.clips.glob("*.json"):
            json.loads(path.read_text(encoding="utf-8"))
        for path in [*store.clips.glob("*.mp4"), *folder.glob("*.mp4")]:
            assert count_frames(path, decode=True) > 0
    assert not (folder / "set_aside").exists()
    return files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of three clips: (last latent, moments shown)."""
    path, latent, _ = run(tmp_path_factory.mktemp("whole"))
    return latent, moments(path)


def test_a_disk_that_fills_up_at_any_page_costs_only_the_clip_in_work(tmp_path, whole):
    """Leave 0, 2, 4, ... pages of a real disk until a run of three clips fits; after each failure free space and go on."""
    with small_disk(tmp_path / "disk", 256) as disk:
        for free_pages in range(0, 256, 2):
            fill(disk, free_pages)
            try:
                run(disk / "run")
                break
            except OSError as error:
                assert str(disk) in str(error), f"{free_pages} pages: {error}"
                assert "space" in str(error), f"{free_pages} pages: {error}"
            free(disk)
            stored = [name for name in sound_files(disk / "run") if name.endswith(".safetensors")]
            path, latent, maker = run(disk / "run")
            assert torch.equal(latent, whole[0]) and np.array_equal(moments(path), whole[1]), free_pages
            assert maker.sampled == list(range(len(stored), 3)), free_pages
            shutil.rmtree(disk / "run")
        assert 10 < free_pages < 250


LIMITED_RUN = """
import resource, sys
from pathlib import Path
from tests.core.clips.test_growing_video import run
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    run(Path(sys.argv[1]))
except OSError as error:
    print(error)
"""


@posix
@pytest.mark.parametrize("limit", [100, 3000])  # bytes a file may have: less than a latent, less than a segment
def test_a_file_that_may_not_grow_is_told_by_its_path(tmp_path, whole, limit):
    command = [sys.executable, "-c", LIMITED_RUN, str(tmp_path / "run"), str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert str(tmp_path / "run") in done.stdout, done.stderr
    sound_files(tmp_path / "run")
    path, latent, _ = run(tmp_path / "run")
    assert torch.equal(latent, whole[0]) and np.array_equal(moments(path), whole[1])


def test_a_folder_that_vanishes_is_named_and_the_next_run_makes_it_again(tmp_path, whole):
    folder = tmp_path / "run"

    class Vanishing(FakeMaker):
        def sample(self, request, previous):
            if request.index == 1:
                shutil.rmtree(folder)
            return super().sample(request, previous)

    with pytest.raises(OSError, match=str(folder)):
        run(folder, maker=Vanishing(LAYOUT))
    path, latent, _ = run(folder)
    assert torch.equal(latent, whole[0]) and np.array_equal(moments(path), whole[1])


def test_a_read_only_folder_is_named_before_the_first_clip(tmp_path):
    maker = FakeMaker(LAYOUT)
    with small_disk(tmp_path / "disk", 16) as disk:
        set_writable(disk, False)
        with pytest.raises(OSError, match=f"[Rr]ead-only.*{disk}"):
            run(disk / "run", maker=maker)
        assert maker.sampled == []


@pytest.mark.parametrize("clock", ["backwards", "frozen"])
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, whole, clock):
    start, step = time.time_ns(), {"backwards": -3600_000_000_000, "frozen": 0}[clock]
    calls = iter(range(10**9))
    monkeypatch.setattr(time, "time_ns", lambda: start + step * next(calls))
    monkeypatch.setattr(time, "time", lambda: (start + step * next(calls)) / 1e9)
    path, latent, _ = run(tmp_path)
    assert torch.equal(latent, whole[0]) and np.array_equal(moments(path), whole[1])
    victim = sorted((tmp_path / "clips").glob("*.safetensors"))[0]
    for damage in (b"first", b"second"):
        victim.write_bytes(damage)
        run(tmp_path)
    aside = [file.read_bytes() for file in (tmp_path / "set_aside").iterdir()]
    assert sorted(aside) == [b"first", b"second"], "what is set aside is never overwritten"


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "ü 文字 🎬",
        'it\'s "quoted"',
        "100%d %03d",
        "#a;b=c&d",
        "-dash",
        "[brackets] {x}",
        "file:pipe",
        "back\\slash",
        "nöt-ascii" * 20,
        "/".join(["deep"] * 150),
    ],
    ids=lambda name: name[:12],
)
def test_odd_folder_names_reach_every_file(tmp_path, whole, name):
    if os.name == "nt" and set(name) & set('"\\:'):
        pytest.skip("Windows has no such names")
    path, latent, _ = run(tmp_path / name)
    assert torch.equal(latent, whole[0]) and np.array_equal(moments(path), whole[1])
    assert sound_files(tmp_path / name)


def write_quickly(path, chunks, coding):
    """Stand in for the encoder in runs of thousands of clips: drain the frames and write their number."""
    num_frames = sum(len(chunk) for chunk in chunks)
    path.write_text(str(num_frames))
    return WrittenFrames(num_frames, "0" * 64)


def join_quickly(path, segments, num_frames, *_):
    assert sum(int(segment.read_text()) for segment in segments) == num_frames
    path.write_text(str(num_frames))


def test_memory_does_not_grow_over_a_thousand_clips(tmp_path, monkeypatch):
    """Resident memory between clip 100 and clip 1000. Encoder and join are fake here: they are processes of their own.

    A leak of one latent per clip (28 KB, 33 MB in all) would show, and so would one of frames (over 200 KB a clip).
    """
    monkeypatch.setattr(run_module, "write_video", write_quickly)
    monkeypatch.setattr(run_video, "join_videos", join_quickly)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # 5 000 of them, and not what is measured
    maker, resident = FakeMaker(LAYOUT, height=96, width=96), []

    def sample(request, previous):
        resident.append(psutil.Process().memory_info().rss)
        return torch.full((1, 16, 3, 12, 12), float(request.index))

    maker.sample = sample
    run(tmp_path, 1000, maker=maker, text="a\n\nb\n\n[x998]\nc")
    early, late = max(resident[100:150]), max(resident[950:])
    assert len(resident) == 1000 and late < early * 1.01, f"{early / 1e6:.1f} MB, then {late / 1e6:.1f} MB"


def test_ten_thousand_clips_are_planned_at_once():
    text = "\n\n".join(f"[seed {i}, cfg {1 + i % 7}]\nprompt {i}" for i in range(MAX_CLIPS))
    schedule = parse_schedule(text)
    plan = ClipPlan(MAX_CLIPS, schedule, LAYOUTS["2.0 Pro"])
    plan.require_joints(schedule)
    requests = [plan.request(index) for index in range(MAX_CLIPS)]
    assert [request.seed for request in requests] == list(range(MAX_CLIPS)) and requests[-1].spec.prompt == "prompt 9999"
    with pytest.raises(ValueError, match="10001 clips: at most 10000"):
        parse_schedule("[x10000]\na\n\nb")


def test_a_store_that_cannot_be_opened_leaves_the_folder_unlocked(tmp_path, monkeypatch):
    refused = RunStore(tmp_path)
    monkeypatch.setattr(run_store, "remove_stale_staging", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        refused.__enter__()
    monkeypatch.undo()
    with RunStore(tmp_path):
        pass
