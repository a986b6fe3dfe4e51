"""Measurements of a benchmark, saved after each one, so that a stopped benchmark resumes."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from svi_core.files.atomic_file import write_bytes


class Results:
    """Measurements by name, in a JSON file for one set of settings and one commit."""

    def __init__(self, path: Path, settings: dict[str, Any], facts: dict[str, str], fresh: bool = False):
        """Open `path`; discard measurements of other settings or of another commit, and with `fresh` all."""
        self.path = path
        self.content: dict[str, Any] = {"settings": settings, "machine": facts, "measured": {}}
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() and not fresh else None
        if known and known["settings"] == settings and known["machine"]["commit"] == facts["commit"]:
            self.content = known

    @property
    def measured(self) -> dict[str, Any]:
        """All measurements so far, by name."""
        return self.content["measured"]

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the measurement called `name`; make it with `measure` if it is missing."""
        if name not in self.measured:
            self.measured[name] = measure()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, json.dumps(self.content, indent=1).encode())
        return self.measured[name]


def command_line(name: str, purpose: str, output: Path) -> argparse.ArgumentParser:
    """Return the parser of ``python -m benchmarks.<name>``, with the arguments that say where and whether to begin anew."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=purpose)
    parser.add_argument("--output", type=Path, default=output, help=f"folder of the results (default: {output})")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    return parser
