"""What the trainer learns from: the settings of the data and one example of it.

``python -m training.cache`` turns clips into examples once; the trainer then reads them by number, in an order that is a
function of (seed, step) and nothing else.
Source: SVI_SPEC A0 (mask), A1 and A3 (layouts), B1 and B7 (training data), B9 (what the released loader gets wrong).
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from svi_core.conditioning.build_y import known_mask
from svi_core.files.fingerprint import fingerprint
from svi_core.geometry import FRAME_RATE, TALK_FRAME_RATE, TRAINED_NUM_FRAMES, require_frame_size
from svi_core.systems.layouts import Condition, Layout, make_layout

from ..settings.checks import require
from .index import IndexedExample, read_index
from .order import ExampleOrder
from .poses import unpacked_poses
from .store import TEXTS, WINDOWS, CacheFolder

STORAGE_DTYPES = ("float32", "bfloat16")
_NOT_IN_THE_CACHE = ("folder", "cache", "exclude", "held_out", "strict")  # settings that change no cached value


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips are and how examples are made of them.

    Attributes:
        folder: folder of the clips: ``clip.mp4`` beside ``clip.txt``, CSV or JSONL tables, sub-folders as categories.
            Layout Dance needs a pose video of each clip: ``clip.pose.mp4`` beside it, or what a Pose column names. Layout Talk
            needs clips with sound, their own or that of ``clip.wav`` beside them.
        cache: folder of the encoded examples; empty: ``svi_cache`` inside `folder`.
        default_caption: caption of clips that have none, ``{category}`` is the clip's folder; empty: such clips are skipped.
        layout: the SVI system that is trained, a name of svi_core.systems.layouts: "2.0 Pro", "2.0", "Shot", "Film" ...
        num_frames: pixel frames of an example, 4n + 1; SVI is trained on 81.
        num_motion_frames: frames that carry motion; 0: the layout's own number (2.0 Pro 4, 2.0 and Shot 1, Film 5).
        p_motion: share of examples laid out as a later clip, with motion of a clip before; the others are first clips.
        frame_rate: frames per second that clips are resampled to, by time.
        width: width of the examples in pixels, a multiple of 16.
        height: height of the examples in pixels, a multiple of 16.
        more_sizes: further sizes such as "480x832"; each clip goes to the size that is nearest to its own shape.
        windows: windows that one clip gives at most, their starts spread over the clip, so that neighbours may overlap; a
            shorter clip gives fewer.
        variants: examples made of each window, which differ in start, anchor, kind (first or later clip) and crop. They are
            drawn once, when the cache is made, not at every visit as in the released trainer: more variants come nearer to it.
        min_crop: a crop keeps this share of the limiting side or more, drawn uniformly; 1 always crops as little as possible.
        flip: mirror half of the examples; off, since it swaps left and right in captions and writing.
        max_held_frames: how often the last frame may be repeated where a clip is a little too short.
        held_out: clips kept for validation: below 1 a share of all clips (one clip at least), from 1 on their number.
        exclude: clips or single examples that are not used, by the names that messages give them: "a/clip.mp4", or
            "a/clip.mp4 window 0 variant 1". Unlike other settings it may change when a run goes on.
        seed: seed of all draws above; another seed gives other windows, anchors and crops.
        storage: dtype of the cached latents and texts, "float32" or "bfloat16" (half the disk).
        vae_tile: side in pixels of the spatial tiles that the VAE encodes one by one; 0: the whole picture at once.
        strict: stop at the first clip or row that cannot be used, rather than to skip it and report it.
    """

    folder: str = ""
    cache: str = ""
    default_caption: str = ""
    layout: str = "2.0 Pro"
    num_frames: int = TRAINED_NUM_FRAMES
    num_motion_frames: int = 0
    p_motion: float = 0.95
    frame_rate: int = FRAME_RATE
    width: int = 832
    height: int = 480
    more_sizes: tuple[str, ...] = ()
    windows: int = 1
    variants: int = 1
    min_crop: float = 13 / 14
    flip: bool = False
    max_held_frames: int = 4
    held_out: float = 0.05
    exclude: tuple[str, ...] = ()
    seed: int = 0
    storage: str = "float32"
    vae_tile: int = 0
    strict: bool = False

    def __post_init__(self):
        make_layout(self.layout, self.num_frames, self.num_motion_frames)
        for size in self.sizes:
            require_frame_size(*size, name="data")
        require(0.0 <= self.p_motion <= 1.0, "data.p_motion", self.p_motion, "a probability from 0 to 1")
        require(0.5 <= self.min_crop <= 1.0, "data.min_crop", self.min_crop, "a share from 0.5 to 1")
        require(1 <= self.frame_rate <= 120, "data.frame_rate", self.frame_rate, "1 to 120 frames per second, 16 for Wan 14B")
        require(1 <= self.windows <= 10_000, "data.windows", self.windows, "1 or more")
        require(1 <= self.variants <= 10_000, "data.variants", self.variants, "1 or more")
        require(0 <= self.max_held_frames < self.num_frames, "data.max_held_frames", self.max_held_frames, "0 or a few frames")
        known = 0 <= self.held_out < 1 or self.held_out == round(self.held_out) >= 1
        require(known, "data.held_out", self.held_out, "a share below 1 or a whole number of clips")
        require(self.storage in STORAGE_DTYPES, "data.storage", self.storage, " or ".join(STORAGE_DTYPES))
        tile_fits = self.vae_tile == 0 or (self.vae_tile >= 32 and self.vae_tile % 16 == 0)
        require(tile_fits, "data.vae_tile", self.vae_tile, "0 or a multiple of 16 pixels, 256 for instance")
        heard = self.svi_layout.condition is Condition.SOUND
        in_time = not heard or self.frame_rate == TALK_FRAME_RATE
        require(in_time, "data.frame_rate", self.frame_rate, f"{TALK_FRAME_RATE} with sound, whose features come at that rate")
        swaps = self.flip and self.svi_layout.condition is Condition.POSE
        require(not swaps, "data.flip", self.flip, "false with poses, whose colours tell left from right")

    @property
    def svi_layout(self) -> Layout:
        """The layout with this configuration's clip and motion lengths."""
        return make_layout(self.layout, self.num_frames, self.num_motion_frames)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All (width, height) in pixels, the largest area first."""
        sizes = {(self.width, self.height), *(_parse_size(text) for text in self.more_sizes)}
        return tuple(sorted(sizes, key=lambda size: (-size[0] * size[1], size)))

    @property
    def cache_folder(self) -> Path:
        """The folder of the encoded examples."""
        return Path(self.cache) if self.cache else Path(self.folder) / "svi_cache"

    def cached_settings(self) -> dict[str, object]:
        """Return the settings that the cached examples depend on, as plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_IN_THE_CACHE}
        layout = self.svi_layout
        return {**values, "num_motion_frames": layout.num_motion_frames, "more_sizes": list(self.more_sizes)}


