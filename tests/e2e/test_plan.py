"""SVI Plan on a real ComfyUI process: nothing loads, and what it says comes true."""

import re
import uuid
from pathlib import Path

import pytest
from PIL import Image

from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames
from tests.e2e.graphs import Graph, loop_graph, node

pytestmark = pytest.mark.e2e

LOADERS = {"model", "low", "vae", "clip", "image", "anchor", "prompts", "sigmas", "generate"}


def planned(server: ComfyServer, image: Path, name: str, plan_only: bool, **options) -> Graph:
    """Return the loop with SVI Plan between SVI Generate and Save Video."""
    graph = loop_graph(server.add_input(image), filename_prefix=f"svi/{name}", **options)
    del graph["latent"]  # it takes a result past the plan
    graph["plan"] = node("SVIPlan", video=["generate", 0], plan_only=plan_only)
    graph["saved"]["inputs"]["video"] = ["plan", 0]
    graph["text"] = node("PreviewAny", source=["plan", 1])
    graph["picture"] = node("SaveImage", images=["plan", 2], filename_prefix="svi/plan")
    return graph


def run(server: ComfyServer, graph: Graph) -> tuple[dict, set[str]]:
    """Run `graph` and return its outputs and the nodes that executed."""
    client = uuid.uuid4().hex
    with server.events(client) as events:
        outputs = server.wait(server.queue(graph, client))
        executed = {data.get("node") for kind, data in events.drain() if kind == "executing"}
    return outputs, executed - {None}


def text_of(outputs: dict) -> str:
    text = "".join(outputs["text"]["text"])
    assert outputs["plan"]["text"] == [text], "the node shows what it gives"
    return text


def test_a_plan_loads_nothing_and_comes_true(comfy_server, reference_image):
    options = {"num_frames": 13, "prompts": ["a cat", "[cut, hold 3]\na woman", "a city"], "seed": 7}
    outputs, executed = run(comfy_server, planned(comfy_server, reference_image, "planned", True, **options))
    before = text_of(outputs)
    assert not executed & LOADERS and "plan" in executed and "saved" not in outputs
    assert "0 stored, 3 to make" in before and "not measured yet" in before
    assert not (comfy_server.output_directory / "svi" / "planned").exists()
    frames = int(re.search(r"3 clips, (\d+) frames", before)[1])
    assert frames == 13 + 13 + 3 + 8  # 2.0 Pro shares 5 frames, a cut none
    with Image.open(comfy_server.saved_file(outputs["picture"]["images"][0])) as picture:
        assert picture.width == 1280

    outputs, executed = run(comfy_server, planned(comfy_server, reference_image, "planned", False, **options))
    assert "generate" in executed
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == frames
    assert "3 stored, 0 to make" in text_of(outputs)

    outputs, executed = run(comfy_server, planned(comfy_server, reference_image, "planned", True, **options))
    assert "3 stored, 0 to make" in text_of(outputs) and not executed & LOADERS
    options["prompts"][1] = "[hold 3]\nanother woman"
    outputs, executed = run(comfy_server, planned(comfy_server, reference_image, "planned", True, **options))
    after = text_of(outputs)
    assert "1 stored, 2 to make in about" in after and "median of 3 clips of this run" in after
    assert not executed & LOADERS


def test_another_run_with_these_models_is_estimated_from_the_first(comfy_server, reference_image):
    run(comfy_server, planned(comfy_server, reference_image, "timed", False, clips=2))
    outputs, _ = run(comfy_server, planned(comfy_server, reference_image, "never made", True, clips=5, steps=6))
    assert "earlier runs with these models, scaled" in text_of(outputs)


def test_values_from_other_nodes_are_followed_or_said_to_be_unknown(comfy_server, reference_image):
    graph = planned(comfy_server, reference_image, "linked plan", True, clips=1)
    graph["words"] = node("PrimitiveStringMultiline", value="a cat\n\na dog")
    graph["folder"] = node("PrimitiveString", value="svi/linked plan")
    graph["prompts"]["inputs"]["text"] = ["words", 0]
    graph["generate"]["inputs"].update(filename_prefix=["folder", 0], num_clips=["prompts", 1])
    graph["manual"] = node("ManualSigmas", sigmas="1.0, 0.9, 0.5, 0.0")
    graph["generate"]["inputs"]["sigmas"] = ["manual", 0]
    outputs, executed = run(comfy_server, graph)
    text = text_of(outputs)
    assert "2 clips, " in text and "| 2 | 0.31 s | 8 | 47 | new |  | a dog |" in text  # 4 of 5 shared frames blend
    assert "steps: sigmas come from ManualSigmas (node manual)" in text
    assert not executed & (LOADERS | {"words", "folder", "manual"})


def test_a_mistake_in_a_linked_schedule_is_shown_with_its_place(comfy_server, reference_image):
    graph = planned(comfy_server, reference_image, "mistaken", True)
    graph["words"] = node("PrimitiveStringMultiline", value="ok\n\n[sede 3]\nx")
    graph["prompts"]["inputs"]["text"] = ["words", 0]
    outputs, executed = run(comfy_server, graph)
    assert "cannot be planned: schedule, line 3, column 2" in text_of(outputs) and not executed & LOADERS


def test_a_result_past_the_plan_is_warned_of(comfy_server, reference_image):
    graph = planned(comfy_server, reference_image, "past", True, clips=1)
    graph["latent"] = node("SaveLatent", samples=["generate", 1], filename_prefix="latents/past")
    outputs, executed = run(comfy_server, graph)
    assert "SaveLatent (node latent) is connected to SVI Generate" in text_of(outputs)
    assert "generate" in executed and "saved" not in outputs
