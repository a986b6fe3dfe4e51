"""Prompts that a language model wrote for a table that is not finished: none of them is asked for twice."""

from __future__ import annotations

import json
from pathlib import Path


class KeptPrompts:
    """Prompts by the key of what was asked, a line of JSON for each in a file beside the table."""

    def __init__(self, table: Path) -> None:
        self.path = table.with_name(f"{table.name}.prompts.jsonl")
        self._known: dict[str, tuple[str, ...]] = {}
        if self.path.is_file():
            for line in self.path.read_bytes().split(b"\n"):  # not splitlines(): prompts may hold other line ends
                try:
                    entry = json.loads(line.decode())
                    self._known[entry["key"]] = tuple(entry["prompts"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line that was cut when the command was killed: it is asked again

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the prompts under `key`, None if they were not written yet."""
        return self._known.get(key)

    def keep(self, key: str, prompts: tuple[str, ...]) -> None:
        """Add prompts. Raises OSError."""
        self._known[key] = prompts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._is_cut() + json.dumps({"key": key, "prompts": prompts}, ensure_ascii=False) + "\n")

    def remove(self) -> None:
        """Forget all: the table holds them."""
        self.path.unlink(missing_ok=True)

    def _is_cut(self) -> bool:
        """Whether the last line has no end."""
        return self.path.is_file() and self.path.read_bytes()[-1:] not in (b"", b"\n")
