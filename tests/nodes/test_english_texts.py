"""The English texts are had without ComfyUI's own route for texts."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

ENGLISH = Path(__file__).resolve().parents[2] / "locales" / "en" / "main.json"


@pytest.fixture
def module(pack):
    return sys.modules[f"{pack.__name__}.nodes.english_texts"]


def test_the_route_answers_with_the_english_texts(module):
    async def ask():
        app, routes = web.Application(), web.RouteTableDef()
        module.add_texts_route(routes)
        app.add_routes(routes)
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/svi/texts")
            return answer.status, await answer.json()

    assert asyncio.run(ask()) == (200, json.loads(ENGLISH.read_text(encoding="utf-8")))
