"""Numbers that took long to measure, kept by the bytes that they were measured on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from svi_core.files.atomic_file import write_bytes
from svi_core.files.sealed_json import read_sealed, write_sealed


class KeptNumbers:
    """Rows of numbers by key, in one file; a damaged one is measured again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._known: dict[str, list[float]] = read_sealed(file)
        except (OSError, ValueError):
            self._known = {}

    def get(self, key: str, measure: Callable[[], Sequence[float]]) -> list[float]:
        """Return the numbers under `key`, measured and kept if they are not there. Raises OSError, and as `measure`."""
        if key not in self._known:
            self._known[key] = list(measure())
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(self._file, self._known)
        return self._known[key]


def kept_array(file: Path, measure: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array in `file`, measured and kept if it is not there or damaged. Raises OSError, and as `measure`."""
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        array = measure()
    data = io.BytesIO()
    np.save(data, array)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, data.getvalue())
    return array
