"""Saved workflows in API format: what each part of the front end's graph becomes. Shipped ones: e2e/test_workflows.py."""

import pytest

from batch.workflow.convert import read_workflow, to_api

INFO = {
    "Load": {"input": {"required": {"name": [["a", "b"], {}]}}, "display_name": "Load it", "output": ["MODEL"]},
    "Scale": {"input": {"required": {"model": ["MODEL", {}], "factor": ["FLOAT", {"default": 1.0}]}}},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "text": ["STRING", {"dynamicPrompts": True}],
                "seed": ["INT", {"default": 0}],
                "steps": ["INT", {"default": 20, "control_after_generate": False}],
                "format": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "mp4", "inputs": {"required": {"crf": ["INT", {"default": 23}]}}},
                            {"key": "gif", "inputs": {}},
                        ]
                    },
                ],
            },
            "optional": {"extra": ["MODEL", {}], "rate": ["FLOAT,INT", {"widgetType": "FLOAT", "default": 16.0}]},
        }
    },
}


def node(key: int | str, kind: str, inputs: dict | None = None, values: object = (), **others: object) -> dict:
    """A saved node; `inputs`: name -> (type, link), or (type, link, "widget")."""
    slots = [
        {"name": name, "type": slot[0], "link": slot[1], **({"widget": {"name": name}} if slot[2:] else {})}
        for name, slot in (inputs or {}).items()
    ]
    values = values if isinstance(values, dict) else list(values)
    return {
        "id": key,
        "type": kind,
        "mode": 0,
        "inputs": slots,
        "outputs": [{"type": "MODEL"}],
        "widgets_values": values,
        **others,
    }


def saved(nodes: list[dict], links: list, subgraphs: list[dict] = ()) -> dict:
    return {"nodes": nodes, "links": links, "definitions": {"subgraphs": list(subgraphs)}}


SAMPLE_VALUES = ["a cat", 7, "randomize", 30, "mp4", 18, 24.0]


def inputs_of(workflow: dict, key: str = "9") -> dict:
    return to_api(workflow, INFO).graph[key]["inputs"]


def test_widgets_get_their_names_without_what_the_front_end_adds():
    workflow = saved(
        [node(1, "Load", values=["a"]), node(9, "Sample", {"model": ("MODEL", 5)}, SAMPLE_VALUES)], [[5, 1, 0, 9, 0, "MODEL"]]
    )
    graph = to_api(workflow, INFO).graph
    assert graph["1"] == {"class_type": "Load", "inputs": {"name": "a"}, "_meta": {"title": "Load it"}}
    expected = {"model": ["1", 0], "text": "a cat", "seed": 7, "steps": 30, "format": "mp4", "format.crf": 18, "rate": 24.0}
    assert graph["9"]["inputs"] == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["t", 7, 30, "gif", 24.0], {"seed": 7, "steps": 30, "format": "gif", "rate": 24.0}),  # without control values
        (["t", 7, "fixed"], {"seed": 7, "steps": 20, "format": "mp4", "format.crf": 23, "rate": 16.0}),  # of an older node
        ({"seed": 3, "format": "gif", "videopreview": {"x": 1}}, {"seed": 3, "format": "gif"}),  # by name, as VHS saves them
        (["t", 7, "fixed", 1, "gif", 2.0, "image", None], {"seed": 7, "steps": 1, "format": "gif", "rate": 2.0}),  # a button
    ],
)
def test_other_ways_to_save_widgets(values: object, expected: dict):
    found = inputs_of(saved([node(9, "Sample", values=values)], []))
    assert {name: found[name] for name in expected} == expected
    assert "videopreview" not in found


def test_choices_in_braces_are_made_and_always_the_same():
    def text(written: str) -> str:
        return inputs_of(saved([node(9, "Sample", values=[written, *SAMPLE_VALUES[1:]])], []))["text"]

    found = {text(f"{{red|blue {{big|small}}}} car {number} // a comment") for number in range(20)}
    assert {one.rsplit(" ", 2)[0].split(" car")[0] for one in found} <= {"red", "blue big", "blue small"}
    assert text("{a|b} c") == text("{a|b} c") and text(r"\{a\|b\}") == "{a|b}"


@pytest.mark.parametrize("kind", ["Note", "MarkdownNote"])
def test_notes_are_left_out(kind: str):
    assert list(to_api(saved([node(1, kind, values=["text"]), node(2, "Load", values=["b"])], []), INFO).graph) == ["2"]


