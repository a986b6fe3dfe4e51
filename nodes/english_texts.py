"""The English texts of the page, for web/js/texts.js where ComfyUI's own route fails, as with one unreadable file of any pack.

GET /svi/texts -> locales/en/main.json
"""

import json
from pathlib import Path

from aiohttp import web

from .bridge.browsers import running_server
from .bridge.routes import Asked, answered

ENGLISH = Path(__file__).resolve().parents[1] / "locales" / "en" / "main.json"


def serve_english_texts() -> None:
    """Add the route to ComfyUI's server."""
    if server := running_server():
        add_texts_route(server.routes)


def add_texts_route(routes: web.RouteTableDef) -> None:
    """Add the route to `routes`."""
    routes.get("/svi/texts")(answered(_english_texts))


def _english_texts(asked: Asked) -> dict:
    return json.loads(ENGLISH.read_text(encoding="utf-8"))
