"""Every node's schema: prefixed ids, all inputs read, tooltips, and no more widgets than a person can hold."""

import ast
import asyncio
import inspect
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE_IDS = {
    "SVIShowVideo",
    "SVIAnchorEncode",
    "SVIMotionLatent",
    "SVIConditioning",
    "SVILora",
    "SVILoraPreset",
    "SVIFewStepSigmas",
    "SVILoraStack",
    "SVIPromptStream",
    "SVIStoryline",
    "SVILayout",
    "SVIGenerate",
    "SVITalk",
    "SVIPlan",
    "SVINamedAnchor",
    "SVILiveSchedule",
    "SVIOutput",
    "SVIContinueVideo",
    "SVIJoinVideos",
    "SVIBeginVideo",
    "SVINextClip",
    "SVIUnrollClips",
    "SVIClipFrames",
    "SVIWriteFrames",
    "SVIRepeatClips",
    "SVIFinishVideo",
    "SVIFilmstrip",
    "SVIDriftReport",
    "SVIDance",
}


CATEGORIES = {f"SVI/{name}" for name in ("generate", "prompts", "conditioning", "models", "video", "look", "loop")}


@pytest.fixture(scope="module")
def node_classes(pack):
    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(listed())}


@pytest.mark.parametrize("words", ["storyboard", "timeline", "prompt schedule", "infinite", "long video"])
def test_what_people_search_for_is_an_alias(node_classes, words):
    found = {name for name, node in node_classes.items() if words in node.define_schema().search_aliases}
    assert found & {"SVIGenerate", "SVIPromptStream"}


def test_node_ids_are_a_contract(node_classes):
    assert set(node_classes) == NODE_IDS


def test_each_id_is_written_once_and_imported_elsewhere():
    """Two spellings of one id would part as soon as one of them is mistyped: a graph would then be read as without the node."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "nodes").rglob("*.py")]
    constants = (part.value for tree in trees for part in ast.walk(tree) if isinstance(part, ast.Constant))
    counts = Counter(value for value in constants if isinstance(value, str) and value in NODE_IDS)
    assert counts == dict.fromkeys(NODE_IDS, 1)


def read_names(node) -> set[str]:
    """Return the input names that `execute` takes, following **inputs into the clip sampler."""
    names = set(inspect.signature(node.execute).parameters)
    if "inputs" in names:
        from dataclasses import fields

        run = sys.modules[inspect.getmodule(node).__package__ + ".generate"]
        names |= set(inspect.signature(run.prepare_run).parameters) - {"hidden"}
        names = (names - {"inputs"}) | {field.name for field in fields(run.ClipSampler) if field.init}
        names -= {"num_clips"} - set(inspect.signature(node.execute).parameters)
    return names


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_schema_and_execute_agree(node_classes, node_id):
    node = node_classes[node_id]
    schema = node.define_schema()
    assert {entry.id for entry in schema.inputs} == read_names(node)
    assert schema.display_name.startswith("SVI ") and schema.category in CATEGORIES and schema.description
    schema.validate()


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_widget_has_a_tooltip(node_classes, node_id):
    for entry in node_classes[node_id].define_schema().inputs:
        if hasattr(entry, "default"):
            assert entry.tooltip, f"{node_id}.{entry.id}"


def test_seed_stays_fixed_and_exact_in_a_browser(node_classes):
    seed = next(entry for entry in node_classes["SVIGenerate"].define_schema().inputs if entry.id == "seed")
    assert seed.max == 2**53 - 1 and seed.control_after_generate.value == "fixed"
