"""Every shipped workflow runs on a real ComfyUI with tiny models, and is what its description gives."""

import json

import pytest
import torch
from safetensors.torch import load_file

from batch.workflow import convert as batch_convert
from dev.workflows import build as build_workflows
from svi_core.video.frame_times import count_frames
from tests.e2e import shipped
from tests.e2e.graphs import node

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def object_info(comfy_server):
    return comfy_server.object_info()


def test_every_workflow_is_described_and_expected():
    assert shipped.NAMES == sorted(build_workflows.WORKFLOWS) == sorted(shipped.NUM_FRAMES)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_file_is_what_its_description_gives(object_info, name):
    committed = (shipped.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    built = build_workflows.build(name, object_info)
    assert without_types_of_comfyui(committed) == without_types_of_comfyui(built), "run dev.workflows.build"
    assert committed == json.dumps(json.loads(committed), indent=1, ensure_ascii=False) + "\n"


def without_types_of_comfyui(text: str) -> dict:
    """Return a workflow without the types of the widgets of ComfyUI's own nodes: Save Video's changed with ComfyUI 0.31."""
    workflow = json.loads(text)
    for entry in workflow["nodes"]:
        if not entry["type"].startswith("SVI"):
            entry["inputs"] = [{**slot, "type": None} if "widget" in slot else slot for slot in entry["inputs"]]
    return workflow


def test_the_demo_in_api_format_is_the_demo_workflow(object_info):
    committed = json.loads(shipped.DEMO_API_FILE.read_text(encoding="utf-8"))
    assert shipped.with_plain_names(committed) == shipped.with_plain_names(
        shipped.to_api(shipped.read(shipped.DEMO), object_info)
    )


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_batch_command_converts_as_the_front_end_does(object_info, name):
    assert batch_convert.to_api(shipped.read(name), object_info).graph == shipped.to_api(shipped.read(name), object_info)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_workflow_makes_its_video(workflow_server, object_info, name):
    graph = shipped.made_small(shipped.to_api(shipped.read(name), object_info))
    outputs = workflow_server.run(graph)
    (save,) = shipped.nodes_of(graph, "SaveVideo")
    assert count_frames(workflow_server.saved_file(outputs[save]["images"][0])) == shipped.NUM_FRAMES[name]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_nothing_is_left_to_a_default(object_info, name):
    """Every widget is in the file, seeds stay fixed, no node is muted, and every weight file has its download."""
    workflow = shipped.read(name)
    graph = shipped.to_api(workflow, object_info)
    for key, entry in graph.items():
        definition = object_info[entry["class_type"]]["input"]
        assert set(definition.get("required", {})) <= {given.split(".")[0] for given in entry["inputs"]}, key
    assert all(saved["mode"] == 0 for saved in workflow["nodes"])
    assert all("randomize" not in saved["widgets_values"] for saved in workflow["nodes"])
    downloads = {model["name"] for saved in workflow["nodes"] for model in saved["properties"].get("models", [])}
    if name != shipped.DEMO:
        values = [value for entry in graph.values() for value in entry["inputs"].values()]
        assert downloads == {value for value in values if str(value).endswith(".safetensors")}


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_thumbnail_stands_beside_each_workflow(name):
    from PIL import Image

    path = shipped.FOLDER / f"{name}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and 400 <= picture.width <= 600
    assert path.stat().st_size < 60_000


def test_the_unrolled_workflow_gives_the_latents_of_the_loop_bit_for_bit(workflow_server, object_info):
    keep = ("BasicScheduler", "SplitSigmas")  # the steps and their split, as shipped
    loop, unrolled = (
        shipped.made_small(shipped.to_api(shipped.read(f"svi_2.0_pro_wan2.2_{form}"), object_info), keep)
        for form in ("loop", "unrolled")
    )
    (generate,) = shipped.nodes_of(loop, "SVIGenerate")
    loop[generate]["inputs"]["num_clips"] = 2
    (last,) = shipped.nodes_of(unrolled, "SamplerCustom", "Clip 2: low noise")
    found = []
    for graph, link in ((loop, [generate, 1]), (unrolled, [last, 0])):
        graph["latent"] = node("SaveLatent", samples=link, filename_prefix="latents/shipped")
        saved = workflow_server.run(graph)["latent"]["latents"][0]
        found.append(load_file(workflow_server.saved_file(saved))["latent_tensor"])
    assert torch.equal(*found)
