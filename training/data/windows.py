"""Choose the frames of an example: the clip to generate, its anchor, and the motion that leads into it.

2.0 Pro, later clip::

    frame   lead-in    k                  k + 76  k + 81                k + 157
            [ anchor ) [ motion window, 81 frames )
                                          [ clip to generate, 81 frames )

The anchor is one frame before the motion window. Motion is the last slot of the encoded motion window, and the clip to generate
begins one frame before that slot's frames (docs/METHOD.md, 3.3 and 9.9). In a source that is too short for this, the clip
to generate is the end of the source, and the motion window shrinks. In a source of just 81 frames, the motion window is the
clip's own first 5 frames, whose last slot is slot 1 of the clip because the VAE is causal, and the anchor is inside the clip.

Pixel-space layouts: the first n frames of the clip are known. The anchor is any frame outside the clip, or inside it in a short
source. First clips of every layout are conditioned on their own first frame.
"""

from dataclasses import dataclass
from random import Random

from svi_core.files.fingerprint import fingerprint
from svi_core.geometry import num_motion_latents
from svi_core.systems.layouts import Layout, Padding
from training.data.crops import Crop, draw_crop, nearest_size
from training.data.scan import ClipScan
from training.settings.data import DataConfig


@dataclass(frozen=True)
class WindowPlan:
    """The frames of one example, counted in the source clip at the frame rate of the examples.

    Attributes:
        window: number of the window in its clip.
        variant: number of the example in its window.
        later_clip: whether the example is laid out as a later clip, with motion, and not as a first clip.
        target: frames to generate.
        anchor: the reference frame; None in layouts without one (grey padding).
        motion: frames whose encoding gives the motion slots (2.0 Pro), or the known frames (pixel-space layouts).
        crop: the part of the picture, and its size.
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
        """Whether the anchor is outside the clip to generate."""
        return self.anchor is not None and self.anchor not in self.target

    @property
    def frames(self) -> tuple[int, ...]:
        """All frames that are needed, each once, ascending."""
        anchor = () if self.anchor is None else (self.anchor,)
        return tuple(sorted({*self.target, *anchor, *self.motion}))


def plan_windows(scan: ClipScan, content: str, config: DataConfig) -> list[WindowPlan]:
    """Return the plans of a clip's examples, a pure function of the arguments.

    Args:
        scan: the clip's scan.
        content: hash of the clip's bytes, which seeds its draws.

    Raises:
        ValueError: the clip is too short; the message is the reason.
    """
    usable = scan.num_frames - scan.lead_in
    if usable + config.max_held_frames < config.num_frames:
        lead_in = f", after {scan.lead_in} plain or frozen ones at the start" if scan.lead_in else ""
        needed = f"{config.num_frames} are needed ({config.num_frames / config.frame_rate:.2f} s)"
        raise ValueError(f"is too short: it gives {usable} frames at {config.frame_rate} per second{lead_in}; {needed}")
    num_windows = min(config.windows, max(1, usable // config.num_frames))
    return [
        _plan(scan, content, config, window, num_windows, variant)
        for window in range(num_windows)
        for variant in range(config.variants)
    ]


def error_slots(layout: Layout, later_clip: bool) -> range:
    """Return the slots of the conditioning latent that may get image errors.

    Pixel-space layouts: all of them, from slot 0. 2.0 Pro: the motion slots; the anchor stays clean (docs/METHOD.md, 9.9).
    """
    if not layout.in_latent_space:
        return range(layout.num_slots)
    return range(1, 1 + num_motion_latents(layout.num_motion_frames)) if later_clip else range(1, 1)


def num_known_slots(layout: Layout, later_clip: bool) -> int:
    """Return how many slots of the conditioning latent are more than 2.0 Pro's zeros."""
    return 1 + len(error_slots(layout, later_clip)) if layout.in_latent_space else layout.num_slots


def _plan(scan: ClipScan, content: str, config: DataConfig, window: int, num_windows: int, variant: int) -> WindowPlan:
    """Draw one example. The draws have a fixed order, so that a setting affects nothing but its own draw."""
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
    """Return the frames at which a clip may start, without plain ones.

    In 2.0 Pro a later clip's start leaves room for the motion window and an anchor before it, as far as the source allows.
    """
    first, last = scan.lead_in, max(scan.lead_in, scan.num_frames - layout.num_frames)
    if later and layout.in_latent_space:
        first = min(last, first + 1 + layout.num_frames - layout.overlap)
    plain = set(scan.plain)
    return [frame for frame in range(first, last + 1) if frame not in plain] or [last]


def _motion(scan: ClipScan, layout: Layout, later: bool, start: int) -> tuple[int, ...]:
    """Return the motion frames of a clip that starts at frame `start`."""
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
    """Return the candidate anchors of a later clip: frames before the motion window, else outside the clip, else any."""
    plain, inside = set(scan.plain), set(target)
    good = [frame for frame in range(scan.lead_in, scan.num_frames) if frame not in plain]
    outside = [frame for frame in good if frame not in inside]
    before = [frame for frame in outside if frame < motion[0]] if layout.in_latent_space else []
    return before or outside or good


def _pick(choices: list[int], place: float) -> int:
    """Return the choice at `place` in [0, 1)."""
    return choices[min(int(place * len(choices)), len(choices) - 1)]
