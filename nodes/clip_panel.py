"""The server side of the clip panel (web/js/clip_panel.js): an event for each finished clip, and three routes.

    event svi.clip           a clip is finished: {"node", "run", and the fields of a clip below}
    GET  /svi/clips?run=R    {"run", "clips": [{"index", "key", "prompt", "seed", "num_frames", "seconds", "reused", "kept",
                             "file"}]}
    POST /svi/keep           {"run", "key", "keep"} -> {"key", "kept"}
    POST /svi/reroll         {"text", "split", "index"} -> {"text", "seed"}

All answers come from the run's folder, so the panel survives a reload or a restart. A bad request gets status 400, a body over
8 MiB 413, and a disk that fails 500, each with {"error": reason}. Names from the browser reach the disk only through run_folder
and require_clip_key.
"""

import logging
from collections.abc import Callable

from aiohttp import web

from ..svi_core.clips.chain import Clip
from ..svi_core.clips.growing_video import GrowingVideo
from ..svi_core.schedule.reroll import new_seed, with_seed
from ..svi_core.store.finished_clips import FinishedClip, note_finished, read_finished
from ..svi_core.store.keep_marks import is_kept, kept_keys, require_clip_key, set_keep
from .bridge.browsers import running_server, tell_pages
from .bridge.routes import Asked, answered, asked_folder, asked_split, run_name, typed

_log = logging.getLogger(__name__)
EVENT = "svi.clip"


def tell_browsers(video: GrowingVideo, node_id: str) -> Callable[[Clip], None]:
    """Return a thread-safe function that records the clip just added to `video` and notifies every browser."""

    def tell(clip: Clip) -> None:
        finished = _finished(clip, video)
        try:
            note_finished(video.store.folder, finished)
        except OSError as error:  # only the panel reads the list, so the run goes on
            _log.warning("SVI: cannot write the list of finished clips (%s).", error)
        run = run_name(video.store.folder)
        tell_pages(EVENT, {"node": node_id, "run": run, **_described(finished, run, is_kept(video.store.folder, clip.key))})

    return tell


def serve_clips() -> None:
    """Add the panel's routes to ComfyUI's server."""
    if server := running_server():
        add_clip_routes(server.routes)


def add_clip_routes(routes: web.RouteTableDef) -> None:
    """Add the panel's routes to `routes`."""
    routes.get("/svi/clips")(answered(list_clips))
    routes.post("/svi/keep")(answered(keep_clip))
    routes.post("/svi/reroll")(answered(reroll_clip))


def list_clips(asked: Asked) -> dict:
    """Return the finished clips of the last run in the folder `run`, in order; none if the folder does not exist.

    Raises:
        ValueError: `run` is not a folder inside the output folder.
    """
    folder = asked_folder(asked)
    run, kept = run_name(folder), kept_keys(folder)
    return {"run": run, "clips": [_described(clip, run, clip.key in kept) for clip in read_finished(folder)]}


def keep_clip(asked: Asked) -> dict:
    """Set whether the clip `key` of `run` is protected from removal to save space.

    Raises:
        ValueError: a bad name, or no such clip.
    """
    key, keep = require_clip_key(asked.get("key")), typed(asked, "keep", bool)
    set_keep(asked_folder(asked), key, keep)
    return {"key": key, "kept": keep}


def reroll_clip(asked: Asked) -> dict:
    """Return the schedule `text` with a new seed for clip `index` (0-based), and that seed.

    Raises:
        ValueError: a mistake in the text, or a text that cannot hold options.
    """
    seed = new_seed()
    split = asked_split(asked)
    text, index = typed(asked, "text", str), typed(asked, "index", int)
    return {"text": with_seed(text, index, seed, split), "seed": seed}


def _finished(clip: Clip, video: GrowingVideo) -> FinishedClip:
    measures = video.store.record(clip.key).measures
    return FinishedClip(
        index=clip.request.index,
        key=clip.key,
        prompt=clip.request.spec.prompt,
        seed=clip.request.seed,
        num_frames=video.clips[-1].num_frames,
        seconds=float(measures.get("sample_seconds", 0.0) + measures.get("decode_seconds", 0.0)),
        reused=clip.reused,
        segment=video.segments[-1].name,
    )


def _described(clip: FinishedClip, run: str, kept: bool) -> dict:
    """Return a clip as the browser gets it; `file` holds the arguments of ComfyUI's /view route."""
    facts = dict(vars(clip))
    file = {"filename": facts.pop("segment"), "subfolder": f"{run}/clips", "type": "output"}
    return {**facts, "kept": kept, "file": file}
