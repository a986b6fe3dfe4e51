"""What the trainer learns from: the settings of the data and one example of it.

``python -m training.cache`` turns clips into examples once; the trainer then reads them by number, in an order that is a
function of (seed, step) and nothing else.
Source: SVI_SPEC A0 (mask), A1 and A3 (layouts), B1 and B7 (training data), B9 (what the released loader gets wrong).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from torch import Tensor

from svi_core.geometry import FRAME_RATE, TRAINED_NUM_FRAMES, require_frame_size
from svi_core.layouts import Layout, make_layout

STORAGE_DTYPES = ("float32", "bfloat16")
_NOT_IN_THE_CACHE = ("folder", "cache", "held_out", "strict")  # settings that change no cached value


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips are and how examples are made of them.

    Attributes:
        folder: folder of the clips: ``clip.mp4`` beside ``clip.txt``, CSV or JSONL tables, sub-folders as categories.
        cache: folder of the encoded examples; empty: ``svi_cache`` inside `folder`.
        default_caption: caption of clips that have none, ``{category}`` is the clip's folder; empty: such clips are skipped.
        layout: the SVI system that is trained, a name of svi_core.layouts: "2.0 Pro", "2.0", "Shot" or "Film".
        num_frames: pixel frames of an example, 4n + 1; SVI is trained on 81.
        num_motion_frames: frames that carry motion; 0: the layout's own number (2.0 Pro 4, 2.0 and Shot 1, Film 5).
        p_motion: share of examples laid out as a later clip, with motion of a clip before; the others are first clips.
        frame_rate: frames per second that clips are resampled to, by time.
        width: width of the examples in pixels, a multiple of 16.
        height: height of the examples in pixels, a multiple of 16.
        more_sizes: further sizes such as "480x832"; each clip goes to the size that is nearest to its own shape.
        windows: windows that one clip gives at most, each from its own part of the clip; a shorter clip gives fewer.
        variants: examples made of each window, which differ in start, anchor, kind (first or later clip) and crop.
        min_crop: a crop keeps this share of the limiting side or more, drawn uniformly; 1 always crops as little as possible.
        flip: mirror half of the examples; off, since it swaps left and right in captions and writing.
        max_held_frames: how often the last frame may be repeated where a clip is a little too short.
        held_out: clips kept for validation: below 1 a share of all clips (one clip at least), from 1 on their number.
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
    seed: int = 0
    storage: str = "float32"
    vae_tile: int = 0
    strict: bool = False

    def __post_init__(self):
        make_layout(self.layout, self.num_frames, self.num_motion_frames)
        for size in self.sizes:
            require_frame_size(*size, name="data")
        _require(0.0 <= self.p_motion <= 1.0, "p_motion", self.p_motion, "a probability from 0 to 1")
        _require(0.5 <= self.min_crop <= 1.0, "min_crop", self.min_crop, "a share from 0.5 to 1")
        _require(1 <= self.frame_rate <= 120, "frame_rate", self.frame_rate, "1 to 120 frames per second, 16 for Wan 14B")
        _require(1 <= self.windows <= 10_000, "windows", self.windows, "1 or more")
        _require(1 <= self.variants <= 10_000, "variants", self.variants, "1 or more")
        _require(0 <= self.max_held_frames < self.num_frames, "max_held_frames", self.max_held_frames, "0 or a few frames")
        _require(self.held_out >= 0, "held_out", self.held_out, "a share below 1 or a number of clips")
        _require(self.storage in STORAGE_DTYPES, "storage", self.storage, " or ".join(STORAGE_DTYPES))
        tile_fits = self.vae_tile == 0 or (self.vae_tile >= 32 and self.vae_tile % 16 == 0)
        _require(tile_fits, "vae_tile", self.vae_tile, "0 or a multiple of 16 pixels, 256 for instance")

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
        extras: further features by name (audio, pose); empty for the layouts of today.
    """

    name: str
    latent: Tensor
    y_latent: Tensor
    mask: Tensor
    error_slots: range
    text: Tensor
    clip_vision: Tensor | None
    extras: Mapping[str, Tensor]


def _parse_size(text: str) -> tuple[int, int]:
    width, _, height = str(text).lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f'more_sizes holds {text!r}: write width x height in pixels, such as "480x832".')
    return int(width), int(height)


def _require(holds: bool, name: str, value: object, instead: str) -> None:
    if not holds:
        raise ValueError(f"data.{name} is {value!r}: use {instead}.")
