"""Where the frames belong that a stage made of a clip: an upscaler, an interpolator, a colour node between clips and video.

A stage returns each frame once, or more frames: `multiple` times as many, or those and the `multiple` - 1 between each two
frames, as RIFE does. It may get some frames of the clip before as context; the frames that it made of those are shown already.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StageFrames:
    """How the frames of a stage become those of a clip.

    Attributes:
        multiple: frames for each frame of the clip.
        num_dropped: the first frames, which belong to the clip before.
        num_repeated: how often the first frame is shown once more, in place of frames between two scenes.
    """

    multiple: int
    num_dropped: int = 0
    num_repeated: int = 0


@dataclass(frozen=True)
class ProcessedPart:
    """The file with the frames that a stage made of one clip.

    Attributes:
        path: the file; its name says what determines the frames.
        num_frames: in the file.
        multiple: frames for each frame of the clip.
        width: in pixels.
        height: in pixels.
        coding: the tag of its coding.
    """

    path: Path
    num_frames: int
    multiple: int
    width: int
    height: int
    coding: str

    def require_joins(self, other: "ProcessedPart") -> None:
        """Refuse a part that cannot follow `other` in one video.

        Raises:
            ValueError: another size or another number of frames for each frame of a clip.
        """
        if (self.width, self.height) != (other.width, other.height):
            raise ValueError(
                f"images has {self.width} x {self.height} pixels, but the clips before have {other.width} x {other.height}: "
                "give every clip the same size."
            )
        if self.multiple != other.multiple:
            raise ValueError(
                f"images has {self.multiple} frames for each frame of the clip, but the clips before have {other.multiple}: "
                "give every clip the same frame rate."
            )


def place_frames(num_made: int, num_new: int, num_context: int, before: int | None, after_cut: bool) -> StageFrames:
    """Return the place of `num_made` frames that a stage made of `num_new` frames of a clip and `num_context` before them.

    All clips but the first then give `multiple` * `num_new` frames, so that every moment stays in its place.

    Args:
        before: the multiple of the clips before; None for the first clip.
        after_cut: the clip begins a scene, so nothing lies between it and the frame before.

    Raises:
        ValueError: the numbers do not fit, or the frames between two clips are missing.
    """
    num_given = num_context + num_new
    found = [(each, True) for each in _whole(num_made, num_given)] + [
        (each, False) for each in _whole(num_made - 1, num_given - 1)
    ]
    if not found:
        context = f" and {num_context} before it" if num_context else ""
        raise ValueError(
            f"images has {num_made} frames, but the clip has {num_new}{context}: pass on every frame, or a whole multiple of "
            "them, as frame interpolation does."
        )
    multiple, has_every = min(found, key=lambda way: (way[0] != before, way[0]))  # few frames may fit in two ways
    if has_every:
        return StageFrames(multiple, multiple * num_context)
    if num_context:
        return StageFrames(multiple, multiple * (num_context - 1) + 1)
    if not (before is None or after_cut):
        raise ValueError(
            f"images has {num_made} frames for the {num_new} of the clip: those between it and the clip before are missing. "
            "Take the frames from SVI Clip Frames, with context_frames 1."
        )
    return StageFrames(multiple, num_repeated=0 if before is None else multiple - 1)


def _whole(number: int, parts: int) -> list[int]:
    """Return `number` / `parts` if that is a whole number above 0."""
    return [number // parts] if number > 0 and parts > 0 and number % parts == 0 else []
