"""The shipped workflows as the tests use them: found, converted to API format, and made small enough for tiny models."""

import copy
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np

from comfyui.server import ComfyServer
from svi_core.video.video_file import VideoCoding, write_video
from tests.e2e.tiny_talk_models import WAN21_TALK

Graph = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
DEMO = "svi_tiny_demo"
DEMO_API_FILE = REPOSITORY / "demo" / "demo_workflow_api.json"
SMALL = {  # node type: {input: value}, the only values that the tests change
    "SVIAnchorEncode": {"width": 64, "height": 64},
    "SVIConditioning": {"num_frames": 13},
    "SVILayout": {"num_frames": 13},
    "BasicScheduler": {"steps": 2},
    "SplitSigmas": {"step": 1},
    "SVIFewStepSigmas": {"steps_high_noise": 1, "steps_low_noise": 1},
}
NUM_FRAMES = {  # of the made-small workflows
    "svi_2.0_pro_wan2.2_loop": 3 * 8 + 5,
    "svi_2.0_pro_wan2.2_unrolled": 2 * 8 + 5,
    "svi_2.0_pro_wan2.2_long_story": 3 * 8 + 5 + 5 * 8 + 5 + 16,  # a scene of three clips, one of five, a held frame
    "svi_2.0_pro_wan2.2_extend": 24 + 2 * 8,
    "svi_2.0_pro_wan2.2_reroll": 3 * 8 + 5,
    "svi_2.0_pro_wan2.2_story": 3 * 8 + 5,
    "svi_2.0_pro_wan2.2_processed": 3 * 8 + 5,
    "svi_2.0_wan2.2_loop": 3 * 12 + 1,
    "svi_2.0_wan2.1_loop": 3 * 8 + 5,
    "svi_shot_wan2.1_loop": 3 * 12 + 1,
    "svi_film_wan2.1_loop": 4 * 8 + 5,
    "svi_dance_wan2.1_loop": 20,  # as many as there are poses: two clips, the second one cut
    "svi_talk_wan2.1_loop": 3 * 12 + 1,  # 1.2 s of sound are 30 frames, which three clips of 13 cover
    "svi_tiny_demo": 3 * 8 + 5,
}
STAND_INS = {  # what stands in for the demo's own models while one of them is absent
    "tiny_wan22_i2v_high.safetensors": "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors",
    "tiny_wan22_i2v_low.safetensors": "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors",
    "tiny_wan_vae.safetensors": "wan_2.1_vae.safetensors",
    "tiny_umt5.safetensors": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
}
IMAGES = ("example.png", "boat.png")  # that the workflows load


def read(name: str) -> dict[str, Any]:
    """Return the workflow `name` as the front end saves it."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> Graph:
    """Return a workflow in API format, converted without a browser."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    return convert_ui_to_api(workflow, object_info)


def with_plain_names(graph: Graph) -> Graph:
    """Return a graph in which an input that belongs to a choice has its own name only: "codec" for "format.codec".

    Save Video has both from ComfyUI 0.31 on, the plain one for graphs of before, which it reads only without the other.
    """
    plain = {}
    for key, entry in graph.items():
        inputs = sorted(entry["inputs"].items(), key=lambda item: "." in item[0])
        plain[key] = {**entry, "inputs": {name.rpartition(".")[2]: value for name, value in inputs}}
    return plain


def made_small(graph: Graph, keep: tuple[str, ...] = ()) -> Graph:
    """Return a copy of `graph` with SMALL's values, except in the node types of `keep`."""
    small = copy.deepcopy(graph)
    has_demo_models = all((REPOSITORY / "demo" / "models" / name).is_file() for name in STAND_INS)
    for node in small.values():
        if not has_demo_models:
            node["inputs"] = {key: STAND_INS.get(str(value), value) for key, value in node["inputs"].items()}
        if node["class_type"] not in keep:
            node["inputs"] |= SMALL.get(node["class_type"], {})
    if nodes_of(small, "SVITalk"):
        for key in nodes_of(small, "UNETLoader"):
            small[key]["inputs"]["unet_name"] = WAN21_TALK  # as wide as the tiny audio layers
    return small


def small_widgets(graph: Graph) -> dict[str, dict[str, Any]]:
    """Return what :func:`made_small` changes, as node type -> widget values (the two experts' file names aside)."""
    changed: dict[str, dict[str, Any]] = {}
    for key, node in made_small(graph).items():
        inputs = {name: value for name, value in node["inputs"].items() if graph[key]["inputs"][name] != value}
        changed.setdefault(node["class_type"], {}).update(inputs)
    return changed


def nodes_of(graph: Graph, class_type: str, title: str | None = None) -> list[str]:
    """Return the ids of the nodes of a type (and title)."""
    return [
        key
        for key, node in graph.items()
        if node["class_type"] == class_type and (title is None or node["_meta"]["title"] == title)
    ]


def add_images(server: ComfyServer, image: Path) -> None:
    """Give the server every image, video and sound that the workflows name."""
    for name in IMAGES:
        server.add_input(image, name)
    write_video(server.base_directory / "input" / "example.mp4", [np.full((24, 64, 64, 3), 90, np.uint8)], VideoCoding())
    write_video(server.base_directory / "input" / "pose.mp4", [np.full((20, 96, 64, 3), 90, np.uint8)], VideoCoding())
    with wave.open(str(server.base_directory / "input" / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 19_200, np.int16).tobytes())
