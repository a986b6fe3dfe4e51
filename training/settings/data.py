"""The settings of the clips: where they are, how examples are made of them, how often a condition is dropped.

Source: docs/METHOD.md, 9.3 (16 frames per second, motion), 9.9 (2.0 Pro) and 9.10 (Talk, Dance).
"""

from dataclasses import dataclass, fields
from pathlib import Path

from svi_core.geometry import FRAME_RATE, TALK_FRAME_RATE, TRAINED_NUM_FRAMES, require_frame_size
from svi_core.systems.layouts import Condition, Layout, Padding, make_layout
from training.settings.checks import require

STORAGE_DTYPES = ("float32", "bfloat16")
_NOT_IN_THE_CACHE = ("folder", "cache", "exclude", "held_out", "strict", "first_frame_prob")  # they change no cached value
_FIRST_FRAME = ("first_frame_draws", "first_frame_strength")  # without draws not in the cache either


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips are and how examples are made of them.

    Attributes:
        folder: folder of the clips: ``clip.mp4`` next to ``clip.txt`` or ``clip.json``, or CSV, TSV, JSONL or JSON tables;
            sub-folders are categories. Links to folders elsewhere are not followed.
            Layout Dance needs a pose video of each clip: ``clip.pose.mp4`` next to it, or the file in the table's Pose column.
            Layout Talk needs clips with sound, or ``clip.wav`` next to them.
        cache: folder of the encoded examples; empty: ``svi_cache`` in `folder`.
        default_caption: caption of clips without one, with ``{category}`` for the clip's folder; empty: such clips are skipped.
        layout: the SVI system to train, a name of svi_core.systems.layouts: "2.0 Pro", "2.0", "Shot", "Film" ...
        num_frames: pixel frames of an example, 4n + 1; SVI is trained on 81.
        num_motion_frames: frames that carry motion; 0: the layout's own number (2.0 Pro 4, 2.0 and Shot 1, Film 5).
        p_motion: share of examples laid out as later clips, with motion from a previous clip; the others are first clips.
        frame_rate: frames per second to which clips are resampled.
        width: width of the examples in pixels, a multiple of 16.
        height: height of the examples in pixels, a multiple of 16.
        more_sizes: further sizes such as "480x832"; each clip gets the size nearest to its own aspect ratio.
        windows: maximum number of windows per clip. Their starts are spread over the clip, so neighbours may overlap; a short
            clip gives fewer.
        variants: examples per window, which differ in start, anchor, kind (first or later clip) and crop. They are drawn once,
            when the cache is built; the released trainer draws anew at every visit, which more variants approximate.
        min_crop: minimum share of the limiting side that a crop keeps, drawn uniformly up to 1; 1: always crop as little as
            possible.
        flip: mirror half of the examples. Off by default, because it swaps left and right in captions and writing.
        max_held_frames: how often the last frame may be repeated if a clip is slightly too short.
        held_out: clips kept for validation: below 1 a share of all clips (at least one clip), from 1 on their number.
        exclude: clips or single examples to leave out, named as in messages: "a/clip.mp4", or "a/clip.mp4 window 0 variant 1".
            Unlike most settings it may change when a run resumes.
        seed: seed of all draws above; another seed gives other windows, anchors and crops.
        storage: dtype of the cached latents and texts, "float32" or "bfloat16" (half the disk space).
        vae_tile: side in pixels of the spatial tiles that the VAE encodes one by one; 0: the whole picture at once.
        first_frame_draws: strongly augmented versions of the frames that a later clip continues from, made for each example
            when the cache is built; the model learns to restore them by the clean anchor. 0: none. The presets of 2.0 and 2.0
            Pro make 2.
        first_frame_strength: how strong they are; 1: brightness, contrast and saturation within 30 %, hue within a tenth of
            the circle, blur of up to 2 pixels, sharpening.
        first_frame_prob: how often a training step takes one of them; otherwise the frames stay as they are.
        strict: stop at the first clip or row that cannot be used, instead of skipping and reporting it.
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
    first_frame_draws: int = 0
    first_frame_strength: float = 1.0
    first_frame_prob: float = 0.9
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
        require(
            0 <= self.max_held_frames < self.num_frames,
            "data.max_held_frames",
            self.max_held_frames,
            "0 or a few frames, fewer than data.num_frames",
        )
        known = 0 <= self.held_out < 1 or self.held_out == round(self.held_out) >= 1
        require(known, "data.held_out", self.held_out, "a share below 1 or a whole number of clips")
        require(self.storage in STORAGE_DTYPES, "data.storage", self.storage, " or ".join(STORAGE_DTYPES))
        tile_fits = self.vae_tile == 0 or (self.vae_tile >= 32 and self.vae_tile % 16 == 0)
        require(tile_fits, "data.vae_tile", self.vae_tile, "0 or a multiple of 16 pixels, 256 for instance")
        self._require_first_frame()
        heard = self.svi_layout.condition is Condition.SOUND
        in_time = not heard or self.frame_rate == TALK_FRAME_RATE
        require(in_time, "data.frame_rate", self.frame_rate, f"{TALK_FRAME_RATE} with sound, the rate of speech features")
        swaps = self.flip and self.svi_layout.condition is Condition.POSE
        require(not swaps, "data.flip", self.flip, "false with poses, whose colours distinguish left from right")

    def _require_first_frame(self) -> None:
        draws = self.first_frame_draws
        require(0 <= draws <= 100, "data.first_frame_draws", draws, "0 (off), or a few versions of each example, such as 2")
        strength = self.first_frame_strength
        require(0 < strength <= 3, "data.first_frame_strength", strength, "a factor above 0 and up to 3, 1 as a rule")
        require(0 <= self.first_frame_prob <= 1, "data.first_frame_prob", self.first_frame_prob, "a probability from 0 to 1")
        restorable = draws == 0 or self.svi_layout.padding is not Padding.GREY_FRAMES
        require(restorable, "data.first_frame_draws", draws, f"0 with {self.layout}, which has no anchor to restore from")

    @property
    def svi_layout(self) -> Layout:
        """The layout with these settings' clip and motion lengths."""
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
        """Return the settings that cached examples depend on, as plain JSON values."""
        left_out = _NOT_IN_THE_CACHE if self.first_frame_draws else _NOT_IN_THE_CACHE + _FIRST_FRAME
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}
        layout = self.svi_layout
        # The VAE's tiles change no latent now, but they did in older versions: an index made with them then must not be found.
        return {**values, "vae_tile": 0, "num_motion_frames": layout.num_motion_frames, "more_sizes": list(self.more_sizes)}


def _parse_size(text: str) -> tuple[int, int]:
    width, _, height = str(text).lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f'more_sizes holds {text!r}: write width x height in pixels, such as "480x832".')
    return int(width), int(height)


@dataclass(frozen=True, kw_only=True)
class DropConfig:
    """How often a condition is dropped from an example. The presets dance and talk set the authors' values.

    Attributes:
        image: probability that conditioning latent, mask and CLIP feature are zero, and no image error is added.
        pose: probability that the pose tokens are zero.
        sound: probability that the sound is silence.
    """

    image: float = 0.0
    pose: float = 0.0
    sound: float = 0.0

    def __post_init__(self):
        for name in ("image", "pose", "sound"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"drops.{name} is {getattr(self, name)!r}: use a probability from 0 to below 1.")

    @property
    def any(self) -> bool:
        """Whether any condition is ever dropped."""
        return max(self.image, self.pose, self.sound) > 0
