"""The check of a schedule's text while it is typed says what the run's own parser says."""

import asyncio
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer


@pytest.fixture
def module(pack):
    return sys.modules[f"{pack.__name__}.nodes.schedule_lint"]


@pytest.mark.parametrize(
    ("text", "split", "num_clips"),
    [("one\n\n[seed 3, x2]\ntwo", "paragraphs", 3), ("one\ntwo", "lines", 2), ("one|two|three", "bars", 3)],
)
def test_a_good_text_is_counted(module, text, split, num_clips):
    assert module.lint({"text": text, "split": split}) == {"num_clips": num_clips, "error": "", "doubts": []}


def test_a_mistake_is_told_with_line_and_column_once(module):
    told = module.lint({"text": "a boat.\n\n[seede 3, cut]\nthe boat turns.", "split": "paragraphs"})
    assert told["error"].startswith("schedule, line 3, column 2: option 'seede 3' is not known") and told["doubts"] == []


def test_what_may_have_been_meant_otherwise_is_told(module):
    told = module.lint({"text": "a cat | a dog", "split": "paragraphs"})
    assert told["num_clips"] == 1 and told["doubts"][0].startswith("schedule, line 1, column 7: '|' is part of the prompt")


def test_the_route_answers_and_refuses(module):
    async def ask(*bodies):
        app, routes = web.Application(), web.RouteTableDef()
        module.add_lint_route(routes)
        app.add_routes(routes)
        async with TestClient(TestServer(app)) as client:
            answers = [await client.post("/svi/lint", json=body) for body in bodies]
            return [(answer.status, await answer.json()) for answer in answers]

    good, empty, unknown = asyncio.run(
        ask({"text": "a cat", "split": "lines"}, {"text": "# nothing", "split": "lines"}, {"text": "a", "split": "words"})
    )
    assert good == (200, {"num_clips": 1, "error": "", "doubts": []})
    assert empty[0] == 200 and empty[1]["error"].startswith("the prompt stream holds no prompt")
    assert unknown[0] == 400 and "words" in unknown[1]["error"]
