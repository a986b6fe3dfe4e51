"""Help pages, tooltips and locales say what the nodes are: nothing missing, nothing left over, no made-up error message."""

import ast
import json
import re
import urllib.request
from pathlib import Path

import pytest

from dev.build_locales import NODE_DEFINITIONS, node_definitions

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path for path in sorted((REPOSITORY / "web" / "docs").glob("*.md"))}
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


@pytest.fixture(scope="module")
def definitions(comfy_server) -> dict:
    """What the server says of this pack's nodes."""
    return {node_id: entry for node_id, entry in comfy_server.object_info().items() if node_id.startswith("SVI")}


def inputs_of(definition: dict) -> dict[str, list]:
    return {name: spec for kind in ("required", "optional") for name, spec in definition["input"].get(kind, {}).items()}


def section(page: str, title: str) -> str:
    """Return the text below the heading `title`."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(table: str) -> list[str]:
    """Return the first cell of each row of a Markdown table, without its two head rows."""
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def named(table: str) -> list[str]:
    return [name for cell in first_cells(table) for name in re.findall(r"`(\w+)`", cell)]


def message_texts() -> list[str]:
    """Return every string of the sources, with a null character for each value that is filled in."""
    texts = []
    for path in [*REPOSITORY.glob("nodes/**/*.py"), *REPOSITORY.glob("svi_core/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_every_node_has_a_page_and_every_page_a_node(definitions):
    assert PAGES.keys() == definitions.keys()


def test_pictures_are_there_small_and_used():
    """`tests.browser.take_storyboard` takes them."""
    folder = REPOSITORY / "web" / "docs"
    named = {folder / name for page in PAGES.values() for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())}
    assert named and named == set((folder / "images").iterdir())
    assert not [path.name for path in named if path.stat().st_size >= 60_000]


@pytest.mark.parametrize("node_id", PAGES)
def test_a_page_names_every_input_and_output(definitions, node_id):
    page = PAGES[node_id].read_text(encoding="utf-8")
    definition = definitions[node_id]
    assert page.startswith(f"# {definition['display_name']}\n")
    assert sorted(named(section(page, "Inputs"))) == sorted(inputs_of(definition))
    assert named(section(page, "Outputs")) == definition["output_name"]
    assert section(page, "Wiring") and section(page, "Typical settings") and section(page, "Errors")


@pytest.mark.parametrize("node_id", PAGES)
def test_the_choices_of_a_combo_are_all_explained(definitions, node_id):
    page = PAGES[node_id].read_text(encoding="utf-8")
    for name, spec in inputs_of(definitions[node_id]).items():
        options = spec[1].get("options", []) if len(spec) > 1 else []
        for option in options:
            if not option.endswith(".safetensors"):
                assert f"`{option}`" in page or f"| {option} |" in page, f"{name}: {option}"


@pytest.mark.parametrize("node_id", PAGES)
def test_every_widget_has_a_tooltip(definitions, node_id):
    for name, spec in inputs_of(definitions[node_id]).items():
        if spec[0] in WIDGET_TYPES or isinstance(spec[0], list):
            assert spec[1].get("tooltip"), name


@pytest.mark.parametrize("node_id", PAGES)
def test_the_error_messages_of_a_page_exist(node_id):
    """Of each quoted message, a piece between the values that are filled in stands in the sources."""
    sources = "\0".join(message_texts())
    for cell in first_cells(section(PAGES[node_id].read_text(encoding="utf-8"), "Errors")):
        for message in re.findall(r"`([^`]{16,})`", cell):
            pieces = (message[start : start + 16] for start in range(len(message) - 15))
            assert any(piece in sources for piece in pieces), message


@pytest.mark.parametrize("node_id", PAGES)
def test_the_server_gives_the_front_end_each_page(comfy_server, node_id):
    path = f"/extensions/ComfyUI-StableVideoInfinity/docs/{node_id}.md"
    with urllib.request.urlopen(comfy_server.url + path) as answer:
        assert answer.read() == PAGES[node_id].read_bytes()


def test_the_english_locale_is_what_the_schemas_say(comfy_server):
    committed = json.loads(NODE_DEFINITIONS.read_text(encoding="utf-8"))
    assert committed == node_definitions(comfy_server.object_info()), "run dev.build_locales"


def test_a_text_with_a_character_of_the_message_format_is_refused():
    definition = {"python_module": "custom_nodes.svi", "display_name": "SVI X", "description": "a | b"}
    with pytest.raises(ValueError, match=r"'\|' has a meaning in the front end's message format: say it in words in 'a \| b'"):
        node_definitions({"SVIX": definition | {"input": {}, "output_name": [], "output_tooltips": []}})


def test_the_server_merges_the_locale(comfy_server, definitions):
    served = comfy_server.get_json("/i18n")["en"]
    assert definitions.keys() <= served["nodeDefs"].keys()
    assert served["nodeCategories"]["SVI"]
