"""Training data of bases and LoRAs: latents and captions of many stories, encoded once, and the conditioning of clips.

Shapes: N stories of K clips; latents [16, S, h, w] with S = 6, h = 8, w = 12.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from demo.world.scenes import HELD_OUT_SEED
from svi_core.conditioning.build_y import KnownPart, build_y
from svi_core.geometry import num_pixel_frames
from svi_core.systems.layouts import Layout, Padding, make_layout
from training.data.windows import error_slots

from .codec import LinearCodec, fit_codec, load_codec
from .model import Texts, read_captions
from .real_clips import clip_names, true_window
from .world import HEIGHT, NUM_FRAMES, NUM_SLOTS, WIDTH, TrueClips, draw_story, true_clips

CLIPS_PER_STORY = 4
CODEC_STORIES = 60
VALIDATION_SEED = HELD_OUT_SEED + 500_000  # stories for choosing settings; the study's scenes begin at HELD_OUT_SEED
VALIDATION_STORIES = 16
OBJECT_WEIGHT, OBJECT_REACH = 6.0, 9.0  # of the loss of a base; reach in pixels


class Source(StrEnum):
    """The source of true clips."""

    TINY_WORLD = "tiny world"
    REAL_CLIPS = "real clips"

    def draw(self, seed: int, num_clips: int) -> TrueClips:
        """Return the story of this seed; those from HELD_OUT_SEED are never trained on."""
        return true_clips(draw_story(seed, num_clips)) if self is Source.TINY_WORLD else true_window(seed, num_clips)

    def clip_names(self) -> list[str]:
        """Return the source files of the clips, with their sizes."""
        return [] if self is Source.TINY_WORLD else clip_names()


class Chain(StrEnum):
    """How a clip is conditioned on the one before."""

    ONE_FRAME = "one frame"  # SVI-Shot without its anchor: the last frame, padded with itself, through the codec
    PRO = "2.0 Pro"  # anchor latent, motion latent, zeros

    @property
    def layout(self) -> Layout:
        """The pack's own layout."""
        return make_layout("Shot" if self is Chain.ONE_FRAME else "2.0 Pro", NUM_FRAMES)

    def error_slots(self, later_clip: bool) -> range:
        """Return the slots that get image errors: the known frame's, from which its padding follows, or the motion's."""
        return range(1) if self is Chain.ONE_FRAME else error_slots(self.layout, later_clip)


@dataclass(frozen=True)
class StoryData:
    """Encoded stories.

    Attributes:
        latents: [N, K, 16, S, h, w] fp32.
        texts: of all clips, story by story: N * K entries.
        focus: [N, K, S, h, w], weight of each place while a base is trained: larger where the object is or was.
    """

    latents: Tensor
    texts: Texts
    focus: Tensor

    def text_of(self, stories: Tensor, clips: Tensor) -> Texts:
        """Return the captions of `stories` [B] and their `clips` [B]."""
        return self.texts[stories * self.latents.shape[1] + clips]


def prepare(folder: Path, source: Source, num_stories: int) -> tuple[LinearCodec, StoryData, StoryData]:
    """Return codec, training and validation stories, made once and cached in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    codec_path = folder / "codec.safetensors"
    if not codec_path.exists():
        frames = torch.cat([source.draw(seed, CLIPS_PER_STORY).frames for seed in range(CODEC_STORIES)])
        fit_codec(frames).save(codec_path)
    codec = load_codec(codec_path)
    training = _stories(folder / f"stories_{num_stories}.safetensors", codec, source, range(num_stories))
    seeds = range(VALIDATION_SEED, VALIDATION_SEED + VALIDATION_STORIES)
    return codec, training, _stories(folder / "validation.safetensors", codec, source, seeds)


def condition(
    codec: LinearCodec, chain: Chain, first_slot: Tensor, motion_slot: Tensor | None, anchor: Tensor, num_slots: int = NUM_SLOTS
) -> Tensor:
    """Return the conditioning latent [B, 16, S, h, w] of a clip.

    Args:
        codec: of the latents.
        chain: the layout.
        first_slot: [B, 16, h, w], latent of the clip's first frame; for ONE_FRAME.
        motion_slot: [B, 16, h, w], last slot of the clip before; None for the first clip; for PRO.
        anchor: [B, 16, h, w], latent of the video's first frame; for PRO.
        num_slots: S.
    """
    if chain is Chain.ONE_FRAME:
        return codec.at_rest(first_slot, num_slots)
    motion = None if motion_slot is None else KnownPart(motion_slot.unsqueeze(2))
    zero = anchor.new_zeros(1, anchor.shape[1], 1, 1, 1)
    known = KnownPart(anchor.unsqueeze(2))
    return build_y(Padding.ZERO_LATENT, num_pixel_frames(num_slots), known, motion, zero, encode=None).latent


def true_condition(codec: LinearCodec, data: StoryData, chain: Chain, story: int, clip: int, with_motion: bool) -> Tensor:
    """Return the conditioning latent [16, S, h, w] of a clip of `data`, from true frames.

    Without motion (2.0 Pro) the clip is laid out as a first one: its own first frame is the anchor.
    """
    latents = data.latents[story]
    anchor = latents[0 if with_motion else clip, :, 0]
    motion = latents[clip - 1, :, -1][None] if with_motion and clip else None
    return condition(codec, chain, latents[clip, :, 0][None], motion, anchor[None])[0]


def _stories(path: Path, codec: LinearCodec, source: Source, seeds: range) -> StoryData:
    if not path.exists():
        latents, captions, focus = [], [], []
        for seed in seeds:
            clips = source.draw(seed, CLIPS_PER_STORY)
            latents.append(codec.encode(clips.frames))
            captions += clips.captions[: len(clips.frames)]
            focus.append(_focus(clips))
        texts = read_captions(captions)
        tensors = {"latents": torch.stack(latents), "tokens": texts.tokens, "logits": texts.logits}
        tensors["focus"] = torch.stack(focus)
        safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    stored = safetensors.torch.load_file(path)
    texts = Texts(stored["tokens"], stored["logits"])
    return StoryData(stored["latents"], texts, stored["focus"])


def _focus(clips: TrueClips) -> Tensor:
    """Return weights [K, S, h, w]: 1 in the scenery, up to 1 + OBJECT_WEIGHT where the object is, or was in the first frame."""
    if clips.x is None:
        return torch.ones(len(clips.frames), NUM_SLOTS, HEIGHT // 8, WIDTH // 8)
    rows, columns = (torch.arange(length).float() * 8 + 3.5 for length in (HEIGHT // 8, WIDTH // 8))
    nearest = []
    for slot in range(NUM_SLOTS):
        frames = [0] if slot == 0 else [0, *range(4 * slot - 3, 4 * slot + 1)]
        x, y = (torch.from_numpy(values[:, frames]).float()[..., None, None] for values in (clips.x, clips.y))
        nearest.append(((columns[None, :] - x) ** 2 + (rows[:, None] - y) ** 2).amin(dim=1))
    return 1 + OBJECT_WEIGHT * torch.exp(-torch.stack(nearest, dim=1) / (2 * OBJECT_REACH**2))
