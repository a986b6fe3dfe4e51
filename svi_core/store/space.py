"""Keep the stored clips of a run within a disk budget: remove those unused for longest, never one in use or marked "keep"."""

import logging
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .keep_marks import is_kept, removal_lock
from .records import read_last_video, read_manifest

_log = logging.getLogger(__name__)
_KEY_DIGITS = 64


@contextmanager
def within_budget(
    run_folder: Path, budget_bytes: int, in_use: Callable[[], set[str]], segments: Sequence[Path]
) -> Generator[None]:
    """Make a video of the clips `in_use`, see :func:`prune`, shown by `segments`, which grow in the block; prune at its end.

    If the block is interrupted, the clips of the previous video stay too: they may be clips of this one, not reached yet.
    """
    before = _shown_before(run_folder)
    try:
        yield
    except BaseException:
        prune(run_folder, budget_bytes, before | in_use())
        raise
    prune(run_folder, budget_bytes, in_use(), set(segments))


def prune(run_folder: Path, budget_bytes: int, in_use: set[str], shown: set[Path] | None = None) -> list[str]:
    """Remove the clips unused for longest until the clips fit `budget_bytes` (0: no limit); return their keys.

    Clips `in_use` and clips marked "keep" always stay. Call it only while holding the folder's lock.

    Args:
        in_use: keys of clips, or beginnings of keys, as a schedule pins takes.
        shown: the segments that show the clips in use. Their other segments, of another coding or seam, are removed first:
            they can be made again from the latents. None: all stay.
    """
    if budget_bytes == 0:
        return []
    groups = _files_by_key(run_folder)
    pinned = tuple(key for key in in_use if len(key) < _KEY_DIGITS)
    in_use = {key for key in groups if key in in_use or key.startswith(pinned)}
    by_age = sorted(groups, key=lambda key: max(path.stat().st_mtime for path in groups[key]))
    parts = [(key, _segments_besides(groups[key], shown)) for key in by_age if key in in_use and shown is not None]
    takes = [(key, groups[key]) for key in by_age if key not in in_use]
    total, removed = sum(map(_size_of, groups.values())), list[str]()
    for key, paths in parts + takes:
        if total <= budget_bytes:
            break
        size = _size_of(paths)
        if paths and _remove(run_folder, key, paths):
            total -= size
            removed += [key] if key not in in_use else []
    return removed


def _shown_before(run_folder: Path) -> set[str]:
    """Return the keys of the clips in the run's last video; of all stored clips if these are not known."""
    try:
        video = read_last_video(run_folder)
        clips = read_manifest(video) if video else None
    except ValueError:
        clips = None
    return set(_files_by_key(run_folder)) if clips is None else {clip.key for clip in clips}


def _remove(run_folder: Path, key: str, paths: Sequence[Path]) -> bool:
    """Remove the files of clip `key` unless it is marked "keep"; return whether they were removed."""
    with removal_lock(run_folder):
        if is_kept(run_folder, key):
            return False
        for path in sorted(paths, key=lambda path: path.suffix == ".safetensors"):  # the latent last
            try:
                path.unlink()
            except OSError as error:  # open in a player on Windows, say
                _log.warning("SVI run store: %s could not be removed (%s); it stays for now.", path, error)
                return False
    return True


def _files_by_key(run_folder: Path) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in (run_folder / "clips").iterdir():
        if match := re.match(r"[0-9a-f]{64}(?=[-.])", path.name):  # other files are not ours to count or remove
            groups.setdefault(match.group(), []).append(path)
    return groups


def _segments_besides(paths: Sequence[Path], shown: set[Path]) -> list[Path]:
    return [path for path in paths if path.suffix == ".mp4" and path not in shown]


def _size_of(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
