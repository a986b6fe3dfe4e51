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

PLAYERS = ("SVIShowVideo", "SaveVideo")  # that show the video of a workflow: the second copies what is no file yet
REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "workflows"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.json"))
BLUEPRINT_FOLDER = REPOSITORY / "subgraphs"
BLUEPRINTS = sorted(path.stem for path in BLUEPRINT_FOLDER.glob("*.json"))
DEMO = "svi_tiny_demo"
NAMES = [*TEMPLATES, DEMO]
FIRST = "1 Long video from one image"
FIVE_NODES = [FIRST, *(name for name in TEMPLATES if name.startswith("SVI "))]
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
    "1 Long video from one image": 3 * 8 + 5,
    "2 Long story with cuts": 3 * 8 + 5 + 5 * 8 + 5 + 16,  # a scene of three clips, one of five, a held frame
    "3 Story from a subject": 3 * 8 + 5,
    "4 Continue a video": 24 + 2 * 8,
    "5 Redo one clip": 3 * 8 + 5,
    "6 Upscale each clip": 3 * 8 + 5,
    "SVI 2.0 - one scene with much motion": 3 * 12 + 1,
    "SVI Dance - follow a pose video": 20,  # as many as there are poses: two clips, the second one cut
    "SVI Film - several scenes": 4 * 8 + 5,
    "SVI Shot - one scene of any length": 3 * 12 + 1,
    "SVI Talk - speak a sound file": 3 * 12 + 1,  # 1.2 s of sound are 30 frames, which three clips of 13 cover
    "Unfolded 2.0 Pro": 3 * 8 + 5,
    "Unfolded 2.0 on Wan 2.1": 3 * 8 + 5,
    "Unfolded 2.0 on Wan 2.2": 3 * 12 + 1,
    "Unfolded Dance": 20,
    "Unfolded Film": 4 * 8 + 5,
    "Unfolded Shot": 3 * 12 + 1,
    "Unfolded Talk": 3 * 12 + 1,
    "Unrolled into stock samplers": 2 * 8 + 5,
    "svi_tiny_demo": 3 * 8 + 5,
}
UNFOLDED = {  # five-node template: the same with every node on the page
    "1 Long video from one image": "Unfolded 2.0 Pro",
    "SVI 2.0 - one scene with much motion": "Unfolded 2.0 on Wan 2.2",
    "SVI Dance - follow a pose video": "Unfolded Dance",
    "SVI Film - several scenes": "Unfolded Film",
    "SVI Shot - one scene of any length": "Unfolded Shot",
    "SVI Talk - speak a sound file": "Unfolded Talk",
}
STAND_INS = {  # what stands in for the demo's own models while one of them is absent
    "tiny_wan22_i2v_high.safetensors": "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors",
    "tiny_wan22_i2v_low.safetensors": "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors",
    "tiny_wan_vae.safetensors": "wan_2.1_vae.safetensors",
    "tiny_umt5.safetensors": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
}
IMAGES = ("example.png", "boat.png")  # that the workflows load


def read(name: str) -> dict[str, Any]:
    """Return the workflow or blueprint `name` as the front end saves it."""
    if name == DEMO:
        folder = DEMO_API_FILE.parent  # beside its models: it is no template
    else:
        folder = BLUEPRINT_FOLDER if name in BLUEPRINTS else FOLDER
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def all_nodes(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a workflow, those of its subgraphs among them, without the nodes that stand for a subgraph."""
    folded = workflow.get("definitions", {}).get("subgraphs", [])
    nodes = [node for graph in (workflow, *folded) for node in graph["nodes"]]
    return [node for node in nodes if node["type"] not in {graph["id"] for graph in folded}]


LOADERS = {"image": ("LoadImage", ["example.png", "image"]), "audio": ("LoadAudio", ["speech.wav", "audio"])}
LOADERS["poses"] = ("LoadVideo", ["pose.mp4", "image"])


def with_ends(blueprint: dict[str, Any]) -> dict[str, Any]:
    """Return a blueprint with a loader linked to each of its sockets, and a node that shows its video."""
    workflow = copy.deepcopy(blueprint)
    (folded,) = workflow["nodes"]

    def link(source: int, target: int, index: int, kind: str) -> int:
        workflow["links"].append([len(workflow["links"]) + 1, source, 0, target, index, kind])
        return len(workflow["links"])

    for index, slot in enumerate(folded["inputs"]):
        if "widget" not in slot:
            kind, values = LOADERS[slot["name"]]
            node = {"id": len(workflow["nodes"]) + 1, "type": kind, "mode": 0, "inputs": [], "widgets_values": values}
            slot["link"] = link(node["id"], folded["id"], index, slot["type"])
            workflow["nodes"].append({**node, "outputs": [{"name": "", "type": slot["type"], "links": [slot["link"]]}]})
    show = {"id": 50, "type": "SVIShowVideo", "mode": 0, "outputs": [], "widgets_values": []}
    video = link(folded["id"], 50, 0, "VIDEO")
    workflow["nodes"].append({**show, "inputs": [{"name": "video", "type": "VIDEO", "link": video}]})
    folded["outputs"][0]["links"] = [video]
    return workflow


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


def player(graph: Graph) -> str:
    """Return the id of the one node that shows the video of a workflow."""
    (found,) = [key for kind in PLAYERS for key in nodes_of(graph, kind)]
    return found


def add_images(server: ComfyServer, image: Path) -> None:
    """Give the server every image, video and sound that the workflows name."""
    for name in IMAGES:
        server.add_input(image, name)
    write_video(server.base_directory / "input" / "example.mp4", [np.full((24, 64, 64, 3), 90, np.uint8)], VideoCoding())
    write_video(server.base_directory / "input" / "pose.mp4", [np.full((20, 96, 64, 3), 90, np.uint8)], VideoCoding())
    with wave.open(str(server.base_directory / "input" / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 19_200, np.int16).tobytes())
