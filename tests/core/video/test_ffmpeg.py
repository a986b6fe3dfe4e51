"""ffmpeg never outlives the block that started it, and its failures have one form."""

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from svi_core.store.run_store import RunStore
from svi_core.video.ffmpeg import FfmpegError, ffmpeg_writing, run_ffmpeg
from svi_core.video.video_file import read_frames
from tests.core.clips.test_continuation import foreign_video

ROOT = Path(__file__).resolve().parents[3]
RAW = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "16x16", "-i", "-")


def children():
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def test_what_leaves_a_block_early_ends_ffmpeg_and_is_raised_as_it_is(tmp_path):
    with pytest.raises(KeyboardInterrupt), ffmpeg_writing(tmp_path / "a.mp4", RAW) as write:
        write(b"\0" * 10)  # stays in the pipe's buffer
        assert len(children()) == 1
        raise KeyboardInterrupt
    assert children() == []


def test_a_reader_that_stops_early_leaves_no_process(tmp_path):
    with closing(read_frames(foreign_video(tmp_path / "a.mp4", size="640x480"))) as frames:
        next(frames)
        assert len(children()) == 1
    assert children() == []


def test_a_failure_names_the_final_file_the_reason_and_a_fix(tmp_path):
    with pytest.raises(FfmpegError, match=r"could not write .*a.mp4 \(.*No such file.*\): check free space"):
        run_ffmpeg(tmp_path / "staging.mp4", ("-i", tmp_path / "gone.mp4"), tmp_path / "a.mp4")


ENCODE = """
    with ffmpeg_writing(staging, ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "16x16", "-i", "-")) as write:
        while True:
            write(bytes(768))
            print(flush=True)
"""
JOIN = """
    print(flush=True)
    run_ffmpeg(staging, ("-re", "-f", "lavfi", "-i", "testsrc=duration=2:size=64x64", "-movflags", "+faststart"))
"""
SCRIPT = """
import sys
from pathlib import Path
from svi_core.files.atomic_file import staged
from svi_core.store.run_store import RunStore
from svi_core.video.ffmpeg import ffmpeg_writing, run_ffmpeg
with RunStore(Path(sys.argv[1])) as store, staged(store.clips / "a.mp4") as staging:
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
@pytest.mark.parametrize("job", [ENCODE, JOIN], ids=["encodes from a pipe", "reads files"])
def test_the_ffmpeg_of_a_killed_process_ends_by_itself_and_the_next_run_leaves_nothing_of_it(tmp_path, job):
    command = [sys.executable, "-c", SCRIPT + job, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while not (found := psutil.Process(process.pid).children()):
            assert time.monotonic() < deadline and process.poll() is None
        (orphan,) = found
        process.kill()
    with RunStore(tmp_path) as store:
        psutil.wait_procs([orphan], timeout=60)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        (store.clips / "b.mp4").touch()
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["b.mp4"]
