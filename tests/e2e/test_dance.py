"""SVI-Dance on a real ComfyUI process: as long as its poses, at their rate, clips redone only where poses changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from comfyui.client import ExecutionFailed
from comfyui.server import ComfyServer
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, write_video
from tests.e2e.graphs import WAN21, loop_graph, node

pytestmark = pytest.mark.e2e

DANCE = "svi-dance.safetensors"
REAL = Path("/work/shared/data/pose/pose.mp4")
NUM_POSES = 20  # clips of 9 frames that share one: 3 clips, 25 frames
PROMPTS = ["the person is dancing"]


def pose_frames(num_poses: int = NUM_POSES) -> np.ndarray:
    """A white bar that walks over black, [n, 64, 48, 3]."""
    frames = np.zeros((num_poses, 64, 48, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[8:56, 2 * index : 2 * index + 6] = (255, 200, 0)
    return frames


@pytest.fixture
def add_poses(comfy_server, tmp_path):
    """Give the server a pose video of 24 frames per second, without loss, and return its name."""

    def add(frames: np.ndarray, name: str) -> str:
        write_video(tmp_path / name, [frames], VideoCoding(crf=0, frame_rate=24))
        return comfy_server.add_input(tmp_path / name, name)

    return add


def dance_graph(server: ComfyServer, picture: Path, poses: str, *, end="loop", negative=True, **options) -> dict:
    """The loop with SVI Dance; its number of clips is that of the poses unless `clips` is given."""
    clips = options.pop("clips", None)
    options = {"steps": 2, "prompts": PROMPTS, "variant": "Dance", **options}
    graph = loop_graph(server.add_input(picture), model=WAN21, low=None, **options)
    graph["vision"] = node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors")
    graph["row"] = node("SVILora", lora=DANCE, strength=1.0, lora_low_noise="none", strength_low_noise=1.0)
    graph["stack"] = node("SVILoraStack", model=["model", 0], loras=["row", 0])
    graph["poses"] = node("LoadVideo", file=poses)
    graph["dance"] = node(
        "SVIDance", poses=["poses", 0], lora=DANCE, when_poses_end=end, pose_in_negative=negative, layout=["layout", 0]
    )
    graph["generate"]["inputs"] |= {
        "model": ["stack", 0],
        "clip_vision": ["vision", 0],
        "control": ["dance", 0],
        "num_clips": ["dance", 1] if clips is None else clips,
    }
    return graph


def made(server: ComfyServer, graph: dict) -> tuple[Path, torch.Tensor, list[str]]:
    """Return the saved video, the last clip's latent and the clips' keys."""
    outputs = server.run(graph)
    latent = load_file(server.saved_file(outputs["latent"]["latents"][0]))["latent_tensor"]
    folder = server.output_directory / graph["generate"]["inputs"]["filename_prefix"]
    keys = [clip["key"] for clip in json.loads((folder / "run.json").read_text())["clips"]]
    return server.saved_file(outputs["saved"]["images"][0]), latent, keys


@pytest.mark.parametrize(("end", "num_frames"), [("loop", 3 * 8 + 1), ("hold last", 3 * 8 + 1), ("stop", NUM_POSES)])
def test_the_video_is_as_long_as_its_poses_and_as_fast(comfy_server, reference_image, add_poses, end, num_frames):
    graph = dance_graph(
        comfy_server, reference_image, add_poses(pose_frames(), "pose.mp4"), end=end, filename_prefix=f"svi/dance {end}"
    )
    video, _, keys = made(comfy_server, graph)
    found = probe_video(video)
    assert (found.num_frames, found.frame_rate, len(keys)) == (num_frames, 24.0, 3)


def test_after_the_last_pose_clips_differ_by_what_comes_then(comfy_server, reference_image, add_poses):
    """Three clips of 12 poses: loop and hold go on, differently from the second clip on; stop makes no third one."""
    poses = add_poses(pose_frames(12), "twelve.mp4")
    keys = {
        end: made(
            comfy_server,
            dance_graph(comfy_server, reference_image, poses, end=end, clips=3, filename_prefix=f"svi/dance three {end}"),
        )[2]
        for end in ("loop", "hold last", "stop")
    }
    assert [len(of) for of in keys.values()] == [3, 3, 2]
    assert [a == b for a, b in zip(keys["loop"], keys["hold last"], strict=True)] == [True, False, False]
    assert keys["stop"] == keys["hold last"][:2]


def test_changed_poses_make_those_clips_again_that_show_them(comfy_server, reference_image, add_poses):
    """The third clip begins anew (a cut), so that it does not depend on the second: only poses 8 .. 16 are the second's."""
    changed = pose_frames()
    changed[12] = 255
    prompts = ["a dances", "b dances", "[cut]\nc dances"]
    found = [
        made(
            comfy_server,
            dance_graph(
                comfy_server, reference_image, add_poses(frames, name), prompts=prompts, filename_prefix="svi/dance cut"
            ),
        )
        for frames, name in ((pose_frames(), "pose.mp4"), (changed, "changed.mp4"))
    ]
    assert [a == b for a, b in zip(found[0][2], found[1][2], strict=True)] == [True, False, True]
    assert torch.equal(found[0][1], found[1][1])
    clips = list((comfy_server.output_directory / "svi" / "dance cut" / "clips").glob("*.safetensors"))
    assert len(clips) == 4, "two of three clips were reused"


