"""The check of a schedule's text while it is typed (web/js/schedule_lint.js), by the parser that the run uses.

POST /svi/lint {"text", "split"} -> {"num_clips", "error", "doubts": [text]}
"""

from aiohttp import web

from ..svi_core.schedule.doubts import doubts
from .bridge.browsers import running_server
from .bridge.routes import Asked, answered, asked_split, typed
from .schedule import read_prompts


def serve_lint() -> None:
    """Add the route to ComfyUI's server."""
    if server := running_server():
        add_lint_route(server.routes)


def add_lint_route(routes: web.RouteTableDef) -> None:
    """Add the route to `routes`."""
    routes.post("/svi/lint")(answered(lint))


def lint(asked: Asked) -> dict:
    """Return how many clips the text describes, its first mistake ("" if none), and what may have been meant otherwise.

    Raises:
        ValueError: no text, or an unknown split.
    """
    text, split = typed(asked, "text", str), asked_split(asked)
    try:
        num_clips = len(read_prompts(text, split))
    except ValueError as error:
        return {"num_clips": 0, "error": str(error), "doubts": []}
    return {"num_clips": num_clips, "error": "", "doubts": list(doubts(text, split))}