def through(middle: dict, more: list[dict] = (), links: list = ()) -> dict:
    """Load (1) -> `middle` (2) -> Sample (9)."""
    ends = [node(1, "Load", values=["a"]), node(9, "Sample", {"model": ("MODEL", 6)}, SAMPLE_VALUES)]
    return saved([ends[0], middle, ends[1], *more], [[5, 1, 0, 2, 0, "MODEL"], [6, 2, 0, 9, 0, "MODEL"], *links])


@pytest.mark.parametrize(
    ("middle", "source"),
    [
        (node(2, "Scale", {"model": ("MODEL", 5)}, [2.0]), ["2", 0]),
        (node(2, "Reroute", {"": ("*", 5)}), ["1", 0]),
        (node(2, "Scale", {"model": ("MODEL", 5)}, [2.0], mode=4), ["1", 0]),
        (node(2, "Scale", {"other": ("VAE", None), "model": ("MODEL", 5)}, [2.0], mode=4), ["1", 0]),
        (node(2, "Scale", {"other": ("VAE", 5)}, [2.0], mode=4), None),
        (node(2, "Scale", {"model": ("MODEL", 5)}, [2.0], mode=2), None),
    ],
)
def test_links_lead_through_what_does_not_run(middle: dict, source: list | None):
    found = to_api(through(middle), INFO).graph
    assert found["9"]["inputs"].get("model") == source
    assert ("2" in found) == (source == ["2", 0])


def test_a_link_from_a_muted_node_takes_the_widget_away_and_a_missing_link_does_not():
    sample = node(9, "Sample", {"seed": ("INT", 6, "widget"), "steps": ("INT", 77, "widget")}, SAMPLE_VALUES)
    workflow = saved([node(2, "Load", mode=2), sample], [[6, 2, 0, 9, 0, "INT"]])
    assert "seed" not in inputs_of(workflow) and inputs_of(workflow)["steps"] == 30


def test_a_primitive_sets_the_widgets_that_it_is_linked_to():
    sample = node(9, "Sample", {"seed": ("INT", 6, "widget")}, SAMPLE_VALUES)
    assert inputs_of(saved([node(2, "PrimitiveNode", values=[99, "fixed"]), sample], [[6, 2, 0, 9, 0, "INT"]]))["seed"] == 99


def test_set_and_get_nodes_are_links():
    store = node(2, "SetNode", {"MODEL": ("MODEL", 5)}, ["m"])
    get = node(3, "GetNode", values=["m"])
    workflow = through(store, [get], [[7, 3, 0, 9, 0, "MODEL"]])
    workflow["nodes"][2]["inputs"][0]["link"] = 7
    assert inputs_of(workflow)["model"] == ["1", 0]


def subgraph(key: str, nodes: list[dict], links: list[dict], inputs: list[str], outputs: int = 1) -> dict:
    return {
        "id": key,
        "name": key,
        "nodes": nodes,
        "links": links,
        "inputs": [{"name": name} for name in inputs],
        "outputs": [{}] * outputs,
    }


def link(key: int, origin: int, slot: int, target: int, target_slot: int) -> dict:
    return {"id": key, "origin_id": origin, "origin_slot": slot, "target_id": target, "target_slot": target_slot, "type": "*"}


SCALED = subgraph(
    "scaled",
    [node(1, "Scale", {"model": ("MODEL", 1), "factor": ("FLOAT", 2, "widget")}, [2.0]), node(2, "Reroute", {"": ("*", 3)})],
    [link(1, -10, 0, 1, 0), link(2, -10, 1, 1, 1), link(3, 1, 0, 2, 0), link(4, 2, 0, -20, 0)],
    ["model", "factor"],
)


def scaled(key: int = 2, values: list = (), factor: int | None = None, **others: object) -> dict:
    return node(key, "scaled", {"model": ("MODEL", 5), "factor": ("FLOAT", factor, "widget")}, values, title="Scaler", **others)


def test_a_subgraph_becomes_its_nodes():
    workflow = {**through(scaled()), "definitions": {"subgraphs": [SCALED]}}
    graph = to_api(workflow, INFO).graph
    assert set(graph) == {"1", "2:1", "9"}
    assert graph["2:1"]["inputs"] == {"model": ["1", 0], "factor": 2.0} and graph["9"]["inputs"]["model"] == ["2:1", 0]


