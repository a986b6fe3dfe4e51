"""What disks, cables and editors do to a file."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st


@dataclass(frozen=True)
class Damage:
    """One damage: its kind, where it begins as a share of the file, and how many bytes it takes."""

    kind: str
    place: float
    size: int
    value: int

    def done_to(self, data: bytes) -> bytes:
        """Return `data` damaged."""
        start = int(self.place * len(data))
        if self.kind == "letter":
            return self._with_another_letter(data, start)
        stop = min(len(data), start + self.size)
        middle = {
            "cut": b"",
            "deleted": b"",
            "zeros": bytes(stop - start),
            "noise": bytes((self.value + 37 * k) % 256 for k in range(stop - start)),
            "bit": bytes([data[start] ^ (1 << self.value % 8)]) + data[start + 1 : stop] if start < len(data) else b"",
            "twice": data[start:stop] * 2,
        }[self.kind]
        return data[:start] + middle + (b"" if self.kind == "cut" else data[stop:])

    def _with_another_letter(self, data: bytes, start: int) -> bytes:
        """Return `data` with its first letter or digit from `start` on as another: text that still reads well."""
        found = re.search(rb"[a-z]|[0-9]", data[start:])
        if found is None:
            return data
        place, first, count = start + found.start(), *((ord("0"), 10) if found[0].isdigit() else (ord("a"), 26))
        return data[:place] + bytes([first + (data[place] - first + 1 + self.value % (count - 1)) % count]) + data[place + 1 :]


KINDS = ("letter", "cut", "deleted", "zeros", "noise", "bit", "twice")
DAMAGES = st.builds(Damage, st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(1, 64), st.integers(0, 255))
IN_FOLDERS_OF_OURS = ("gone", "empty", "folder", "loop of links")
REPLACEMENTS = (*IN_FOLDERS_OF_OURS, "pipe")


def replace_file(path: Path, kind: str) -> None:
    """Put something else in the place of the file `path`."""
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop of links":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)


def copy_damaged(kept: Path, folder: Path, name: str, damage: Damage | str) -> None:
    """Make `folder` a copy of `kept` in which the file `name` is damaged, or replaced as :func:`replace_file` says."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    victim = folder / name
    if isinstance(damage, str):
        replace_file(victim, damage)
    else:
        victim.write_bytes(damage.done_to(victim.read_bytes()))
