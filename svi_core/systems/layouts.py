"""How the SVI systems differ, as data: padding, motion frames, and which copy of shared frames is kept.

Source: SVI (arXiv:2510.09212), Sec. 4; docs/METHOD.md, 3 (the table, from the released inference code) and 5.1 (overlap).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from ..geometry import DANCE_FRAME_RATE, FRAME_RATE, TALK_FRAME_RATE, TRAINED_NUM_FRAMES, num_latent_slots, num_motion_latents

MAX_NUM_FRAMES = 1001
MAX_MOTION_FRAMES = 80


class Padding(StrEnum):
    """What fills the unknown part of a clip. The three are not interchangeable."""

    ZERO_LATENT = "zero latent"  # zero in normalised latent space
    GREY_FRAMES = "grey frames"  # mid-grey pixel frames through the VAE
    ANCHOR_FRAMES = "anchor frames"  # the reference image, repeated, through the VAE


class Overlap(StrEnum):
    """Which copy of the frames that two clips share goes into the video."""

    KEEP_PREVIOUS = "keep previous"
    KEEP_NEXT = "keep next"


class Condition(StrEnum):
    """What the clips of a system follow besides text and image."""

    SOUND = "sound"
    POSE = "pose"


@dataclass(frozen=True)
class Layout:
    """How one clip is conditioned and how it joins the one before.

    Attributes:
        name: the SVI system, as in :data:`LAYOUTS`.
        padding: what fills the unknown slots.
        num_motion_frames: pixel frames of the previous clip that carry motion; whole slots of 4 in a latent-space layout.
        overlap_rule: which copy of the shared frames is kept.
        num_frames: pixel frames of a clip, 4n + 1.
        frame_rate: frames per second at which its videos move naturally.
        condition: what its clips need besides text and image.
        cuts_to_8_bits: truncate motion frames to 8 bits before they are encoded again, as in the released code.
    """

    name: str
    padding: Padding
    num_motion_frames: int
    overlap_rule: Overlap
    num_frames: int = TRAINED_NUM_FRAMES
    frame_rate: float = FRAME_RATE
    condition: Condition | None = None
    cuts_to_8_bits: bool = False

    @property
    def in_latent_space(self) -> bool:
        """Whether clips hand over latents (2.0 Pro) rather than decoded frames."""
        return self.padding is Padding.ZERO_LATENT

    @property
    def num_slots(self) -> int:
        """Latent slots of a clip."""
        return num_latent_slots(self.num_frames)

    @property
    def overlap(self) -> int:
        """Pixel frames that two neighbouring clips share.

        A 2.0 Pro clip starts one frame before the motion latent's frames, so n slots overlap by 4n + 1 frames.
        """
        return self.num_motion_frames + 1 if self.in_latent_space else self.num_motion_frames


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("2.0 Pro", Padding.ZERO_LATENT, 4, Overlap.KEEP_PREVIOUS),
        Layout("2.0", Padding.ANCHOR_FRAMES, 1, Overlap.KEEP_PREVIOUS),
        Layout("Shot", Padding.ANCHOR_FRAMES, 1, Overlap.KEEP_NEXT),
        Layout("Film", Padding.GREY_FRAMES, 5, Overlap.KEEP_NEXT),
        Layout("Film-transitions", Padding.GREY_FRAMES, 5, Overlap.KEEP_NEXT),
        Layout("Tom & Jerry", Padding.GREY_FRAMES, 1, Overlap.KEEP_NEXT),
        Layout("2.0 (Wan 2.1)", Padding.ANCHOR_FRAMES, 5, Overlap.KEEP_NEXT),
        Layout("Talk", Padding.ANCHOR_FRAMES, 1, Overlap.KEEP_NEXT, frame_rate=TALK_FRAME_RATE, condition=Condition.SOUND),
        Layout("Dance", Padding.ANCHOR_FRAMES, 1, Overlap.KEEP_NEXT, frame_rate=DANCE_FRAME_RATE, condition=Condition.POSE),
    )
}


def require_whole_motion(num_motion_frames: int) -> None:
    """Raise ValueError unless a pixel-space layout can take so many motion frames: 1, 5, 9, ... for whole slots."""
    if num_motion_frames < 1 or (num_motion_frames - 1) % 4:
        raise ValueError(
            f"num_motion_frames is {num_motion_frames}, but a layout that is padded with frames takes 4n + 1 of them: "
            "1 for Shot, Tom & Jerry and 2.0, 5 for Film and 2.0 on Wan 2.1."
        )


def make_layout(
    name: str, num_frames: int = TRAINED_NUM_FRAMES, num_motion_frames: int = 0, cuts_to_8_bits: bool = False
) -> Layout:
    """Return the layout called `name`, with the given clip and motion lengths in frames (0: as trained).

    Raises:
        ValueError: unknown name, `num_frames` not 4n + 1, a motion tail that the layout cannot take, or 8 bits for latents.
    """
    if name not in LAYOUTS:
        raise ValueError(f"layout is {name!r}: use one of {', '.join(map(repr, LAYOUTS))}.")
    if not (num_frames <= MAX_NUM_FRAMES and 0 <= num_motion_frames <= MAX_MOTION_FRAMES):
        raise ValueError(
            f"num_frames is {num_frames} and num_motion_frames {num_motion_frames}: use at most {MAX_NUM_FRAMES} and "
            f"{MAX_MOTION_FRAMES}; SVI is trained on 81 and 4."
        )
    layout = replace(LAYOUTS[name], num_frames=num_frames, cuts_to_8_bits=cuts_to_8_bits)
    if num_motion_frames:
        layout = replace(layout, num_motion_frames=num_motion_frames)
    if layout.in_latent_space:
        num_motion_latents(layout.num_motion_frames)
        if cuts_to_8_bits:
            raise ValueError(f"cut_to_8_bits is on, but layout {name!r} hands over latents, not frames: turn it off.")
    else:
        require_whole_motion(layout.num_motion_frames)
    if layout.num_slots < 2 or layout.overlap >= layout.num_frames:
        raise ValueError(
            f"num_frames is {num_frames}, but layout {name!r} shares {layout.overlap} frames with the clip before: "
            f"use more than {layout.overlap} frames, 81 as trained."
        )
    return layout
