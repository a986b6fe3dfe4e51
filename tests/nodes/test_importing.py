"""docs/IMPORTING.md: the nodes, inputs, options and workflows that it names are there, and its counts are right."""

import json
import re
from pathlib import Path

import pytest

from svi_core.schedule.text import parse_schedule

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "IMPORTING.md").read_text(encoding="utf-8")


def test_each_input_that_it_names_is_there():
    locale = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    inputs = {node["display_name"]: node["inputs"] for node in locale.values()}
    named = re.findall(r"`(SVI [\w -]+)\.(\w+)`", TEXT)
    assert len(named) > 30 and [(node, name) for node, name in named if name not in inputs[node]] == []


@pytest.mark.parametrize("options", sorted(set(re.findall(r"`(\[[^`]+\])`", TEXT))))
def test_each_option_is_read_as_one(options):
    first = parse_schedule(f"{options.replace('[seed N]', '[seed 1]')}\na prompt").paragraphs[0]
    assert first.spec.prompt == "a prompt" and first != parse_schedule("a prompt").paragraphs[0]


def test_the_authors_four_clips_are_four():
    story = re.findall(r"```\n(.+?)\n```", TEXT, re.DOTALL)[0]
    schedule = parse_schedule(story)
    assert [(clip.spec.seed, clip.spec.cfg) for clip in schedule.paragraphs] == [(1, 2), (2, 2), (3, 1.5), (4, 1.5)]


def test_the_workflows_that_it_names_have_as_many_nodes_as_it_says():
    rows = re.findall(r"\| `([^`]+)` \| (\d+) \|", TEXT)
    assert len(rows) == 6
    for name, count in rows:
        nodes = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))["nodes"]
        assert int(count) == sum(node["type"] != "MarkdownNote" for node in nodes), name
