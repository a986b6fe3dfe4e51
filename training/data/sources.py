"""Find the clips of a dataset folder and their captions, which are in tables or in text files next to the clips.

Nothing is dropped silently: everything unusable is returned as a :class:`Rejected` with its place and the reason.
Source: docs/METHOD.md, 9.3 (the released data: one folder and one CSV per category) and 12.5 (paths, broken rows).
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from svi_core.files.output_folder import follow_links
from training.data.tables import VIDEO_SUFFIXES, Rejected, Row, caption_beside, read_table, require_json_table


@dataclass(frozen=True)
class ClipSource:
    """A clip and its caption.

    Attributes:
        name: path relative to the dataset folder, with forward slashes; identifies the clip in messages.
        path: the file.
        caption: description of the clip, not empty.
        origin: place of the caption, such as "Cats/Cats.csv line 2".
        pose: the clip's pose video, or None.
    """

    name: str
    path: Path
    caption: str
    origin: str
    pose: Path | None = None

    @property
    def sound(self) -> Path:
        """The file with the clip's sound: the .wav of the same name next to it, or else the clip itself."""
        beside = self.path.with_suffix(".wav")
        return beside if _is_file(beside) else self.path


def find_clips(
    folder: Path, default_caption: str = "", skipped_folder: Path | None = None
) -> tuple[list[ClipSource], list[Rejected]]:
    """Return the clips below `folder`, sorted by name, and everything that was rejected.

    A row of a CSV or JSONL table names its clip relative to the table. A clip that is in no such table takes the text file of
    the same stem, else its row in a TSV or JSON table, else the JSON file of the same stem. The pose video of ``clip.mp4`` is
    ``clip.pose.mp4`` next to it, or the one that its row names. A pose video is no clip itself.

    Args:
        folder: the dataset folder; clips outside it are refused.
        default_caption: caption of clips without one, with ``{category}`` for the name of the clip's folder; empty: clips
            without a caption are rejected.
        skipped_folder: a folder that is not searched (the cache).

    Raises:
        ValueError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise ValueError(f"data.folder is {str(folder)!r}, which is not a folder: give the folder that holds the clips.")
    root = folder.resolve()
    files = sorted(_walk(root, skipped_folder and skipped_folder.resolve()), key=lambda path: _name(path, root))
    listed = _clips_of(root, (path for path in files if path.suffix.lower() in (".csv", ".jsonl")))
    rows, unread = _later_rows(root, files)
    by_rank = sorted(rows, key=lambda row: not row.caption.strip())  # the first row of a clip that has a caption counts
    later = {row.path: row for row in reversed(by_rank)}
    known = [clip for clip in (*listed, *later.values()) if isinstance(clip, ClipSource)]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    named = {clip.pose for clip in known} | {pose.resolve() for pose in map(_pose_beside, videos) if pose}
    named |= {clip.path for clip in listed if isinstance(clip, ClipSource)}
    real = {path: Path(os.path.realpath(path)) for path in videos}  # also where a link leads to itself
    videos = [path for path in videos if real[path] not in named]
    unseen = [later[path] for path in later.keys() - named - {real[path] for path in videos}]
    clips: dict[Path, ClipSource] = {}
    rejected = unread
    for found in (*listed, *unseen, *(_clip_with_text(video, root, later) for video in videos)):
        checked = _usable(found, clips, default_caption)
        if isinstance(checked, Rejected):
            rejected.append(checked)
        else:
            clips[checked.path] = checked
    rejected += _repeated(rows, clips)
    return sorted(clips.values(), key=lambda clip: clip.name), rejected


def _clips_of(root: Path, tables: Iterable[Path]) -> list[ClipSource | Rejected]:
    return [_clip_of_row(row, table.parent, root) for table in tables for row in read_table(table, _name(table, root))]


def _later_rows(root: Path, files: Sequence[Path]) -> tuple[list[ClipSource], list[Rejected]]:
    """Return the rows of TSV and JSON tables, and the unusable ones. Other JSON files are no tables."""
    found = _clips_of(root, (path for path in files if path.suffix.lower() == ".tsv" or _is_json_table(path)))
    rows = [row for row in found if isinstance(row, ClipSource)]
    return rows, [row for row in found if isinstance(row, Rejected)]


def _repeated(rows: Sequence[ClipSource], clips: Mapping[Path, ClipSource]) -> Iterator[Rejected]:
    """Yield those of `rows` that say something else of their clip than another of `rows`, from which its caption is."""
    origins = {row.origin for row in rows}
    for row in rows:
        clip = clips.get(row.path)
        from_another = clip is not None and clip.origin != row.origin and clip.origin in origins
        if from_another and (" ".join(row.caption.split()), row.pose) != (clip.caption, clip.pose):
            yield Rejected(row.origin, f"{row.name} has a caption already, from {clip.origin}")


def _is_json_table(path: Path) -> bool:
    try:
        return path.suffix.lower() == ".json" and require_json_table(path) is None
    except ValueError:
        return False


def _walk(root: Path, skipped: Path | None) -> Iterator[Path]:
    """Yield the files below `root` except hidden ones. Links to folders are not followed, so that the walk always ends."""
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name) != skipped]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _clip_of_row(row: Row | Rejected, folder: Path, root: Path) -> ClipSource | Rejected:
    """Return the clip that a row of a table in `folder` names. Its caption may be empty."""
    if isinstance(row, Rejected):
        return row
    try:
        path = _resolve(row.file, folder, root)
        pose = _resolve(row.pose, folder, root) if row.pose.strip() else _pose_beside(path)
    except ValueError as error:
        return Rejected(row.origin, str(error))
    return ClipSource(_name(path, root), path, row.caption, row.origin, pose)


def _clip_with_text(path: Path, root: Path, later: Mapping[Path, ClipSource]) -> ClipSource | Rejected:
    """Return the clip at `path` with the caption next to it, or else of `later`; the caption is empty if there is none."""
    name, text_file, json_file = _name(path, root), path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        clip = _resolve(path.name, path.parent, root)
        text = caption_beside(text_file) if _is_file(text_file) else ""
        if not text.strip() and clip in later:
            return later[clip]
        if not text.strip() and _is_file(json_file):
            text = caption_beside(json_file)
        return ClipSource(name, clip, text, name, _pose_beside(path))
    except ValueError as error:
        return Rejected(name, str(error))


def _pose_beside(clip: Path) -> Path | None:
    """Return the pose video next to `clip`, or None."""
    pose = clip.with_name(f"{clip.stem}.pose{clip.suffix}")
    return next((path for path in (pose, pose.with_suffix(".mp4")) if _is_file(path)), None)


def _usable(found: ClipSource | Rejected, known: dict[Path, ClipSource], default_caption: str) -> ClipSource | Rejected:
    """Return a clip with its caption in one line, or the default caption. Reject a clip without one, or a second caption."""
    if isinstance(found, Rejected):
        return found
    if found.path in known:
        return Rejected(found.origin, f"{found.name} has a caption already, from {known[found.path].origin}")
    caption = " ".join(found.caption.split()) or default_caption.replace("{category}", found.path.parent.name)
    if not caption:
        fix = f"write {found.path.stem}.txt next to it, a row in a table, or set data.default_caption"
        return Rejected(found.origin, f"{found.path.name} has no caption: {fix}")
    return replace(found, caption=caption)


def _resolve(file: str, folder: Path, root: Path) -> Path:
    """Return the file that `file` names in `folder`, if it is inside `root`.

    Raises:
        ValueError: the name is empty, there is no such file, or it is outside the dataset folder (``..``, another absolute
            path, a link), or a link leads to itself.
    """
    if not file.strip():
        raise ValueError("names no file")
    shown = repr(file) if len(file) <= 300 else f"{file[:150]!r}...{file[-150:]!r}"
    relative = PurePosixPath(file.strip().replace("\\", "/"))  # tables written on Windows
    if "\0" in file or (file[1:2] == ":" and os.name != "nt"):
        raise ValueError(f"{shown} is not a path inside the dataset folder: write it relative to the table")
    for form in (None, "NFC", "NFD"):  # macOS stores accents separately from letters, tables do not
        candidate = folder / (unicodedata.normalize(form, str(relative)) if form else relative)
        resolved = follow_links(candidate, "the clip's file")
        if not resolved.is_relative_to(root):
            raise ValueError(f"{shown} leads out of the dataset folder: copy the clip into it")
        if _is_file(resolved):
            return resolved
    raise ValueError(f"there is no file {shown}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for example a name that is too long
        return False
