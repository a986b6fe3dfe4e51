"""What all routes of the pack share: JSON in, JSON out, read and written off the event loop, and a reason for every refusal."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import folder_paths
from aiohttp import web

from ...svi_core.files.output_folder import run_folder
from ...svi_core.files.strict_json import parse_json
from ...svi_core.schedule.paragraphs import ScheduleError
from ...svi_core.schedule.prompt_lists import PromptSplit
from ...svi_core.schedule.rebuild import PlainTextError

MAX_BODY_BYTES = 8 << 20  # the longest schedule: 10 000 prompts of 800 bytes
Asked = Mapping[str, object]


class _BodyTooLarge(ValueError):
    """A request body over the limit."""


def answered(answer: Callable[[Asked], dict]) -> Callable:
    """Return a request handler that runs `answer` in a thread, since it reads the disk and long texts.

    A ValueError is answered with status 400, or 413 for a body that is too large, an OSError with 500; each with the reason.
    """

    async def handle(request: web.Request) -> web.Response:
        try:
            asked = dict(request.query) if request.method == "GET" else await _body_bytes(request)
            return web.Response(text=await asyncio.to_thread(_answer_text, answer, asked), content_type="application/json")
        except ValueError as error:
            return web.json_response(described_error(error), status=413 if isinstance(error, _BodyTooLarge) else 400)
        except OSError as error:
            return web.json_response(described_error(error), status=500)

    return handle


def _answer_text(answer: Callable[[Asked], dict], asked: Asked | bytes) -> str:
    """Return the answer as JSON; a body is read here too, since 8 MiB of JSON take seconds."""
    if isinstance(asked, bytes):
        asked = _asked_of(asked)
    return json.dumps(answer(asked))


def _asked_of(data: bytes) -> Asked:
    body = parse_json(data, "the request")
    if not isinstance(body, dict):
        raise ValueError(f"the request is a JSON {type(body).__name__}: send an object.")
    return body


async def _body_bytes(request: web.Request) -> bytes:
    """Return the body; its charset does not matter, since JSON is UTF-8."""
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _BodyTooLarge(f"the request is larger than {MAX_BODY_BYTES >> 20} MiB: send a shorter text.")
    except web.RequestPayloadError as error:
        raise ValueError(f"the request cannot be decoded ({error}): send plain JSON.") from error
    return bytes(body)


def typed(asked: Asked, name: str, kind: type):
    """Return `asked[name]`.

    Raises:
        ValueError: it is missing, or not of type `kind`.
    """
    if type(asked.get(name)) is not kind:
        raise ValueError(f"{name} is {str(asked.get(name))[:80]!r}: send a value of type {kind.__name__}.")
    return asked[name]


def asked_folder(asked: Asked) -> Path:
    """Return the run's folder that a request names.

    Raises:
        ValueError: it is not a folder inside the output folder.
    """
    return run_folder(Path(folder_paths.get_output_directory()), typed(asked, "run", str))


def run_name(folder: Path) -> str:
    """Return a run's name: its folder relative to the output folder, with forward slashes."""
    return folder.relative_to(folder_paths.get_output_directory()).as_posix()


def asked_split(asked: Asked) -> PromptSplit:
    """Return what separates the prompts of the text that a request sends.

    Raises:
        ValueError: an unknown way.
    """
    split = typed(asked, "split", str)
    if split not in list(PromptSplit):
        raise ValueError(f"split is {split[:80]!r}: send one of {', '.join(PromptSplit)}.")
    return PromptSplit(split)


def described_error(error: Exception) -> dict[str, object]:
    """Return a mistake with its line and column in a schedule, if it is one, and the action that would mend it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ScheduleError):
        cause = cause.__cause__
    line, column = (cause.line, cause.column) if cause else (None, None)
    fix = {"fix": "as_paragraphs"} if isinstance(error, PlainTextError) else {}
    return {"error": str(error), "line": line, "column": column, **fix}
