"""What lies in a dataset folder but gives no clips: pictures, linked folders, JSON files that are no tables."""

import os
from collections.abc import Iterator
from pathlib import Path

from training.data.tables import VIDEO_SUFFIXES, Rejected, require_json_table

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def find_ignored(folder: Path, skipped_folder: Path) -> Iterator[Rejected]:
    """Yield each folder of pictures, linked folder and JSON file below `folder` that is not used, and the reason.

    Hidden files and folders are passed over, as those that macOS writes beside each file.

    Args:
        skipped_folder: a folder that is not searched (the cache).
    """
    root, skipped = folder.resolve(), skipped_folder.resolve()
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(place, name) != skipped)
        yield from (link for name in folders if (link := _linked(Path(place, name), root)))
        yield from _unused_files(Path(place), sorted(name for name in names if not name.startswith(".")), root)


def _linked(path: Path, root: Path) -> Rejected | None:
    target = Path(os.path.realpath(path))
    if not path.is_symlink() or target.is_relative_to(root):
        return None  # clips of a folder inside are found where they are
    reason = f"is a link to {target}, which is not followed: set data.folder to that folder, or move it here"
    return Rejected(path.relative_to(root).as_posix(), reason)


def _unused_files(place: Path, names: list[str], root: Path) -> Iterator[Rejected]:
    suffixes = [Path(name).suffix.lower() for name in names]
    pictures = [name for name, suffix in zip(names, suffixes, strict=True) if suffix in _PICTURES]
    if pictures and not VIDEO_SUFFIXES.intersection(suffixes):
        suffix = Path(pictures[0]).suffix
        reason = (
            f"holds pictures ({len(pictures)}) and no video, but examples are videos: make one of its frames first, for "
            f"instance with ffmpeg -framerate 16 -i %04d{suffix} clip.mp4"
        )
        yield Rejected(place.relative_to(root).as_posix(), reason)
    stems = {Path(name).stem for name, suffix in zip(names, suffixes, strict=True) if suffix in VIDEO_SUFFIXES}
    for name in names:
        if name.lower().endswith(".json") and Path(name).stem not in stems:
            try:
                require_json_table(place / name)
            except ValueError as error:
                yield Rejected((place / name).relative_to(root).as_posix(), str(error))
