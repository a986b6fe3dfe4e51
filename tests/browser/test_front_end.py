"""The pack in ComfyUI's own front end: nodes found, workflows opened, help shown, and a video made by pressing Run."""

import json

import pytest

from svi_core.video.frame_times import count_frames
from tests.e2e import shipped

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
CLASSIC_FIRST = pytest.mark.parametrize(
    "renderer", ["classic nodes", pytest.param("Vue nodes", marks=pytest.mark.slow)], indirect=True
)
RUN_MS = 300_000
ONLY_NODE = """type => {
    app.graph.clear();
    app.graph.add(LiteGraph.createNode(type));
}"""
PICTURES_LOADED = """() => [...document.querySelectorAll('.node-help-content img')]
    .every(image => image.complete && image.naturalWidth > 0)"""
WIDER_THAN_HELP = """() => {
    const help = document.querySelector('.node-help-content');
    const isWide = part => part.clientWidth && part.scrollWidth > part.clientWidth + 1 || part.offsetWidth > help.clientWidth;
    const named = part => `${part.tagName} of ${part.scrollWidth} px in ${help.clientWidth}: ${part.textContent.slice(0, 60)}`;
    return [...help.querySelectorAll('table, pre, p, li, img')].filter(isWide).map(named);
}"""


@pytest.fixture(scope="module")
def object_info(comfy_server):
    return comfy_server.object_info()


@ONCE
def test_the_node_search_finds_every_node(front_end, object_info, tmp_path):
    for node_id, entry in object_info.items():
        if node_id.startswith("SVI"):
            front_end.find_node(entry["display_name"], entry["display_name"])
    for words in ("long video", "infinite", "storyboard", "timeline"):
        front_end.find_node(words, "SVI Generate")
    for words in ("storyboard", "timeline", "prompt schedule"):
        front_end.find_node(words, "SVI Prompt Stream")
    front_end.page.screenshot(path=tmp_path / "search.png")


@ONCE
def test_the_template_browser_shows_every_workflow(front_end, renderer):
    """And one of them opens from there in test_first_video.py, as all do."""
    assert sorted(front_end.templates()) == sorted(shipped.TEMPLATES)
    assert front_end.errors == []


@CLASSIC_FIRST
@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_workflow_opens_as_it_was_built(front_end, object_info, renderer, name, tmp_path):
    workflow = shipped.read(name)
    front_end.open_template(name) if name == shipped.DEMO else front_end.load_template(name)
    front_end.screenshot(tmp_path / f"{name}.png")
    assert sorted(front_end.node_types()) == sorted(node["type"] for node in workflow["nodes"])
    assert front_end.missing_node_types() == []
    assert not any(front_end.crowding().values()), front_end.crowding()
    graph = front_end.api_graph()
    assert not [key for node in graph.values() for key in node["inputs"] if key.startswith("UNKNOWN")]
    for node in graph.values():
        node["inputs"].pop("video-preview", None)  # the front end's own widget, which the server ignores
    graph = shipped.with_plain_names(graph)
    assert graph == shipped.with_plain_names(shipped.to_api(workflow, object_info))
    if name == shipped.DEMO:
        assert graph == shipped.with_plain_names(json.loads(shipped.DEMO_API_FILE.read_text(encoding="utf-8")))


@CLASSIC_FIRST
@pytest.mark.parametrize("name", shipped.FIVE_NODES)
def test_a_template_of_five_nodes_is_legible_and_has_a_form(front_end, renderer, name, tmp_path):
    """On a screen of 1440 x 900, as it opens; then in app mode."""
    front_end.page.set_viewport_size({"width": 1440, "height": 900})
    front_end.load_template(name)
    front_end.settle()
    front_end.page.screenshot(path=tmp_path / f"{name}.png")
    kinds = [kind for kind in front_end.node_types() if kind != "MarkdownNote"]
    assert len(kinds) == 5 + ("Talk" in name or "Dance" in name)  # a sound or a pose video is one more
    assert front_end.zoom() >= 0.6
    front_end.set_folded_widget("seed", 7)
    graph = front_end.api_graph()
    assert [graph[key]["inputs"]["seed"] for key in shipped.nodes_of(graph, "SVIGenerate")] == [7]
    front_end.enter_app_mode()
    form = front_end.page.get_by_test_id("linear-widgets")
    front_end.page.screenshot(path=tmp_path / f"{name} app.png")
    for field in ("image", "text", "seed", "width", "height"):
        form.get_by_text(field, exact=True).first.wait_for()
    assert "could not be found" not in form.inner_text()
    front_end.leave_app_mode()


