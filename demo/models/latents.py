"""Stories of the tiny world as normalised latents, encoded once, from which the video model learns.

Every story has three clips. A shard holds, for its stories, the latents of all clips, the captions and, in one shard of
six, what the layouts other than SVI 2.0 Pro condition on. "Normalised" is ComfyUI's latent format: about N(0, 1).
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from demo.models.comfy_import import import_comfy
from demo.models.tiny_models import TEXT_ENCODER_FILE, TEXT_TOKENS, VAE_FILE, VAE_WIDTH, build_vae
from demo.models.training_run import RUNS
from demo.world.picture import SCALE, to_pixels
from demo.world.scenes import CLIP_FRAMES, SEGMENT_FRAMES, Story, render_story, sample_story, track_story

CLIPS_PER_STORY = 3
STORIES_PER_SHARD = 25
SHARDS_WITH_OTHER_LAYOUTS = 6
OBJECT_WEIGHT, OBJECT_RADIUS = 6.0, 9.0
FOLDER = RUNS / "latents"
NEGATIVE_PROMPTS = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走",
    "blurry, low quality, worst quality, static, deformed",
)
"""Wan's default negative prompt and an English one: shown in training as texts that say nothing."""


@dataclass(frozen=True)
class StoryLatents:
    """Latents `[clips, 16, 21, h, w]` float16 of one story, its captions, and the other layouts' conditioning or None.

    reference: VAE of [first frame of the clip, the story's first frame x 80], the layout of SVI Shot and 2.0.
    grey: VAE of [first frame of the clip, mid grey x 80], the layout of stock Wan image-to-video.
    focus: `[clips, 21, h, w]`, weight of each place in the loss: larger where the object is.
    """

    clips: Tensor
    captions: tuple[str, ...]
    reference: Tensor | None = None
    grey: Tensor | None = None
    focus: Tensor | None = None


@cache
def frozen_vae() -> nn.Module:
    """Load the shipped VAE into the module that `fast_vae` runs."""
    import comfy.utils

    vae = build_vae(VAE_WIDTH)
    vae.load_state_dict(comfy.utils.load_torch_file(str(VAE_FILE)))
    return vae.float().eval()


@torch.no_grad()
def encode_frames(frames: Tensor) -> Tensor:
    """Encode `[T, 3, H, W]` in [0, 1] to a normalised latent `[16, (T + 3) / 4, h, w]`."""
    import comfy.latent_formats

    from demo.models.fast_vae import encode

    pixels = (frames * 2.0 - 1.0).permute(0, 2, 3, 1)[None].bfloat16()
    latent = encode(frozen_vae(), pixels).float().permute(0, 4, 1, 2, 3)
    return comfy.latent_formats.Wan21().process_in(latent)[0]


def encode_story(story: Story, other_layouts: bool) -> StoryLatents:
    """Encode every clip of a story, each from a cold start as SVI does."""
    frames = render_story(story)
    starts = [SEGMENT_FRAMES * index for index in range(len(story.actions))]
    clips = torch.stack([encode_frames(frames[start : start + CLIP_FRAMES]) for start in starts]).half()
    if not other_layouts:
        return StoryLatents(clips, story.captions)
    padding = frames[:1].expand(CLIP_FRAMES - 1, -1, -1, -1)
    reference = [encode_frames(torch.cat([frames[start : start + 1], padding])) for start in starts]
    grey_padding = torch.full_like(padding, 0.5)
    grey = [encode_frames(torch.cat([frames[start : start + 1], grey_padding])) for start in starts]
    return StoryLatents(clips, story.captions, torch.stack(reference).half(), torch.stack(grey).half())


def write_shard(index: int, comfyui: str | None = None, first_seed: int = 0) -> Path:
    """Encode the stories of one shard, unless it is there already."""
    path = FOLDER / f"shard_{first_seed}_{index:04d}.pt"
    if path.exists():
        return path
    torch.set_num_threads(1)
    import_comfy(comfyui)
    seeds = range(first_seed + STORIES_PER_SHARD * index, first_seed + STORIES_PER_SHARD * (index + 1))
    other_layouts = index % SHARDS_WITH_OTHER_LAYOUTS == 0
    stories = [encode_story(sample_story(seed, CLIPS_PER_STORY), other_layouts) for seed in seeds]
    FOLDER.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    torch.save([vars(story) for story in stories], draft)
    draft.rename(path)
    return path


def read_shards(num_shards: int, first_seed: int = 0, first_shard: int = 0) -> list[StoryLatents]:
    """Read the existing shards."""
    stories = []
    for index in range(first_shard, first_shard + num_shards):
        path = FOLDER / f"shard_{first_seed}_{index:04d}.pt"
        if not path.exists():
            continue
        for place, fields in enumerate(torch.load(path, weights_only=True)):
            seed = first_seed + STORIES_PER_SHARD * index + place
            focus = weigh_object(sample_story(seed, CLIPS_PER_STORY), fields["clips"].shape[-2:])
            stories.append(StoryLatents(**{**fields, "focus": focus}))
    return stories


def weigh_object(story: Story, size: tuple[int, int]) -> Tensor:
    """Return weights `[clips, 21, h, w]`: 1 in the scenery, rising to 1 + OBJECT_WEIGHT at the object's centre."""
    track = track_story(story)
    last_frames = torch.arange(0, CLIP_FRAMES, 4)
    row, column = (torch.arange(length) * 8 + 3.5 for length in size)
    weights = []
    for index in range(len(story.actions)):
        frames = (last_frames + SEGMENT_FRAMES * index - 1).clamp(min=0)
        x, y = to_pixels(*(torch.from_numpy(values)[frames].float()[:, None, None] for values in (track.x, track.y)))
        distance = ((column[None, None, :] - x) ** 2 + (row[None, :, None] - y) ** 2) / SCALE**2
        weights.append(1.0 + OBJECT_WEIGHT * torch.exp(-distance / (2.0 * OBJECT_RADIUS**2)))
    return torch.stack(weights)


def write_shards(num_shards: int, num_workers: int, comfyui: str | None = None) -> None:
    """Encode the training stories on several processes."""
    with ProcessPoolExecutor(num_workers) as pool:
        list(pool.map(partial(write_shard, comfyui=comfyui), range(num_shards)))


class CaptionReader:
    """Encode captions as ComfyUI's stock nodes do, and keep only their real tokens."""

    def __init__(self) -> None:
        import comfy.sd

        from demo import tiny_encoders  # noqa: F401  (lets comfy.sd.load_clip take small encoders)

        self._clip = comfy.sd.load_clip([str(TEXT_ENCODER_FILE)], clip_type=comfy.sd.CLIPType.WAN)
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, caption: str) -> Tensor:
        """Return the caption's tokens `[L, C]`; ComfyUI pads them with zeros to 512."""
        if caption not in self._known:
            tokens = self._clip.tokenize(caption)
            num_tokens = sum(int(token[0]) != 0 for token in tokens["umt5xxl"][0])
            output = self._clip.encode_from_tokens(tokens)
            self._known[caption] = output[0, :num_tokens].float().clone()
        return self._known[caption]


def pad_texts(texts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return text `[B, L, C]` and attention logits `[B, L]` for `fast_trunk.velocity`, one padding token or more each."""
    lengths = [len(text) for text in texts]
    padded = torch.zeros(len(texts), max(lengths) + 1, texts[0].shape[-1])
    logits = torch.full(padded.shape[:2], float("-inf"))
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        padded[row, :length] = text
        logits[row, :length] = 0.0
        logits[row, length] = math.log(TEXT_TOKENS - length)
    return padded, logits
