"""The environment of the demo, for a command without a server; clones of the repository have it, the registry archive not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from comfyui.environment import Environment


class NoEnvironment(RuntimeError):
    """There is no environment, and none can be set up here."""


def demo_environment() -> Environment:
    """Return the environment of the demo, set up if it is missing. Raises NoEnvironment."""
    try:
        from dev.environment import SetupError, ensure_environment
    except ModuleNotFoundError as error:
        raise NoEnvironment(
            "only a clone of the repository starts a ComfyUI; name your running one: --server http://127.0.0.1:8188"
        ) from error
    try:
        return ensure_environment()
    except SetupError as error:
        raise NoEnvironment(str(error)) from error


def go_on_inside(environment: Environment, arguments: Sequence[str]) -> NoReturn:
    """Replace this process with the command in the environment's Python."""
    from dev.environment import execute_inside

    execute_inside(environment, ["-m", "batch.run", *arguments])
