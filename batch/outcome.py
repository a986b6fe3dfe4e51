"""Try a story once on one server, and say how it ended; nothing is raised, so that it may be told from another machine."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass

from batch.prepare import PreparedStory
from batch.records import DONE, FAILED, STOPPED, OutputFolder, Record
from batch.run_story import Control, Stopped, StoryFailed, run_story
from comfyui.client import NETWORK_ERRORS, ComfyClient, ServerError

LOST, UNFIT = "lost", "unfit"


@dataclass(frozen=True)
class Outcome:
    """How a try ended.

    Attributes:
        status: done; failed, and it would fail again; stopped by the user; lost: the server died or is away; unfit: this
            place cannot make the story, another one may.
        record: of a story that is done.
        reason: why it is not.
    """

    status: str
    record: Record | None = None
    reason: str = ""


def try_story(prepared: PreparedStory, server: ComfyClient, folder: OutputFolder, control: Control) -> Outcome:
    """Make a story, see `run_story`."""
    name = prepared.story.name
    try:
        return Outcome(DONE, run_story(prepared, server, folder, control))
    except StoryFailed as error:
        return Outcome(FAILED, reason=str(error))
    except Stopped:
        return Outcome(STOPPED)
    except (*NETWORK_ERRORS, ServerError) as error:
        _log(folder, name, f"{server.url}: {error}")
        return Outcome(LOST, reason=line_of(error))
    except Exception as error:  # a full disk here, or a mistake of ours: the other stories go on
        _log(folder, name, traceback.format_exc())
        return Outcome(FAILED, reason=described(error))


def _log(folder: OutputFolder, name: str, line: str) -> None:
    """Add a line to a story's log if it can be written: on a full disk, the outcome says enough."""
    with suppress(OSError):
        folder.log(name, line)


def described(error: Exception) -> str:
    """Return the kind and the message of an error that nobody foresaw."""
    return f"{type(error).__name__}: {error}"


def line_of(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return (str(error) or type(error).__name__).splitlines()[0]