@dataclass(frozen=True)
class TrainingExample:
    """One clip with what it is conditioned on. F latent slots of h x w, see svi_core.geometry.

    Attributes:
        name: the clip's file with window and variant, for messages.
        latent: [16, F, h, w] fp32, normalised: the clip to generate.
        y_latent: [16, F, h, w] fp32, normalised: the conditioning latent of its layout.
        mask: [1, F, h, w] fp32, 1 = known; slot 0 only.
        error_slots: slots of `y_latent` that image errors may be added to: all in a pixel-space layout (the injection takes
            the first few), the motion slots in 2.0 Pro, whose anchor stays clean; empty for a first clip of 2.0 Pro.
        text: [L, D] fp32, the text embedding, padded with zeros as ComfyUI pads it.
        clip_vision: [257, 1280] fp32, penultimate CLIP vision tokens of the first known frame; None without CLIP vision.
        extras: what else the clip follows: "pose" [T, H, W, 3] uint8, a pose for each frame of `latent`;
            "sound" [T + 4, layers, channels] fp32, features of the speech, two frames more on either side.
        caption: the text that `text` embeds.
    """

    name: str
    latent: Tensor
    y_latent: Tensor
    mask: Tensor
    error_slots: range
    text: Tensor
    clip_vision: Tensor | None
    extras: Mapping[str, Tensor]
    caption: str = ""


