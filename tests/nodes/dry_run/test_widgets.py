"""A widget's name and default stand in its node's schema, and nowhere in the dry run."""

import ast
import asyncio
import inspect
import sys
from pathlib import Path

import pytest

from tests.e2e.graphs import node

ROOM = Path(__file__).resolve().parents[3] / "nodes" / "dry_run"


@pytest.fixture(scope="module")
def schemas(pack) -> dict:
    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node_class: node_class.define_schema() for node_class in asyncio.run(listed())}


@pytest.fixture
def reader(pack):
    module = sys.modules[f"{pack.__name__}.nodes.dry_run.graph_reader"]
    graph = sys.modules[f"{pack.__name__}.nodes.bridge.queued_graph"].QueuedGraph
    return lambda nodes: module.GraphReader(graph(nodes))


def calls(tree: ast.AST, method: str) -> list[ast.Call]:
    """Return the calls of `something.method(...)`."""
    found = (part for part in ast.walk(tree) if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute))
    return [call for call in found if call.func.attr == method]


def strings(tree: ast.AST) -> list[ast.Constant]:
    return [part for part in ast.walk(tree) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_the_dry_run_names_no_widget_of_our_nodes(schemas, path):
    """A name may stand where a wire is followed: link, source, origin, chain."""
    widgets = {
        entry.id
        for node_class, schema in schemas.items()
        for entry in schema.inputs
        if hasattr(entry, "default") and node_class.__name__ != "SVIPlan"
    }
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wires = [part for method in ("link", "source", "origin", "chain") for call in calls(tree, method) for part in call.args]
    may_stand = {id(part) for wire in wires for part in strings(wire)}
    assert [part.value for part in strings(tree) if part.value in widgets and id(part) not in may_stand] == []


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_the_dry_run_gives_no_widget_a_default(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not calls(tree, "value") or path.name == "graph_reader.py", "only the reader takes defaults, from the schema"
    assert not calls(tree, "inputs") or path.name == "read_models.py", "only the model files that stock loaders name"


def test_an_optional_widget_has_one_default(schemas):
    """ComfyUI leaves out an optional input, so that `execute` needs the schema's default in its signature."""
    for node_class, schema in schemas.items():
        signature = inspect.signature(node_class.execute).parameters
        for entry in schema.inputs:
            if hasattr(entry, "default") and entry.optional:
                assert signature[entry.id].default == entry.default, f"{schema.node_id}.{entry.id}"


def test_the_hash_leaves_out_inputs_that_exist(pack, schemas):
    queued_graph = sys.modules[f"{pack.__name__}.nodes.bridge.queued_graph"]
    names = {schema.node_id: {entry.id for entry in schema.inputs} for schema in schemas.values()}
    assert names["SVIGenerate"] >= queued_graph._NOT_IN_HASH
    for (kind, widget), (decider, value) in queued_graph._READ_ONLY_WITH.items():
        assert names[kind] >= {widget, decider}
        options = next(
            entry for schema in schemas.values() if schema.node_id == kind for entry in schema.inputs if entry.id == decider
        )
        assert value in [str(option) for option in options.options]
    assert names["SVIPromptStream"] | names["SVILiveSchedule"] >= queued_graph._SCHEDULE_WIDGETS


@pytest.fixture
def example(pack):
    """A node with a widget that has a default, and one whose first option is it."""
    from comfy_api.latest import io

    class Example(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.Int.Input("count", default=3), io.Combo.Input("kind", options=["first", "second"])]
            return io.Schema(node_id="Example", inputs=inputs)

    return Example


def test_names_and_defaults_are_the_schemas(reader, example):
    asked = reader({"a": node("Example"), "b": node("Example", count=5, kind="second")})
    assert asked.read("a", example, lambda kind, count: (kind, count)) == ("first", 3)
    assert asked.read("b", example, lambda given, count: (given, count), "given") == ("given", 5)
    assert asked.is_a("a", example) and not asked.is_a("gone", example)
    with pytest.raises(KeyError, match="number"):
        asked.read("a", example, lambda number: number)


def test_what_another_node_makes_is_refused_noted_or_its_default(reader, example):
    graph = {"a": node("Example", count=["other", 0]), "other": node("Compute", a=1, b=2)}
    told = "count: comes from Compute (node other)"
    with pytest.raises(ValueError, match="so the clips are not known before it runs"):
        reader(graph).required("a", example, lambda count: count)
    for method, expected in (("known", None), ("or_default", 3)):
        asked = reader(graph)
        assert getattr(asked, method)("a", example, lambda count: count) == expected and asked.not_known == [told]
        assert getattr(asked, method)("a", example, lambda kind: kind) == "first" and asked.not_known == [told]


@pytest.mark.parametrize(
    ("name", "read", "widget", "default", "expected"),
    [
        ("output.SVIOutput", "output.output_settings", "crf", 33, lambda settings: settings.coding.crf),
        ("layouts.SVILayout", "layouts.ask_layout", "num_frames", 41, lambda layout: layout.num_frames),
        ("few_steps.SVIFewStepSigmas", "few_steps.num_few_steps", "steps_low_noise", 7, lambda steps: steps - 2),
        ("talk.SVITalk", "talk.num_silent_passes", "audio_cfg", 1.0, lambda passes: 1.0 - passes),
        ("lora.SVILora", "lora.lora_row", "strength", 0.25, lambda row: row.strength),
        ("storyline.SVIStoryline", "storyline.read_story", "seed", 11, lambda story: story.seed),
    ],
)
def test_another_default_in_a_schema_is_seen_by_the_dry_run(pack, reader, monkeypatch, name, read, widget, default, expected):
    module, _, class_name = name.partition(".")
    node_class = getattr(sys.modules[f"{pack.__name__}.nodes.{module}"], class_name)
    function = getattr(sys.modules[f"{pack.__name__}.nodes.{read.partition('.')[0]}"], read.partition(".")[2])
    schema = node_class.define_schema()
    next(entry for entry in schema.inputs if entry.id == widget).default = default
    monkeypatch.setattr(node_class, "define_schema", classmethod(lambda cls: schema))
    assert expected(reader({"a": node(class_name)}).read("a", node_class, function)) == default
