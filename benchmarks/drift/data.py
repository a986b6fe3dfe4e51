"""How clips are conditioned in the layouts of the study, and the endless examples that models are trained on.

Shapes: B examples, S = 5 slots, latents and conditioning latents [B, 16, S, 4, 6].
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from svi_core.conditioning.build_y import KnownPart, build_y
from svi_core.geometry import num_pixel_frames
from svi_core.systems.layouts import Padding

from .codec import Codec
from .world import HEIGHT, NUM_SLOTS, WIDTH, World, draw_scenes

P_LATER = 0.9  # that a 2.0 Pro example is laid out as a later clip
ANCHOR_REACH = 8  # frames before a clip that an example's anchor comes from


class Chain(StrEnum):
    """How a clip is conditioned on the one before."""

    FILM = "Film"  # the last frame, and grey: an image-to-video model's own layout; as Tom & Jerry, one frame of motion
    SHOT = "Shot"  # the last frame, padded with the anchor
    PRO = "2.0 Pro"  # the anchor's latent, the last slot of the clip before, zeros

    @property
    def in_latent_space(self) -> bool:
        """Whether clips hand over latents and not pixels."""
        return self is Chain.PRO

    @property
    def overlap(self) -> int:
        """Frames that neighbouring clips share: a 2.0 Pro clip begins one slot before the motion."""
        return 2 if self is Chain.PRO else 1

    def error_slots(self, later: bool) -> range:
        """Return the slots that get image errors: the known frame's, or the motion's."""
        return range(1) if self is not Chain.PRO else range(1, 2) if later else range(0)


@dataclass(frozen=True)
class Batch:
    """B examples.

    Attributes:
        latent: [B, 16, S, h, w], the clips.
        y_latent: [B, 16, S, h, w], from true frames.
        captions: [B].
        later: of each, whether it is laid out as a later clip.
        before: the same of the clips that end where these begin; None if not asked for.
    """

    latent: Tensor
    y_latent: Tensor
    captions: Tensor
    later: tuple[bool, ...]
    before: "Batch | None" = None


def condition(codec: Codec, chain: Chain, first: Tensor, motion: Tensor | None, anchor: Tensor) -> Tensor:
    """Return the conditioning latent [B, 16, S, h, w] of clips.

    Args:
        codec: of the latents.
        chain: the layout.
        first: [B, 16, h, w], latent of the clip's first frame; for FILM and SHOT.
        motion: [B, 16, h, w], last slot of the clip before; None for a first clip; for PRO.
        anchor: [B, 16, h, w], latent of the reference image; for SHOT and PRO.
    """
    if chain is Chain.PRO:
        known = None if motion is None else KnownPart(motion[:, :, None])
        zero = anchor.new_zeros(1, 1, 1, 1, 1)
        reference = KnownPart(anchor[:, :, None])
        return build_y(Padding.ZERO_LATENT, num_pixel_frames(NUM_SLOTS), reference, known, zero, encode=None).latent
    padding = (
        anchor if chain is Chain.SHOT else codec.encode(torch.full((1, 1, 3, HEIGHT, WIDTH), 0.5))[:, :, 0].expand_as(first)
    )
    return torch.cat([first[:, :, None], padding[:, :, None].expand(-1, -1, NUM_SLOTS - 1, -1, -1)], dim=2)


def draw_batch(
    codec: Codec, world: World, chain: Chain, batch_size: int, random: torch.Generator, with_before: bool = False
) -> Batch:
    """Draw fresh examples, which follow from `random`. The anchor is one of the ANCHOR_REACH frames before the clip.

    With `with_before`, they come with the clips before them; a 2.0 Pro clip then begins one slot before the motion's end.
    """
    scenes = draw_scenes(world, batch_size, ANCHOR_REACH + NUM_SLOTS, random)
    latents = codec.encode(scenes.frames)
    rows, reach = torch.arange(batch_size), torch.randint(ANCHOR_REACH, (batch_size,), generator=random)
    later = torch.rand(batch_size, generator=random) < P_LATER if chain is Chain.PRO else torch.ones(batch_size, dtype=bool)

    def clips(start: int, anchor: Tensor) -> tuple[Tensor, Tensor]:
        clip = latents[:, :, start : start + NUM_SLOTS]
        y_latent = condition(codec, chain, clip[:, :, 0], clip[:, :, 1], anchor)
        if chain is Chain.PRO:
            first = condition(codec, chain, clip[:, :, 0], None, clip[:, :, 0])
            y_latent = torch.where(later.view(-1, 1, 1, 1, 1), y_latent, first)
        return clip, y_latent

    anchor = latents[rows, :, reach]
    flags = tuple(later.tolist())
    start = ANCHOR_REACH - NUM_SLOTS + chain.overlap
    before = Batch(*clips(start, latents[:, :, 0]), scenes.captions, flags) if with_before else None
    return Batch(*clips(ANCHOR_REACH, anchor), scenes.captions, flags, before)
