"""Continue and join videos, seams, final length, colours, and the loop taken apart, on a real ComfyUI process."""

import json
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from comfyui.client import ExecutionFailed
from comfyui.server import PACK_NODES, ComfyServer
from svi_core.store.records import read_manifest
from svi_core.video.frame_times import count_frames
from svi_core.video.shown_frames import frame_hashes
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import read_frames
from tests.e2e.graphs import PROMPTS, loop_graph, node

pytestmark = pytest.mark.e2e


def latent(server: ComfyServer, outputs: dict, name: str = "latent") -> torch.Tensor:
    return load_file(server.saved_file(outputs[name]["latents"][0]))["latent_tensor"]


def video_of(server: ComfyServer, prefix: str) -> Path:
    folder = server.output_directory / prefix
    return folder / json.loads((folder / "run.json").read_text())["video"]


def picture_video(path: Path, *, size: str = "64x64", rate: int = 16, seconds: float = 2.0) -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", "-f", "lavfi"]
    command += ["-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(path)], check=True)
    return path


def with_start(graph: dict, file: str, trim_end: int = 0) -> dict:
    graph["loaded"] = node("LoadVideo", file=file)
    graph["start"] = node("SVIContinueVideo", video=["loaded", 0], run="", trim_end=trim_end)
    graph["generate"]["inputs"]["continue_from"] = ["start", 0]
    return graph


def with_output(graph: dict, **changes) -> dict:
    settings = {"codec": "h264", "crf": 18, "pixel_format": "yuv420p", "budget_gb": 0.0}
    settings |= {"seam": "drop", "colour_match": 0.0, "length_seconds": 0.0} | changes
    graph["output"] = node("SVIOutput", **settings)
    graph["generate"]["inputs"]["output"] = ["output", 0]
    return graph


def apart(graph: dict, middle: dict) -> dict:
    """Return `graph` with SVI Generate taken apart: begin, the nodes `middle` from "begin" to "last", finish."""
    taken = {name: dict(entry) for name, entry in graph.items() if name not in ("generate", "latent")}
    inputs = {name: value for name, value in graph["generate"]["inputs"].items() if name != "num_clips"}
    taken |= {"begin": node("SVIBeginVideo", **inputs), **middle, "finish": node("SVIFinishVideo", state=["last", 0])}
    taken["saved"] = node("SaveVideo", video=["finish", 0], filename_prefix="video/apart", format="auto", codec="auto")
    return taken


@pytest.mark.parametrize(("variant", "overlap"), [("2.0 Pro", 5), ("Film", 5), ("Shot", 1)])
def test_any_video_goes_on_with_its_own_frames_unchanged(comfy_server, reference_image, tmp_path, variant, overlap):
    source = picture_video(tmp_path / "holiday.mp4", rate=24)
    name = f"svi/extended {variant}"
    graph = loop_graph(comfy_server.add_input(reference_image), clips=2, variant=variant, num_frames=13, filename_prefix=name)
    comfy_server.run(with_start(graph, comfy_server.add_input(source), trim_end=3))
    video = video_of(comfy_server, name)
    assert frame_hashes(video)[:45] == frame_hashes(source)[:45]
    assert count_frames(video) == 45 + 2 * (13 - overlap)
    assert sum(clip.num_frames for clip in read_manifest(video)[:1]) == 45 and len(read_manifest(video)) == 3


@pytest.mark.parametrize(("variant", "overlap"), [("2.0 Pro", 5), ("Film", 5)])
def test_one_frame_whose_sides_are_no_multiples_of_16_goes_on_at_its_size(
    comfy_server, reference_image, tmp_path, variant, overlap
):
    source = picture_video(tmp_path / "one.mp4", size="62x60", seconds=0.05)
    name = f"svi/one frame {variant}"
    graph = loop_graph(comfy_server.add_input(reference_image), clips=1, variant=variant, num_frames=13, filename_prefix=name)
    comfy_server.run(with_start(graph, comfy_server.add_input(source)))
    video = video_of(comfy_server, name)
    assert frame_hashes(video)[:1] == frame_hashes(source) and count_frames(video) == 1 + 13 - overlap
    assert {frame.shape for frame in read_frames(video)} == {(60, 62, 3)}


def test_a_continued_run_is_bit_for_bit_the_run_gone_on(comfy_server, reference_image, tmp_path):
    image = comfy_server.add_input(reference_image)
    whole = latent(comfy_server, comfy_server.run(loop_graph(image, filename_prefix="svi/gone on")))
    comfy_server.run(loop_graph(image, clips=2, filename_prefix="svi/two clips"))
    start = with_start(loop_graph(image, clips=1, prompts=PROMPTS[2:], filename_prefix="svi/third"), "unused")
    del start["loaded"]
    two = loop_graph(image, clips=2, filename_prefix="svi/two clips")
    start["two"], start["two prompts"] = two["generate"], two["prompts"]
    start["two"]["inputs"]["prompts"] = ["two prompts", 0]
    start["start"]["inputs"]["video"] = ["two", 0]
    assert torch.equal(latent(comfy_server, comfy_server.run(start)), whole)
    keys = [clip.key for clip in read_manifest(video_of(comfy_server, "svi/gone on"))]
    assert [clip.key for clip in read_manifest(video_of(comfy_server, "svi/third"))] == keys


def test_a_video_of_another_size_is_refused_before_the_first_step(comfy_server, reference_image, tmp_path):
    source = picture_video(tmp_path / "wide.mp4", size="128x64", seconds=0.5)
    graph = loop_graph(comfy_server.add_input(reference_image), num_frames=13, filename_prefix="svi/wide")
    with pytest.raises(ExecutionFailed, match=r"wide.mp4\) has 128 x 64 pixels, but the anchor has 64 x 64"):
        comfy_server.run(with_start(graph, comfy_server.add_input(source)))
    assert not (comfy_server.output_directory / "svi" / "wide").exists()


def test_the_loop_taken_apart_gives_the_same_clips_and_video(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    whole = with_output(loop_graph(image, variant="Film", filename_prefix="svi/in one"), crf=0, pixel_format="yuv444p")
    expected = latent(comfy_server, comfy_server.run(whole))
    middle = {
        "first": node("SVINextClip", state=["begin", 0]),
        "second": node("SVINextClip", state=["first", 0]),
        "last": node("SVINextClip", state=["second", 0]),
        "latent": node("SaveLatent", samples=["last", 2], filename_prefix="latents/apart"),
        "second clip": node("SaveVideo", video=["second", 1], filename_prefix="video/clip", format="auto", codec="auto"),
    }
    same = with_output(loop_graph(image, variant="Film", filename_prefix="svi/apart"), crf=0, pixel_format="yuv444p")
    graph = apart(same, middle)
    found = latent(comfy_server, comfy_server.run(graph))
    assert torch.equal(found, expected)
    one, other = (video_of(comfy_server, f"svi/{name}") for name in ("in one", "apart"))
    assert count_frames(one) == count_frames(other) == 3 * 4 + 5
    for frame, same in zip(read_frames(one), read_frames(other), strict=True):
        assert np.abs(frame.astype(int) - same.astype(int)).max() <= 2
    shutil.rmtree(comfy_server.output_directory / "svi" / "apart")  # ComfyUI remembers the results, the disk does not
    comfy_server.run(graph)
    assert count_frames(video_of(comfy_server, "svi/apart")) == 3 * 4 + 5


def test_unrolled_clips_are_cached_one_by_one(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    expected = latent(comfy_server, comfy_server.run(loop_graph(image, clips=3, filename_prefix="svi/as loop")))

    def unrolled(num_clips):
        middle = {"last": node("SVIUnrollClips", state=["begin", 0], num_clips=num_clips)}
        return apart(loop_graph(image, filename_prefix="svi/unrolled"), middle)

    def times():
        clips = (comfy_server.output_directory / "svi" / "unrolled" / "clips").glob("*.safetensors")
        return {path.stem: path.stat().st_ino for path in clips}

    comfy_server.run(unrolled(2))
    before = times()
    comfy_server.run(unrolled(3))
    after = times()
    assert len(before) == 2 and len(after) == 3 and before.items() <= after.items()
    video = video_of(comfy_server, "svi/unrolled")
    last = read_manifest(video)[-1].key
    stored = load_file(video.parent / "clips" / f"{last}.safetensors")["latent"]
    assert torch.equal(stored, expected) and count_frames(video) == 3 * 4 + 5


def test_a_generic_loop_carries_the_whole_state_as_one_value(environment, model_roots, reference_image, tmp_path):
    packs = PACK_NODES | {"loop_nodes": Path(__file__).with_name("loop_nodes")}
    with ComfyServer(environment, tmp_path / "server", model_roots=model_roots, custom_nodes=packs) as server:
        image = server.add_input(reference_image)
        expected = latent(server, server.run(loop_graph(image, clips=4, filename_prefix="svi/as loop")))
        middle = {
            "loop": node(
                "StartLoop",
                mode="simple",
                cache_iterations=False,
                initial_iteration_value=["begin", 0],
                **{"mode.num_iterations": 4},
            ),
            "body": node("SVINextClip", state=["loop", 4]),
            "last": node("EndLoop", output_value=["body", 0], next_iteration_value=["body", 0], accumulate=False),
        }
        server.run(apart(loop_graph(image, filename_prefix="svi/generic"), middle))
        video = video_of(server, "svi/generic")
        stored = load_file(video.parent / "clips" / f"{read_manifest(video)[-1].key}.safetensors")["latent"]
        assert torch.equal(stored, expected) and count_frames(video) == 4 * 4 + 5


def test_seam_length_and_colours_change_what_is_shown_only(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)

    def made(**changes):
        graph = loop_graph(image, filename_prefix="svi/shown")
        found = latent(comfy_server, comfy_server.run(with_output(graph, **changes)))
        return found, video_of(comfy_server, "svi/shown")

    plain, video = made()
    frames = [frame.astype(int) for frame in read_frames(video)]
    blended, other = made(seam="linear")
    mixed = [frame.astype(int) for frame in read_frames(other)]
    assert torch.equal(plain, blended) and len(mixed) == len(frames) == 17 and other != video
    assert np.abs(mixed[2] - frames[2]).max() <= 12 and np.abs(mixed[6] - frames[6]).max() > 0
    _, short = made(length_seconds=0.625)
    assert count_frames(short) == 10
    _, matched = made(colour_match=1.0)
    anchor = np.array([frame.mean(axis=(0, 1)) for frame in read_frames(video)])[0]
    levels = np.array([frame.mean(axis=(0, 1)) for frame in read_frames(matched)])
    drifted = np.array([frame.mean(axis=(0, 1)) for frame in frames])
    assert np.abs(levels[-1] - anchor).max() < np.abs(drifted[-1] - anchor).max()
    assert len(list((video.parent / "clips").glob("*.safetensors"))) == 3  # nothing was sampled again


def test_a_final_length_shorter_than_the_video_to_continue_is_refused(comfy_server, reference_image, tmp_path):
    source = picture_video(tmp_path / "long.mp4")
    graph = loop_graph(comfy_server.add_input(reference_image), num_frames=13, filename_prefix="svi/short")
    graph = with_output(graph, length_seconds=2.0)
    with pytest.raises(ExecutionFailed, match="length_seconds is 2, but the video to continue already lasts 2.00 seconds"):
        comfy_server.run(with_start(graph, comfy_server.add_input(source)))


def test_runs_are_joined(comfy_server, reference_image, tmp_path):
    image = comfy_server.add_input(reference_image)
    graph = loop_graph(image, clips=2, filename_prefix="svi/a")
    other = loop_graph(image, clips=1, seed=77, filename_prefix="svi/b")
    graph |= {"generate b": other["generate"], "prompts b": other["prompts"]}
    graph["generate b"]["inputs"]["prompts"] = ["prompts b", 0]

    def joined(name, **options):
        inputs = {"seam": "drop", "blend_frames": 0, "trim_end": 0, "trim_start": 0, **options}
        graph["joined"] = node("SVIJoinVideos", first=["generate", 0], second=["generate b", 0], filename_prefix=name, **inputs)
        graph["saved"]["inputs"]["video"] = ["joined", 0]
        comfy_server.run(graph)
        return video_of(comfy_server, name)

    first, second = video_of, video_of
    whole = joined("svi/joined ü")
    first, second = (video_of(comfy_server, name) for name in ("svi/a", "svi/b"))
    assert frame_hashes(whole) == frame_hashes(first) + frame_hashes(second)
    assert [clip.num_frames for clip in read_manifest(whole)] == [5, 8, 9]
    faded = joined("svi/faded", seam="eased", blend_frames=4, trim_end=1, trim_start=2)
    assert count_frames(faded) == (13 - 1) + (9 - 2) - 4 and probe_video(faded).width == 64
    assert [clip.num_frames for clip in read_manifest(faded)] == [5, 7, 3]
    with pytest.raises(ExecutionFailed, match="blend_frames is 99, but the pieces have 13 and 9 frames"):
        joined("svi/refused", seam="linear", blend_frames=99)
