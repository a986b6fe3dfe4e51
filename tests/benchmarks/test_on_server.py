"""What the benchmark counts, against what the graphs must cost; and memory that does not grow with the clips."""

import os
import subprocess
import threading
import time

import psutil
import pytest

from benchmarks.loop.graphs import GRAPHS, Job, num_shown_frames
from benchmarks.loop.measure import counted_run
from benchmarks.server_run import PROBED_NODES, bytes_of_children, forget_cached, own_bytes
from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server(environment, tiny_models, tmp_path_factory):
    """A server with the benchmark's probe in it."""
    with ComfyServer(environment, tmp_path_factory.mktemp("probed"), model_roots=[tiny_models], custom_nodes=PROBED_NODES) as s:
        yield s


EXACT = {  # of two clips of 9 frames with two prompts and a negative one, two experts with 20 adapted weights each
    "ours": {"VAE encodes": 1, "encoded frames": 1, "decoded frames": 18, "model calls": 8},
    "stock": {"VAE encodes": 2, "encoded frames": 18, "decoded frames": 18, "model calls": 8},
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_counts_are_what_the_graph_must_cost(server, reference_image, kind):
    image, job = server.add_input(reference_image), Job(2, num_frames=9)
    forget_cached(server)
    graph = GRAPHS[kind](image, job, kind)
    counted = counted_run(server, graph, copies_of=64)
    expected = EXACT[kind] | {"text encodes": 3, "patched weights": 40}
    assert {name: counted[name] for name in expected} == expected
    video = next((server.output_directory / "video").glob(f"{kind}*.mp4"))
    assert count_frames(video) == num_shown_frames(kind, job)
    written = num_shown_frames(kind, job) * 64 * 64 * 3
    assert counted["copied frame bytes"] >= written, "every frame becomes bytes once at least"
    assert counted["cpu_seconds"] > 0 and counted["peak_bytes"] >= counted["bytes_before"] > 10**8
    assert 0 < counted["video seconds"] < counted["wall_seconds"]


def test_stock_copies_every_frame_into_one_batch(server, reference_image):
    """Each further clip of 8 new frames is cut out of its clip and put into the batch: 2 float32 copies at least."""
    image = server.add_input(reference_image)
    runs = [counted_run(server, GRAPHS["stock"](image, Job(n, 9, seed=50 * n), "copies"), copies_of=64) for n in (2, 4)]
    more = runs[1]["copied frame bytes"] - runs[0]["copied frame bytes"]
    assert more >= 2 * (2 * 8) * 64 * 64 * 3 * 4


@pytest.mark.slow
def test_memory_is_flat_from_clip_3_to_clip_20(server, reference_image):
    """The server's own memory while 20 clips of 81 frames are made: its peak in clips 15 to 20 against clips 3 to 8.

    A clip kept would be 4.0 MB of float32 frames (1.0 MB as bytes), 12 of them 48 MB: 8 % of the server's 0.6 GB. Clips 1 and
    2 are left out, since caches fill and the allocator's arenas grow in them; pages of files, since the kernel takes them
    as it likes; and ffmpeg, whose processes end with each clip. Nothing is timed.
    """
    job = Job(20)
    graph = GRAPHS["ours"](server.add_input(reference_image), job, "flat")
    folder = server.output_directory / "benchmark" / "flat" / "clips"
    peaks = [0] * (job.num_clips + 1)
    process, ended = psutil.Process(server.pid), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            finished = sum(1 for path in folder.glob("*.mp4") if "staging" not in path.name) if folder.is_dir() else 0
            peaks[finished] = max(peaks[finished], own_bytes(process))
            time.sleep(0.03)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        server.run(graph)
    finally:
        ended.set()
        thread.join()
    early, late = max(peaks[2:8]), max(peaks[14:20])
    assert min(peaks[2:20]) > 10**8, "every clip was seen"
    assert late < early * 1.01, f"{early / 1e6:.1f} MB, then {late / 1e6:.1f} MB: {[round(p / 1e6) for p in peaks]}"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
def test_only_children_that_have_become_another_program_are_counted():
    process = psutil.Process()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        os._exit(0)
    try:
        assert bytes_of_children(process) == 0
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)
    with subprocess.Popen(["sleep", "60"]) as other:
        while psutil.Process(other.pid).exe() == process.exe():
            time.sleep(0.01)
        assert 0 < bytes_of_children(process) < 10**8
        other.kill()
