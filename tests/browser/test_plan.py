"""SVI Plan in a real browser: the totals stand on the node, and nothing was made."""

import pytest

from tests.e2e.graphs import loop_graph, node

pytestmark = pytest.mark.browser


def numbered(graph: dict) -> dict:
    """Return `graph` with numbers for ids, as the front end wants them."""
    numbers = {name: str(index) for index, name in enumerate(graph, start=1)}

    def renamed(value):
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: {**entry, "inputs": {key: renamed(value) for key, value in entry["inputs"].items()}}
        for name, entry in graph.items()
    }


def test_totals_and_warnings_stand_on_the_node(front_end, comfy_server, reference_image, renderer, tmp_path):
    folder = f"svi/browser plan {renderer}"
    graph = loop_graph(comfy_server.add_input(reference_image), clips=3, filename_prefix=folder)
    front_end.refresh_choices()
    graph["plan"] = node("SVIPlan", video=["generate", 0], plan_only=True)
    graph["saved"]["inputs"]["video"] = ["plan", 0]
    del graph["latent"]
    front_end.page.evaluate("graph => app.loadApiJson(graph, 'plan')", numbered(graph))
    front_end.run()
    front_end.command("Comfy.Canvas.FitView")
    plan = front_end.page.locator(".svi-text.SVIPlan")
    for words in ("3 clips, 17 frames", "0 of 3 clips reused", "3 warnings"):
        plan.get_by_text(words).wait_for()
    assert plan.evaluate("element => element.offsetHeight") > 150, "legible"
    front_end.screenshot(tmp_path / "plan.png")
    assert not (comfy_server.output_directory / folder).exists()
