"""A stage works on each clip once, in every form of the loop and after a kill, and its frames become one video."""

import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from comfyui.server import PACK_NODES, ComfyServer
from svi_core.video.frame_times import count_frames
from svi_core.video.video_file import read_frames
from tests.e2e.graphs import loop_graph, node
from tests.e2e.test_long_runs import apart, video_of, with_output

pytestmark = pytest.mark.e2e

LOOP_NODES = Path(__file__).with_name("loop_nodes")
CLIPS = 3


@pytest.fixture(scope="module")
def server(environment, model_roots, tmp_path_factory):
    """A server of its own, with the stage, that a test may kill."""
    folder = tmp_path_factory.mktemp("processed")
    with ComfyServer(
        environment, folder, model_roots=model_roots, custom_nodes=PACK_NODES | {"loop_nodes": LOOP_NODES}
    ) as started:
        yield started


@pytest.fixture
def make(server, reference_image, tmp_path):
    """Return a graph whose loop is made of the nodes `middle`, and whose processed video is saved."""

    def graph(middle, name):
        whole = loop_graph(server.add_input(reference_image), filename_prefix=f"svi/{name}", num_frames=13)
        made = apart(with_output(whole, crf=0, pixel_format="yuv444p", seam="linear"), middle)
        made["saved"]["inputs"]["video"] = ["finish", 1]
        return made

    return graph


@pytest.fixture
def log(tmp_path):
    """The file in which the stage notes its work."""
    path = tmp_path / "stage.log"
    path.touch()
    return path


def one_clip(log, before, name="", seconds=0.0, **last):
    """The body of the loop after the state `before`; its nodes' names end with `name`."""
    return {
        f"next{name}": node("SVINextClip", state=before, **last),
        f"frames{name}": node("SVIClipFrames", state=[f"next{name}", 0], context_frames=1),
        f"stage{name}": node("TestStage", images=[f"frames{name}", 1], log=str(log), seconds=seconds),
        f"write{name}": node("SVIWriteFrames", state=[f"frames{name}", 0], images=[f"stage{name}", 0]),
    }


def repeated(log, seconds=0.0):
    return one_clip(log, ["begin", 0], seconds=seconds) | {"last": node("SVIRepeatClips", state=["write", 0], num_clips=CLIPS)}


def unrolled(log, seconds=0.0):
    middle = one_clip(log, ["begin", 0], "1", seconds) | one_clip(log, ["write1", 0], "2", seconds)
    last = one_clip(log, ["write2", 0], "3", seconds, is_last=True)
    return middle | {name.replace("write3", "last"): entry for name, entry in last.items()}


def looped(log, seconds=0.0):
    start = node(
        "StartLoop",
        mode="simple",
        cache_iterations=False,
        initial_iteration_value=["begin", 0],
        **{"mode.num_iterations": CLIPS},
    )
    end = node("EndLoop", output_value=["write", 0], next_iteration_value=["write", 0], accumulate=False)
    return {"loop": start, "last": end} | one_clip(log, ["loop", 4], seconds=seconds, is_last=["loop", 2])


def lines(log):
    return [int(line) for line in log.read_text().split()]


def processed_video(server, name):
    (path,) = (server.output_directory / "svi" / name).glob("processed-*.mp4")
    return path


@pytest.mark.parametrize("form", [repeated, unrolled, looped])
def test_the_processed_video_is_the_video_as_the_stage_makes_it(server, make, log, form):
    server.run(make(form(log), form.__name__))
    video, found = video_of(server, f"svi/{form.__name__}"), processed_video(server, form.__name__)
    assert lines(log) == [9, 1 + 8, 1 + 12] and count_frames(video) == count_frames(found) == CLIPS * 8 + 5
    for frame, large in zip(read_frames(video), read_frames(found), strict=True):
        assert np.abs(frame.repeat(2, 0).repeat(2, 1).astype(int) - large).max() <= 2


def test_after_a_kill_no_finished_clip_passes_the_stage_again_in_any_form(server, make, log):
    folder = server.output_directory / "svi" / "killed"
    server.queue(make(repeated(log, seconds=1.0), "killed"))
    deadline = time.monotonic() + 300
    while len(lines(log)) < 2:
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.01)
    server.kill()
    parts = {path: path.stat().st_mtime_ns for path in folder.glob("clips/*-processed-*.mp4")}
    assert len(parts) == 1 and count_frames(folder / "processed.mp4") == 9
    server.start()
    server.run(make(repeated(log, seconds=1.0), "killed"))
    made = processed_video(server, "killed")
    assert len(lines(log)) == CLIPS + 1 and count_frames(made) == CLIPS * 8 + 5 and not (folder / "processed.mp4").exists()
    assert all(path.stat().st_mtime_ns == changed for path, changed in parts.items())
    for form in (unrolled, looped):
        server.run(make(form(log, seconds=1.0), "killed"))
        assert processed_video(server, "killed") == made and len(lines(log)) == CLIPS + 1


@pytest.mark.slow
@pytest.mark.parametrize("cache", [["--cache-none"], ["--cache-ram", "4096"]], ids=["keeps nothing", "memory is short"])
def test_memory_does_not_grow_with_the_clips(environment, model_roots, reference_image, tmp_path, cache):
    """The enlarged frames of a clip take 90 MB: if they were kept, twelve clips would need 700 MB more than four.

    ComfyUI's own cache lets go of results where less memory is free than it shall leave: no machine has 4 TB free.
    """
    packs, log = PACK_NODES | {"loop_nodes": LOOP_NODES}, tmp_path / "stage.log"
    with ComfyServer(environment, tmp_path / "s", model_roots=model_roots, custom_nodes=packs, arguments=cache) as server:

        def peak_of(clips):
            middle = repeated(log)
            middle["large"] = node("ImageScaleBy", image=["stage", 0], upscale_method="nearest-exact", scale_by=6.0)
            middle["write"]["inputs"]["images"], middle["last"]["inputs"]["num_clips"] = ["large", 0], clips
            whole = loop_graph(server.add_input(reference_image), filename_prefix=f"svi/{clips}", num_frames=13)
            sizes, process = [], psutil.Process(server.pid)
            server.wait(server.queue(apart(whole, middle)), on_poll=lambda: sizes.append(process.memory_info().rss))
            return max(sizes)

        peak_of(2)
        few, many = peak_of(4), peak_of(12)
        assert len(lines(log)) == 2 + 4 + 12 and many < few + 250e6, f"{few / 1e6:.0f} MB, then {many / 1e6:.0f} MB"
