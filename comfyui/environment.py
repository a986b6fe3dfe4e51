"""What a ComfyUI process runs with: a Python, a ComfyUI tree, and environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PINNED_COMFYUI = REPOSITORY / ".runtime" / "ComfyUI"  # our own tree, see dev/comfyui_tree.py


@dataclass(frozen=True)
class Environment:
    """A Python with every package, and the ComfyUI tree that it runs."""

    python: Path
    comfyui: Path


def clean_python_variables() -> dict[str, str]:
    """Return the environment variables without those that change where Python imports from."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}


def process_variables(environment: Environment) -> dict[str, str]:
    """Return the environment variables for a process that runs ComfyUI: offline, and no writing into a user's tree."""
    variables = {**clean_python_variables(), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}
    if environment.comfyui != PINNED_COMFYUI:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
    return variables