@ONCE
@pytest.mark.parametrize("name", shipped.BLUEPRINTS)
def test_a_blueprint_is_found_and_can_be_added(front_end, object_info, name, tmp_path):
    front_end.find_node(name, name)
    front_end.place_found(name)
    front_end.screenshot(tmp_path / f"{name}.png")
    graph = front_end.api_graph()
    assert not [key for node in graph.values() for key in node["inputs"] if key.startswith("UNKNOWN")]
    expected = shipped.to_api(shipped.read(name), object_info)
    assert sorted(node["class_type"] for node in graph.values()) == sorted(node["class_type"] for node in expected.values())
    (generate,) = shipped.nodes_of(graph, "SVIGenerate")
    (wanted,) = shipped.nodes_of(expected, "SVIGenerate")
    assert graph[generate]["inputs"].keys() == expected[wanted]["inputs"].keys()
    assert graph[generate]["inputs"]["seed"] == 42


@ONCE
def test_the_help_page_of_a_node_is_shown(front_end, tmp_path):
    front_end.open_template(shipped.DEMO)
    front_end.show_help("SVIGenerate")
    front_end.page.get_by_text("Memory use does not grow with the number of clips").wait_for()
    front_end.page.screenshot(path=tmp_path / "help.png")


@ONCE
def test_no_help_page_scrolls_sideways_and_its_pictures_are_shown(front_end, object_info, tmp_path):
    """At the width that the front end gives the help of a node."""
    wide = {}
    for node_id in sorted(node_id for node_id in object_info if node_id.startswith("SVI")):
        front_end.page.evaluate(ONLY_NODE, node_id)
        front_end.show_help(node_id)
        front_end.page.get_by_role("heading", name="Errors", exact=True).wait_for()
        title = front_end.page.locator(".node-help-content h1").first
        title.get_by_text(object_info[node_id]["display_name"]).wait_for()
        front_end.page.wait_for_function(PICTURES_LOADED)
        if found := front_end.page.evaluate(WIDER_THAN_HELP):
            wide[node_id] = found
        if node_id in ("SVIGenerate", "SVIPromptStream", "SVIDriftReport"):
            front_end.page.screenshot(path=tmp_path / f"{node_id}.png")
    assert not wide, "\n".join(f"{node_id}: {line}" for node_id, lines in wide.items() for line in lines)


@ONCE
def test_texts_come_from_the_locale_unharmed(front_end, object_info):
    """One renderer reads them by the front end's message format, the other raw; both show what the schema says."""
    read = """keys => { const { $t, $tm } = document.querySelector('#vue-app').__vue_app__.config.globalProperties;
        return keys.map(key => [$t(key), $tm(key)]) }"""
    texts = {}
    for node_id, entry in object_info.items():
        if node_id.startswith("SVI"):
            texts[f"nodeDefs.{node_id}.description"] = entry["description"]
            texts |= {f"nodeDefs.{node_id}.outputs.{i}.tooltip": one for i, one in enumerate(entry["output_tooltips"]) if one}
            for name, (_, *options) in (entry["input"].get("required", {}) | entry["input"].get("optional", {})).items():
                if tooltip := options and options[0].get("tooltip"):
                    texts[f"nodeDefs.{node_id}.inputs.{name}.tooltip"] = tooltip
    shown = front_end.page.evaluate(read, list(texts))
    assert {key: (text, text) for key, text in texts.items()} == dict(zip(texts, map(tuple, shown), strict=True))


@CLASSIC_FIRST
def test_run_makes_a_video_that_the_page_shows(front_end, comfy_server, renderer, tmp_path):
    front_end.open_template(shipped.DEMO)
    for node_type, values in shipped.small_widgets(front_end.api_graph()).items():
        front_end.set_widgets(node_type, values)
    folder = f"browser/{renderer.split()[0]}"
    front_end.set_widgets("SVIGenerate", {"filename_prefix": folder})
    front_end.run()
    video = front_end.shown_video(RUN_MS)
    front_end.screenshot(tmp_path / "video.png")
    assert (video["width"], video["height"]) == (64, 64)
    (finished,) = (comfy_server.output_directory / folder).glob("video-*.mp4")
    assert count_frames(finished) == shipped.NUM_FRAMES[shipped.DEMO]
    assert finished.name in video["source"] and "type=output" in video["source"]
