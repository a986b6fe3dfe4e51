"""Every node's schema: prefixed ids, all inputs read, tooltips, and no more widgets than a person can hold."""

import asyncio
import inspect
import sys

import pytest

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


@pytest.fixture(scope="module")
def node_classes(pack):
    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(listed())}


def test_node_ids_are_a_contract(node_classes):
    assert set(node_classes) == NODE_IDS


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
    assert schema.display_name.startswith("SVI ") and schema.category == "SVI" and schema.description
    schema.validate()


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_widget_has_a_tooltip(node_classes, node_id):
    for entry in node_classes[node_id].define_schema().inputs:
        if hasattr(entry, "default"):
            assert entry.tooltip, f"{node_id}.{entry.id}"


def test_seed_stays_fixed_and_exact_in_a_browser(node_classes):
    seed = next(entry for entry in node_classes["SVIGenerate"].define_schema().inputs if entry.id == "seed")
    assert seed.max == 2**53 - 1 and seed.control_after_generate.value == "fixed"
