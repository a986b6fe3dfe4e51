"""Node definitions from a running ComfyUI: the source of the workflows and of the English locale."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from comfyui.server import ComfyServer
from dev.environment import ensure_environment


def read_object_info(url: str | None = None) -> dict[str, Any]:
    """Return the definitions of all nodes from the ComfyUI at `url`, or from one that is started for it.

    Raises:
        SetupError, ServerError: no ComfyUI could be started.
        OSError: nothing answers at `url`.
    """
    if url is not None:
        with urllib.request.urlopen(f"{url.rstrip('/')}/object_info") as answer:
            definitions: dict[str, Any] = json.load(answer)
        return definitions
    with tempfile.TemporaryDirectory() as folder, ComfyServer(ensure_environment(["test"]), Path(folder)) as server:
        return server.object_info()
