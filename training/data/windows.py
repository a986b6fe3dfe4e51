"""Decide which frames of a clip make an example: the clip to generate, its anchor, and the motion that leads into it.

2.0 Pro, later clip::

    frame   lead-in    k                  k + 76  k + 81                k + 157
            [ anchor ) [ motion window, 81 frames )
                                          [ clip to generate, 81 frames )

The anchor is one frame from before the motion window, motion is the last slot of the encoded motion window, and the clip to
generate begins where that slot's frames begin, one frame early (docs/METHOD.md, 3.3 and 9.9). Where a source is too short for
all of it the clip to generate is its end and the motion window shrinks. A source of just 81 frames gives a motion window of
the clip's own first 5 frames, whose last slot is slot 1 of the clip, since the VAE is causal, and an anchor from inside the
clip.

Pixel-space layouts: the first n frames of the clip are known, the anchor is any frame outside the clip, or inside a short one.
First clips of every layout are conditioned on their own first frame.
"""

from dataclasses import dataclass
from random import Random

from svi_core.files.fingerprint import fingerprint
from svi_core.systems.layouts import Layout, Padding

from ..settings.data import DataConfig
from .crops import Crop, draw_crop, nearest_size
from .scan import ClipScan


@dataclass(frozen=True)
class WindowPlan:
    """The frames of one example, counted in the source clip at the frame rate of the examples.

    Attributes:
        window: number of the window within its clip.
        variant: number of the example within its window.
        later_clip: whether the example is laid out as a later clip (with motion), not as the first.
        target: frames to generate.
        anchor: the reference frame; None where the layout has none (padding with grey).
        motion: frames whose encoding gives the motion slots (2.0 Pro), or that are known as they are (pixel-space layouts).
        crop: which part of the picture, at which size.
    """

    window: int
    variant: int
    later_clip: bool
    target: tuple[int, ...]
    anchor: int | None
    motion: tuple[int, ...]
    crop: Crop

    @property
    def anchor_is_outside(self) -> bool:
        """Whether the anchor is a frame that the clip to generate does not hold."""
        return self.anchor is not None and self.anchor not in self.target

    @property
    def frames(self) -> tuple[int, ...]:
        """Every frame that is needed, once, in order."""
        anchor = () if self.anchor is None else (self.anchor,)
        return tuple(sorted({*self.target, *anchor, *self.motion}))


def plan_windows(scan: ClipScan, content: str, config: DataConfig) -> list[WindowPlan]:
    """Return the examples that a clip gives; equal arguments give equal plans.

    Args:
        scan: what is known of the clip.
        content: hash of the clip's bytes, which decides its draws.

    Raises:
        ValueError: the clip is too short; the message is the reason.
    """
    usable = scan.num_frames - scan.lead_in
    if usable + config.max_held_frames < config.num_frames:
        lead_in = f", after a start of {scan.lead_in} plain or frozen ones" if scan.lead_in else ""
        needed = f"{config.num_frames} are needed ({config.num_frames / config.frame_rate:.2f} s)"
        raise ValueError(f"is too short: it gives {usable} frames at {config.frame_rate} per second{lead_in}; {needed}")
    num_windows = min(config.windows, max(1, usable // config.num_frames))
    return [
        _plan(scan, content, config, window, num_windows, variant)
        for window in range(num_windows)
        for variant in range(config.variants)
    ]


def error_slots(layout: Layout, later_clip: bool) -> range:
    """Return the slots of the conditioning latent that image errors may be added to.

    Pixel-space layouts: all of them, from slot 0. 2.0 Pro: the motion slots; the anchor stays clean (docs/METHOD.md, 9.9).
    """
    if not layout.in_latent_space:
        return range(layout.num_slots)
    return range(1, 1 + layout.num_motion_frames // 4) if later_clip else range(1, 1)


def num_known_slots(layout: Layout, later_clip: bool) -> int:
    """Return how many slots of the conditioning latent are more than 2.0 Pro's zeros."""
    return 1 + len(error_slots(layout, later_clip)) if layout.in_latent_space else layout.num_slots


def _plan(scan: ClipScan, content: str, config: DataConfig, window: int, num_windows: int, variant: int) -> WindowPlan:
    """Draw one example. The draws come in a fixed order, so that a setting changes what it is about and nothing else."""
    draw = Random(fingerprint("svi window", config.seed, content, window, variant))
    kind, place, choice = draw.random(), draw.random(), draw.random()
    size = nearest_size(scan.width, scan.height, config.sizes)
    crop = draw_crop((scan.width, scan.height), size, config.min_crop, 0.5 if config.flip else 0.0, draw)
    layout, later = config.svi_layout, kind < config.p_motion
    start = _pick(_starts(scan, layout, later), (window + place) / num_windows)
    target = tuple(min(frame, scan.num_frames - 1) for frame in range(start, start + layout.num_frames))
    motion = _motion(scan, layout, later, start)
    anchor = None
    if layout.padding is not Padding.GREY_FRAMES:
        anchor = _pick(_anchors(scan, layout, target, motion), choice) if later else start
    return WindowPlan(window, variant, later, target, anchor, motion, crop)


def _starts(scan: ClipScan, layout: Layout, later: bool) -> list[int]:
    """Return the frames that a clip may start at, without plain ones.

    With motion from a latent the start leaves room for the whole motion window and an anchor before it, or as much of it
    as there is.
    """
    first, last = scan.lead_in, max(scan.lead_in, scan.num_frames - layout.num_frames)
    if later and layout.in_latent_space:
        first = min(last, first + 1 + layout.num_frames - layout.overlap)
    plain = set(scan.plain)
    return [frame for frame in range(first, last + 1) if frame not in plain] or [last]


def _motion(scan: ClipScan, layout: Layout, later: bool, start: int) -> tuple[int, ...]:
    """Return the motion frames of a clip that starts at `start`."""
    if not layout.in_latent_space:
        return tuple(range(start, start + (layout.num_motion_frames if later else 1)))
    if not later:
        return ()
    end = start + layout.overlap
    room = end - scan.lead_in
    if room > layout.overlap:
        room -= 1  # a frame for the anchor
    length = (min(room, layout.num_frames) - 1) // 4 * 4 + 1
    return tuple(range(end - length, end))


def _anchors(scan: ClipScan, layout: Layout, target: tuple[int, ...], motion: tuple[int, ...]) -> list[int]:
    """Return the frames that may be the anchor of a later clip: the best kind of which there are any."""
    plain, inside = set(scan.plain), set(target)
    good = [frame for frame in range(scan.lead_in, scan.num_frames) if frame not in plain]
    outside = [frame for frame in good if frame not in inside]
    before = [frame for frame in outside if frame < motion[0]] if layout.in_latent_space else []
    return before or outside or good


def _pick(choices: list[int], place: float) -> int:
    """Return the choice at `place` in [0, 1)."""
    return choices[min(int(place * len(choices)), len(choices) - 1)]
