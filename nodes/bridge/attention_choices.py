"""What was chosen by timing, in a file of ComfyUI's user folder: one choice for each device, set of packages and shape.

So a restart times nothing again, and clips that are made on two days round alike.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...svi_core.files.atomic_file import write_bytes

_log = logging.getLogger(__name__)


def comfyui_file(name: str = "attention.json") -> Path:
    """Return a file for this ComfyUI, in its user folder, which no browser can read."""
    return Path(folder_paths.get_system_user_directory("svi")) / name


class StoredChoices:
    """Names of kernels, or of whatever was timed, by machine and shape; read anew at each look and written at each choice.

    A file that cannot be read or written is named in the log; choices are then made again.
    """

    def __init__(self, path: Callable[[], Path] = comfyui_file):
        self._path = path  # a function, since ComfyUI's options may move its folders after this module is imported

    def get(self, machine: str, shape: str) -> str | None:
        """Return the name that was stored, or None."""
        name = self._read().get(machine, {}).get(shape)
        return name if isinstance(name, str) else None

    def put(self, machine: str, shape: str, name: str) -> None:
        """Store a choice beside those that are there."""
        self._change(lambda content: content.setdefault(machine, {}).update({shape: name}))

    def forget(self, machine: str, shape: str) -> None:
        """Remove a choice, if it is there."""
        if self.get(machine, shape) is not None:
            self._change(lambda content: content.get(machine, {}).pop(shape, None))

    def _change(self, change: Callable[[dict[str, dict[str, str]]], object]) -> None:
        content = self._read()
        change(content)
        path = self._path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, json.dumps(content, indent=1, sort_keys=True).encode())
        except OSError as error:
            _log.warning("SVI: what was chosen could not be stored in %s (%s).", path, error)

    def _read(self) -> dict[str, dict[str, str]]:
        path = self._path()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("SVI: %s cannot be read (%s); what it held is timed again.", path, error)
            return {}
        if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
            _log.warning("SVI: %s does not hold choices by machine and shape; they are timed again.", path)
            return {}
        return content