def test_poses_move_the_result_in_both_passes(comfy_server, reference_image, add_poses):
    still = np.repeat(pose_frames()[:1], NUM_POSES, axis=0)
    latents = {
        name: made(
            comfy_server,
            dance_graph(
                comfy_server,
                reference_image,
                add_poses(frames, f"{name}.mp4"),
                clips=1,
                filename_prefix="svi/dance moves",
                **more,
            ),
        )[1]
        for name, frames, more in (
            ("pose", pose_frames(), {}),
            ("still", still, {}),
            ("positive only", pose_frames(), {"negative": False}),
        )
    }
    assert not torch.equal(latents["pose"], latents["still"])
    assert not torch.equal(latents["pose"], latents["positive only"])


def test_images_are_poses_too_at_the_layouts_rate(comfy_server, reference_image, add_poses):
    """Grey poses, since ComfyUI's Get Video Components reads the colours of BT.709 files in another way than ffmpeg."""
    grey = np.repeat(pose_frames()[..., :1], 3, axis=-1)
    poses = add_poses(grey, "grey.mp4")
    graph = dance_graph(comfy_server, reference_image, poses, clips=1, filename_prefix="svi/dance images")
    latent = made(comfy_server, graph)[1]
    graph["frames"] = node("GetVideoComponents", video=["poses", 0])
    graph["dance"]["inputs"]["poses"] = ["frames", 0]
    graph["generate"]["inputs"]["filename_prefix"] = "svi/dance images 2"
    video, same, _ = made(comfy_server, graph)
    graph["dance"]["inputs"]["poses"] = ["poses", 0]
    graph["poses"]["inputs"]["file"] = add_poses(255 - grey, "negative.mp4")
    other = made(comfy_server, graph)[1]
    assert (latent - same).abs().max() < 0.1 * (latent - other).abs().max(), "only rounding of grey values"
    assert probe_video(video).frame_rate == 25.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"dance": {"lora": "svi-shot_lora_rank_128_fp16.safetensors"}},
            "svi-shot_lora_rank_128_fp16.safetensors holds no pose",
        ),
        ({"layout": {"variant": "2.0 Pro"}}, "layout"),
        ({"generate": {"control": None}}, "connect SVI Dance"),
    ],
    ids=["no pose encoder", "another layout", "no poses"],
)
def test_what_does_not_fit_is_refused_before_the_first_step(comfy_server, reference_image, add_poses, change, words):
    poses = add_poses(pose_frames(), "pose.mp4")
    graph = dance_graph(comfy_server, reference_image, poses, filename_prefix="svi/dance refused", num_frames=13, clips=2)
    for key, values in change.items():
        graph[key]["inputs"] |= values
        graph[key]["inputs"] = {name: value for name, value in graph[key]["inputs"].items() if value is not None}
    with pytest.raises(ExecutionFailed, match=words):
        comfy_server.run(graph)
    assert not list((comfy_server.output_directory / "svi").glob("dance refused/clips/*"))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not here")
def test_a_real_pose_video_in_clips_of_81_frames(comfy_server, reference_image):
    """223 poses at 24 frames per second: 3 clips, 241 frames."""
    name = comfy_server.add_input(REAL, "real pose.mp4")
    graph = dance_graph(comfy_server, reference_image, name, num_frames=81, steps=1, filename_prefix="svi/dance real")
    graph["anchor"]["inputs"] |= {"width": 32, "height": 64}
    video, _, keys = made(comfy_server, graph)
    found = probe_video(video)
    assert (found.num_frames, found.frame_rate, len(keys)) == (3 * 80 + 1, 24.0, 3)
