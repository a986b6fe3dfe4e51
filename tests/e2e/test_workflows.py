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
    assert sorted(shipped.NAMES) == sorted(build_workflows.WORKFLOWS) == sorted(shipped.NUM_FRAMES)
    assert shipped.TEMPLATES == list(build_workflows.TEMPLATES)  # described in the order in which they are listed
    assert shipped.BLUEPRINTS == sorted(build_workflows.BLUEPRINTS)
    assert shipped.FIVE_NODES == sorted(shipped.UNFOLDED)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_file_is_what_its_description_gives(object_info, name):
    committed = build_workflows.file_of(name).read_text(encoding="utf-8")
    assert_equal_files(committed, build_workflows.build(name, object_info))


@pytest.mark.parametrize("name", shipped.BLUEPRINTS)
def test_the_blueprint_is_what_its_description_gives(object_info, name):
    committed = (shipped.BLUEPRINT_FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert_equal_files(committed, build_workflows.build_blueprint(name, object_info))


def assert_equal_files(committed: str, built: str) -> None:
    assert without_types_of_comfyui(committed) == without_types_of_comfyui(built), "run dev.workflows.build"
    assert committed == json.dumps(json.loads(committed), indent=1, ensure_ascii=False) + "\n"


def without_types_of_comfyui(text: str) -> dict:
    """Return a workflow without the types of the widgets of ComfyUI's own nodes: Save Video's changed with ComfyUI 0.31."""
    workflow = json.loads(text)
    for entry in shipped.all_nodes(workflow):
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
    ours, the_front_ends = (
        batch_convert.to_api(shipped.read(name), object_info).graph,
        shipped.to_api(shipped.read(name), object_info),
    )
    assert shipped.with_plain_names(ours) == shipped.with_plain_names(the_front_ends)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_workflow_makes_its_video(workflow_server, object_info, name):
    graph = shipped.made_small(shipped.to_api(shipped.read(name), object_info))
    outputs = workflow_server.run(graph)
    assert count_frames(workflow_server.saved_file(outputs[shipped.player(graph)]["images"][0])) == shipped.NUM_FRAMES[name]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_nothing_is_left_to_a_default(object_info, name):
    """Every widget is in the file, seeds stay fixed, no node is muted, and every weight file has its download."""
    workflow = shipped.read(name)
    graph = shipped.to_api(workflow, object_info)
    for key, entry in graph.items():
        definition = object_info[entry["class_type"]]["input"]
        assert set(definition.get("required", {})) <= {given.split(".")[0] for given in entry["inputs"]}, key
    nodes = shipped.all_nodes(workflow)
    assert all(saved["mode"] == 0 for saved in nodes)
    assert all("randomize" not in saved["widgets_values"] for saved in nodes)
    downloads = {model["name"] for saved in nodes for model in saved["properties"].get("models", [])}
    if name != shipped.DEMO:
        values = [value for entry in graph.values() for value in entry["inputs"].values()]
        assert downloads == {value for value in values if str(value).endswith(".safetensors")}


@pytest.mark.parametrize("name", shipped.FIVE_NODES)
def test_a_template_of_five_nodes_is_the_unfolded_one(object_info, name):
    """Both queue the same nodes with the same values, linked in the same way; only the number of clips is linked here."""
    folded, unfolded = (shipped.to_api(shipped.read(one), object_info) for one in (name, shipped.UNFOLDED[name]))
    assert content_of(folded, shipped.player(folded)) == content_of(unfolded, shipped.player(unfolded))


def content_of(graph: dict, key: str) -> tuple:
    """Return a node with all that it depends on, without ids and titles."""
    inputs = {
        name: (content_of(graph, value[0]), value[1]) if isinstance(value, list) else value
        for name, value in graph[key]["inputs"].items()
        if name != "num_clips"
    }
    return graph[key]["class_type"], tuple(sorted(inputs.items()))


@pytest.mark.parametrize("name", shipped.FIVE_NODES)
def test_more_clips_need_no_more_nodes(object_info, name):
    workflow = shipped.read(name)
    kinds = [node["type"] for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    (folded,) = workflow["definitions"]["subgraphs"]
    source = {"SVI Talk (Wan 2.1)": ["LoadAudio"], "SVI Dance (Wan 2.1)": ["LoadVideo"]}.get(folded["name"], [])
    wanted = ["LoadImage", "CLIPLoader", "SVIPromptStream", folded["id"], "SVIShowVideo"]
    assert sorted(kinds) == sorted([*wanted, *source])
    graph = shipped.to_api(workflow, object_info)
    (generate,) = shipped.nodes_of(graph, "SVIGenerate")
    assert isinstance(graph[generate]["inputs"]["num_clips"], list)  # follows the text, the sound or the poses


@pytest.mark.parametrize("name", shipped.NAMES)
def test_app_mode_shows_picture_and_prompts_and_plays_the_video(name):
    workflow = shipped.read(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    form = workflow["extra"]["linearData"]
    shown = [(nodes[key]["type"], widget) for key, widget, *_ in form["inputs"]]
    slots = [next(slot for slot in nodes[key]["inputs"] if slot["name"] == widget) for key, widget, *_ in form["inputs"]]
    assert all("widget" in slot and slot["link"] is None for slot in slots)  # a linked widget cannot be changed there
    assert shown[0] == ("LoadImage", "image")
    assert {("SVIPromptStream", "text"), ("SVIStoryline", "subject"), ("CLIPTextEncode", "text")} & set(shown)
    assert any(widget in ("seed", "noise_seed") for _, widget in shown)
    players = [saved["id"] for saved in workflow["nodes"] if saved["type"] in shipped.PLAYERS]
    assert form["outputs"] == players and len(players) == 1


@pytest.mark.parametrize("name", shipped.FIVE_NODES)
def test_the_notes_tell_what_a_newcomer_must_know(name):
    notes = [node["widgets_values"][0] for node in shipped.read(name)["nodes"] if node["type"] == "MarkdownNote"]
    for told in ("GB in all", "**Memory**", "Live preview method", "https://huggingface.co/", "video.mp4"):
        assert any(told in text for text in notes), told


@pytest.mark.parametrize("name", shipped.BLUEPRINTS)
def test_a_blueprint_makes_a_video_of_a_picture(workflow_server, object_info, name):
    """As when it is dropped into a graph: its picture (and sound or poses) linked, and its video shown."""
    graph = shipped.to_api(shipped.with_ends(shipped.read(name)), object_info)
    outputs = workflow_server.run(shipped.made_small(graph))
    frames = {"SVI Dance (Wan 2.1)": 20, "SVI Film (Wan 2.1)": 4 * 8 + 5, "SVI 2.0 Pro (Wan 2.2)": 3 * 8 + 5}.get(
        name, 3 * 12 + 1
    )
    assert count_frames(workflow_server.saved_file(outputs[shipped.player(graph)]["images"][0])) == frames


@pytest.mark.parametrize("name", shipped.TEMPLATES)
def test_a_thumbnail_stands_beside_each_workflow(name):
    from PIL import Image

    path = shipped.FOLDER / f"{name}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and 400 <= picture.width <= 600
    assert path.stat().st_size < 60_000


def test_the_unrolled_workflow_gives_the_latents_of_the_loop_bit_for_bit(workflow_server, object_info):
    keep = ("BasicScheduler", "SplitSigmas")  # the steps and their split, as shipped
    loop, unrolled = (
        shipped.made_small(shipped.to_api(shipped.read(name), object_info), keep)
        for name in ("Unfolded 2.0 Pro", "Unrolled into stock samplers")
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
