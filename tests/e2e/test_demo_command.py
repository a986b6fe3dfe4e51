"""``python -m demo`` as a newcomer types it: the video, its length, the last line, and Ctrl-C."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest

from demo.run import GRAPH_FILE, MODELS
from dev.environment import REPOSITORY

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (GRAPH_FILE.is_file() and any(MODELS.glob("*high*.safetensors"))), reason="the demo's models are not trained yet"
    ),
]


@pytest.fixture
def command(tmp_path: Path, reference_image: Path) -> list[str]:
    """The demo with a picture and prompts of the user's, in a folder with a space, and a seed that no run had before."""
    folder = tmp_path / "my files"
    folder.mkdir()
    reference_image = reference_image.rename(folder / "a picture.PNG")
    (folder / "prompts.txt").write_text("the red ball rolls to the right\n\nthe camera moves to the left\n", encoding="utf-8")
    files = ["--image", str(reference_image), "--prompts", str(folder / "prompts.txt")]
    return [sys.executable, "-m", "demo", *files, "--seed", str(random.SystemRandom().randrange(2**53))]


def test_the_demo_makes_a_video_of_the_users_own_files(command: list[str]):
    done = subprocess.run([*command, "--clips", "2"], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # all chatter is on standard error
    video = REPOSITORY / done.stdout.splitlines()[-1]
    num_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert num_frames == 2 * 76 + 5
    assert seconds == pytest.approx(num_frames / 16, abs=0.01)
    metadata = next(imageio_ffmpeg.read_frames(str(video)))
    assert (metadata["codec"], metadata["size"], metadata["fps"]) == ("h264", (96, 64), 16.0)
    assert "100%  clip 2 of 2" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_stops_the_demo_and_tells_where_the_finished_clips_are(command: list[str]):
    def hear_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite that runs in the background of a shell ignores it

    with subprocess.Popen(
        [*command, "--clips", "10"], stdout=-1, stderr=-1, text=True, cwd=REPOSITORY, preexec_fn=hear_ctrl_c
    ) as demo:
        told = ""
        assert demo.stderr is not None and demo.stdout is not None
        while "clip 3 of 10" not in told:  # then clip 1 is on disk; clip 2 may still be decoded
            line = demo.stderr.readline()
            assert line, told
            told += line
        demo.send_signal(signal.SIGINT)
        told += demo.stderr.read()
        assert demo.stdout.read() == ""
    assert demo.returncode == 130
    marker = "the clips that were finished: "
    assert marker in told, told
    video = REPOSITORY / told[told.index(marker) + len(marker) :].splitlines()[0]
    num_frames, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert num_frames % 76 == 5 and num_frames >= 81, told  # whole clips, the last one's end too