@pytest.mark.parametrize(
    ("middle", "factor"),
    [
        (scaled(values=[3.0]), 3.0),
        (scaled(values=[], properties={"proxyWidgets": [["1", "factor"]]}), 2.0),
        (scaled(values=["x", 4.0], properties={"proxyWidgets": [["7", "y"], ["1", "factor"]]}), 4.0),
        (scaled(values=[5.0], properties={"proxyWidgets": [["-1", "factor"]]}), 5.0),
    ],
)
def test_a_widget_on_the_subgraph_node_counts_before_the_one_inside(middle: dict, factor: float):
    workflow = {**through(middle), "definitions": {"subgraphs": [SCALED]}}
    converted = to_api(workflow, INFO)
    assert converted.graph["2:1"]["inputs"]["factor"] == factor
    assert converted.panels["2"][0] == "Scaler" and converted.panels["2"][1]["factor"] == [("2:1", "factor")]


def test_a_renamed_widget_of_a_subgraph_has_both_names():
    renamed = {**SCALED, "inputs": [{"name": "model"}, {"name": "factor", "label": "Strength"}]}
    converted = to_api({**through(scaled(values=[3.0])), "definitions": {"subgraphs": [renamed]}}, INFO)
    assert converted.panels["2"][1] == {"factor": [("2:1", "factor")], "Strength": [("2:1", "factor")]}


def test_a_link_to_the_subgraphs_widget_counts_before_its_value():
    workflow = through(scaled(values=[3.0], factor=8), [node(4, "PrimitiveNode", values=[6.0])], [[8, 4, 0, 2, 1, "FLOAT"]])
    assert inputs_of({**workflow, "definitions": {"subgraphs": [SCALED]}}, "2:1")["factor"] == 6.0


def test_subgraphs_in_subgraphs_have_ids_of_three_parts():
    inner = node(7, "scaled", {"model": ("MODEL", 1), "factor": ("FLOAT", 2, "widget")}, [2.5])
    outer = subgraph(
        "outer", [inner], [link(1, -10, 0, 7, 0), link(2, -10, 1, 7, 1), link(3, 7, 0, -20, 0)], ["model", "amount"]
    )
    middle = node(2, "outer", {"model": ("MODEL", 5), "amount": ("FLOAT", None, "widget")}, [9.0], title="Outer")
    converted = to_api({**through(middle), "definitions": {"subgraphs": [SCALED, outer]}}, INFO)
    assert set(converted.graph) == {"1", "2:7:1", "9"}
    assert converted.graph["2:7:1"]["inputs"] == {"model": ["1", 0], "factor": 9.0}
    assert converted.graph["9"]["inputs"]["model"] == ["2:7:1", 0]
    assert converted.panels["2"][1] == {"amount": [("2:7:1", "factor")]}


@pytest.mark.parametrize(("mode", "source"), [(4, ["1", 0]), (2, None)])
def test_a_bypassed_and_a_muted_subgraph(mode: int, source: list | None):
    converted = to_api({**through(scaled(mode=mode)), "definitions": {"subgraphs": [SCALED]}}, INFO)
    assert set(converted.graph) == {"1", "9"} and converted.graph["9"]["inputs"].get("model") == source


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        (saved([node(3, "Unknown", title="My node")], []), r"node 3 \(My node\) has the type 'Unknown'.* install its pack"),
        (saved([node(3, "workflow>old")], []), "is a group node of an old ComfyUI"),
        (saved([node(3, "Load", values=["a", {"lora": "x"}])], []), r"node 3 \(Load\): its value .*'lora'.* Export \(API\)"),
        (through(node(2, "Reroute", {"": ("*", 6)})), "lead in a circle"),
    ],
)
def test_what_cannot_be_converted_is_named(workflow: dict, message: str):
    with pytest.raises(ValueError, match=message):
        to_api(workflow, INFO)


def test_a_subgraph_that_holds_itself_is_refused():
    loop = subgraph("loop", [node(1, "loop")], [], [])
    with pytest.raises(ValueError, match="holds itself"):
        to_api(saved([node(1, "loop")], [], [loop]), INFO)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"nodes": 3}',
        '{"nodes": [{}], "links": []}',
        '{"1": {"class_type": "A", "inputs": 3}}',
        '{"1": {"inputs": {}}}',
        "{",
        "",
    ],
)
def test_a_file_without_a_workflow_is_refused(tmp_path, text: str):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(ValueError, match=r"w\.json"):
        read_workflow(tmp_path / "w.json")