class CachedDataset:
    """The examples that `python -m training.cache` made with a configuration.

    Attributes:
        config: the configuration.
        models: hash of each model file that the examples were encoded with: "vae", "text_encoder", "clip_vision".
        content_hash: tells whether a run goes on with the same data: latents, captions as their text encoder embeds
            them, and which clips are held out; of the excluded ones too, since a run may go on without them.
        sizes: (width, height) of the buckets, the largest first.
    """

    def __init__(self, folder: Path, config: DataConfig, slots_per_step: int = 1):
        """Read the index of the cache `folder`; tensors are read when they are asked for.

        Args:
            folder: the cache folder, usually `config.cache_folder`.
            config: the configuration that the cache was made with.
            slots_per_step: examples of one optimizer step over all processes: processes x batch x accumulation.

        Raises:
            ValueError: the folder holds no cache of `config` (the message says what differs), or too few clips.
        """
        self.config = config
        self._cache = CacheFolder(Path(folder))
        index = read_index(self._cache, config.cached_settings())
        self.models = index.models
        held_out = held_out_clips({example.clip for example in index.examples}, config.held_out)
        self.content_hash = fingerprint(
            [[item.key, item.text_key, list(item.error_slots), item.clip in held_out] for item in index.examples]
        )
        used = _without(index.examples, config.exclude)
        self._held_out = [example for example in used if example.clip in held_out]
        learned = [example for example in used if example.clip not in held_out]
        if not learned:
            raise ValueError(f"data.exclude leaves nothing to learn from: {', '.join(config.exclude)}.")
        self.sizes = tuple(size for size in config.sizes if any((item.width, item.height) == size for item in learned))
        self._buckets = [[item for item in learned if (item.width, item.height) == size] for size in self.sizes]
        self._order = ExampleOrder([len(bucket) for bucket in self._buckets], slots_per_step)

    def __len__(self) -> int:
        """Examples to learn from, without those of held-out clips."""
        return sum(map(len, self._buckets))

    @property
    def num_held_out(self) -> int:
        """Examples of held-out clips."""
        return len(self._held_out)

    def example(self, seed: int, step: int, rank_slot: int = 0) -> TrainingExample:
        """Return what is learned from at `step`, a function of the arguments only.

        Args:
            seed: of the order.
            step: optimizer step, from 0; step 0 has the largest size.
            rank_slot: number of the example within the step over all processes, below `slots_per_step`. All have one size.

        Raises:
            ValueError: a file of the cache is missing or damaged; the message names it.
        """
        bucket, number = self._order.place(seed, step, rank_slot)
        return self._load(self._buckets[bucket][number])

    def validation(self) -> Iterator[TrainingExample]:
        """Yield the examples of the held-out clips, always in the same order.

        Raises:
            ValueError: see :meth:`example`.
        """
        yield from map(self._load, self._held_out)

    def _load(self, item: IndexedExample) -> TrainingExample:
        stored = self._cache.read(WINDOWS, item.key)
        latent, known, vision = stored["latent"].float(), stored["known"].float(), stored.get("clip_vision")
        y_latent = torch.zeros_like(latent)  # the padding of 2.0 Pro; the other layouts know every slot
        y_latent[:, : known.shape[1]] = known
        return TrainingExample(
            name=item.name,
            latent=latent,
            y_latent=y_latent,
            mask=known_mask(latent[None])[0],
            error_slots=range(*item.error_slots),
            text=self._text(item.text_key),
            clip_vision=None if vision is None else vision.float(),
            extras=_followed(stored),
            caption=item.caption,
        )

    def _text(self, key: str) -> Tensor:
        """Return an embedding with the zeros that it was stored without."""
        stored = self._cache.read(TEXTS, key)
        tokens = stored["tokens"].float()
        return torch.cat([tokens, tokens.new_zeros(int(stored["length"]) - len(tokens), tokens.shape[1])])


def _followed(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the clip follows besides text and image, by its name in `TrainingExample.extras`."""
    poses = {"pose": unpacked_poses(stored)} if "pose" in stored else {}
    return {**poses, **({"sound": stored["heard"].float()} if "heard" in stored else {})}


def held_out_clips(clips: set[str], held_out: float) -> set[str]:
    """Return which of `clips` (hashes of their bytes) are kept for validation, a function of the clips themselves.

    Args:
        clips: hashes of all clips.
        held_out: a share below 1 (rounded, one clip at least if there are two), or a number of clips.

    Raises:
        ValueError: no clip would be left to learn from.
    """
    count = int(held_out) if held_out >= 1 else round(held_out * len(clips))
    if 0 < held_out < 1:
        count = min(max(count, 1), len(clips) - 1)
    if count >= len(clips):
        raise ValueError(
            f"data.held_out keeps {count} of {len(clips)} clips for validation, which leaves none to learn from: lower it."
        )
    return set(sorted(clips, key=lambda clip: fingerprint("held out", clip))[:count])


def _without(examples: Sequence[IndexedExample], excluded: Sequence[str]) -> list[IndexedExample]:
    """Return `examples` without those that `excluded` names.

    Raises:
        ValueError: a name that no example has.
    """
    names = {name for example in examples for name in (example.name, _clip_name(example))}
    for name in excluded:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ValueError(
                f"data.exclude holds {name!r}, which is no clip of the cache{near and f': did you mean {near[0]!r}?'}"
            )
    return [example for example in examples if not {example.name, _clip_name(example)} & set(excluded)]


def _clip_name(example: IndexedExample) -> str:
    return example.name.rpartition(" window ")[0]


def _parse_size(text: str) -> tuple[int, int]:
    width, _, height = str(text).lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f'more_sizes holds {text!r}: write width x height in pixels, such as "480x832".')
    return int(width), int(height)
