"""The routes of the storyboard.

    POST /svi/plan      {"prompt", "node"} -> {"node", "nodes", "source", "header", "cards", "warnings", "not_known", "errors"}
    POST /svi/edit      {"text", "split", "actions", "file", "apply", "prompt", "node", "num_clips"}
                        -> {"text", "split", "clip", "range", "cost", "notes", "seed"}
    GET  /svi/takes     ?run=R&index=2 -> {"run", "index", "takes"}
    GET  /svi/picture   ?run=R&file=F&frame=middle -> a JPEG
    GET  /svi/look      ?run=R&file=F&first=F&before=F -> {"badges"}

Nothing is kept in memory but caches: the graph says what is asked for, and the run's folder what is there. Requests are refused
as those of the clip panel.
"""

import asyncio

from aiohttp import web

from ..bridge.browsers import running_server
from ..bridge.routes import answered, described_error
from .edit import edit
from .pictures import GoneError, look, picture
from .plan import list_takes, plan


def serve_storyboard() -> None:
    """Add the storyboard's routes to ComfyUI's server."""
    if server := running_server():
        add_storyboard_routes(server.routes)


def add_storyboard_routes(routes: web.RouteTableDef) -> None:
    """Add the storyboard's routes to `routes`."""
    routes.post("/svi/plan")(answered(plan))
    routes.post("/svi/edit")(answered(edit))
    routes.get("/svi/takes")(answered(list_takes))
    routes.get("/svi/look")(answered(look))
    routes.get("/svi/picture")(_send_picture)


async def _send_picture(request: web.Request) -> web.Response:
    try:
        data = await asyncio.to_thread(picture, dict(request.query))
    except (ValueError, OSError) as error:
        status = 404 if isinstance(error, GoneError) else 400 if isinstance(error, ValueError) else 500
        return web.json_response(described_error(error), status=status)
    lasting = {"Cache-Control": "max-age=31536000, immutable"}  # a clip's file never changes under its name
    return web.Response(body=data, content_type="image/jpeg", headers=lasting)
