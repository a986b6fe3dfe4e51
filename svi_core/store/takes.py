"""The takes of a run: every clip that its folder holds, and the one that a schedule pins by the beginning of its key."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..files.safetensors_file import read_header
from .records import ClipRecord, read_record_if_unchanged


@dataclass(frozen=True)
class Take:
    """A stored clip that a schedule pins.

    Attributes:
        key: of the clip.
        num_slots: latent slots.
        height, width: of its latent.
        record: what is known of it; None if its record is gone or damaged.
    """

    key: str
    num_slots: int
    height: int
    width: int
    record: ClipRecord | None

    @property
    def plan_key(self) -> str:
        """The key by which clips that continue from it are planned, see ClipPlan.plan_key."""
        return (self.record.plan_key if self.record else "") or self.key

    @property
    def parent(self) -> str | None:
        """The key of the clip that it was made to continue, "" for none; None if unknown."""
        return self.record.parent if self.record else None


@dataclass(frozen=True)
class PinnedTakes:
    """Finds the takes that a schedule pins in a run's folder.

    Attributes:
        folder: of the run.
        latent_size: (height, width) of the clips' latents; None if unknown.
    """

    folder: Path
    latent_size: tuple[int, int] | None = None

    def __call__(self, digits: str) -> Take:
        """Return the stored clip whose key begins with `digits`.

        Raises:
            ValueError: there is none, there are several, or it has another size than the video.
        """
        keys = [key for key in self._keys() if key.startswith(digits)]
        if not keys:
            raise ValueError(
                f"take {digits[:12]} is not among the stored clips of {self.folder}: it was removed, or belongs to another "
                "run. Remove [take ...], or use another take."
            )
        if len(keys) > 1:
            raise ValueError(f"take {digits} means {len(keys)} stored clips of {self.folder}: write more digits of its key.")
        take = read_take(self.folder, keys[0])
        if self.latent_size not in (None, (take.height, take.width)):
            height, width = self.latent_size
            raise ValueError(
                f"take {digits[:12]} is {take.width * 8} x {take.height * 8} pixels, but the video is {width * 8} x "
                f"{height * 8}: use a take of that size."
            )
        return take

    def _keys(self) -> tuple[str, ...]:
        clips = self.folder / "clips"
        try:
            return stored_keys(clips, clips.stat().st_mtime_ns)
        except OSError:
            return ()


@functools.lru_cache(maxsize=8)  # a schedule may pin many takes
def stored_keys(clips: Path, _changed: int) -> tuple[str, ...]:
    """Return the keys of the latents in the folder `clips`, which last changed at `_changed`."""
    return tuple(path.stem for path in clips.glob("*.safetensors"))


def read_take(run_folder: Path, key: str) -> Take:
    """Return the stored clip `key`.

    Raises:
        ValueError: its file is damaged, or gone.
    """
    path = run_folder / "clips" / f"{key}.safetensors"
    try:
        shape = read_header(path)["latent"]["shape"]
        *_, num_slots, height, width = shape
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"take {key[:12]} cannot be read from {path} ({error}): remove [take ...], or use another take."
        ) from error
    return Take(key, num_slots, height, width, read_record_if_unchanged(path.with_suffix(".json")))


def takes_by_index(records: Iterable[ClipRecord]) -> dict[int, list[ClipRecord]]:
    """Return the stored clips made for each place of the video, in the order they were made."""
    takes: dict[int, list[ClipRecord]] = {}
    for record in sorted(records, key=lambda record: (record.made, record.key)):
        takes.setdefault(record.index, []).append(record)
    return takes
