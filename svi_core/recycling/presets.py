"""The hyper-parameters of Error-Recycling Fine-Tuning as data: the released training scripts, the paper's Table 9, and 2.0 Pro.

Where paper and released scripts differ, the presets follow the scripts, because the released weights were trained with them.
Source: SVI (arXiv:2510.09212), Table 9; docs/METHOD.md, 9.8 (argparse defaults and shell scripts of the released trainer), 9.9
(2.0 Pro) and 9.10 (Talk, Dance).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..flow.flow_matching import EXPERT_RANGES, ExpertRange
from ..systems.layouts import LAYOUTS, Layout
from .config import ErrorRecyclingConfig

TILED_PIXELS = 272  # 34 latents of 8 pixels


@dataclass(frozen=True, kw_only=True)
class ErftPreset:
    """How one SVI system is trained. The defaults are those that all released scripts share.

    Attributes:
        name: as in :data:`PRESETS`.
        source: where the values come from, and which of them are our own choice.
        layout_name: the conditioning of a clip, a name in `layouts.LAYOUTS`.
        p_motion: probability of conditioning a clip on motion rather than on a single first frame (or anchor).
        expert: timestep ids to train on.
        recycling: the settings of error recycling.
        width: pixels.
        height: pixels.
        vae_tile: side in pixels of the spatial tiles for encoding; 0: untiled. Tiled scripts use 34 x 34 latents, blended;
            ours give the latent of a whole encode.
        learning_rate: of AdamW, constant.
        weight_decay: of AdamW.
        num_epochs: passes over the data.
        lora_rank: rank.
        lora_alpha: the LoRA is scaled by alpha / rank.
        lora_targets: names of the modules with a LoRA, in self- and cross-attention and in the feed-forward.
        max_gradient_norm: gradients are clipped to this norm.
        checkpoint_every: training steps between checkpoints.
        default_caption: for clips without a caption; empty: such clips are skipped.
        audio_drop_prob: probability of dropping the audio (Talk).
        pose_drop_prob: probability of dropping the pose (Dance).
        conditioning_drop_prob: probability of dropping conditioning latent and CLIP feature (Dance).
        first_frame_draws: augmented versions of the first frame for each example; 0: none.
    """

    name: str
    source: str
    layout_name: str
    p_motion: float = 1.0
    expert: ExpertRange = field(default=EXPERT_RANGES["single"])
    recycling: ErrorRecyclingConfig
    width: int = 832
    height: int = 480
    vae_tile: int = 0
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    num_epochs: int = 10
    lora_rank: int = 128
    lora_alpha: float = 128.0
    lora_targets: tuple[str, ...] = ("q", "k", "v", "o", "ffn.0", "ffn.2")
    max_gradient_norm: float = 1.0
    checkpoint_every: int = 100
    default_caption: str = ""
    audio_drop_prob: float = 0.0
    pose_drop_prob: float = 0.0
    conditioning_drop_prob: float = 0.0
    first_frame_draws: int = 0

    @property
    def layout(self) -> Layout:
        """The layout of the conditioning."""
        return LAYOUTS[self.layout_name]


_VERSION_2_SOURCE = (
    "docs/METHOD.md, 9.9 (anchor outside the clip, expert ranges from DiffSynth, the first frame augmented); no training code "
    "is released. Our choice: all else as Shot, whose layout it is, first clips as in Pro, and 2 draws of the augmentation."
)
_PRO_SOURCE = (
    "docs/METHOD.md, 9.9 (data scheme from the authors' issues 75 and 79, expert ranges from DiffSynth); no training code is "
    "released. Our choice: optimizer, LoRA and probabilities of Shot, one image-error slot on the motion slot, clean anchor, "
    "and 2 draws of the first frame's augmentation."
)
# The first frame is augmented: README of the authors' branch svi_wan22, "Re-implementation Tips". How many draws is our choice.
_DRAWS = 2


def _of_both_experts(name: str, layout_name: str, source: str, recycling: ErrorRecyclingConfig) -> Iterator[ErftPreset]:
    """Yield the presets of the two experts of Wan 2.2, which differ in their noise levels only."""
    for expert in ("high", "low"):
        yield ErftPreset(
            name=f"{name}-{expert}",
            source=source,
            layout_name=layout_name,
            p_motion=0.9,
            expert=EXPERT_RANGES[expert],
            recycling=recycling,
            first_frame_draws=_DRAWS,
        )


PRESETS = {
    preset.name: preset
    for preset in (
        ErftPreset(
            name="shot",
            source="docs/METHOD.md, 9.8, column Shot (released script)",
            layout_name="Shot",
            recycling=ErrorRecyclingConfig(clean_prob=0.2),
        ),
        ErftPreset(
            name="film",
            source="docs/METHOD.md, 9.8, column Film (released script)",
            layout_name="Film",
            p_motion=0.9,
            recycling=ErrorRecyclingConfig(clean_prob=0.5),
        ),
        ErftPreset(
            name="talk",
            source="docs/METHOD.md, 9.8, column Talk (released script); docs/METHOD.md, 9.10 (audio left out)",
            layout_name="Talk",
            default_caption="the person is speaking",
            width=640,
            vae_tile=TILED_PIXELS,
            recycling=ErrorRecyclingConfig(clean_prob=0.2),
            audio_drop_prob=0.1,
        ),
        ErftPreset(
            name="dance",
            source="docs/METHOD.md, 9.8, column Dance (released script); docs/METHOD.md, 9.10 (pose and conditioning left out)",
            layout_name="Dance",
            width=480,
            height=832,
            vae_tile=TILED_PIXELS,
            num_epochs=20,
            recycling=ErrorRecyclingConfig(clean_prob=0.2, num_image_error_slots=1),
            pose_drop_prob=0.145,  # 1 - (1 - 0.05) * (1 - 0.1)
            conditioning_drop_prob=0.1,
        ),
        ErftPreset(
            name="paper-film",
            source="docs/METHOD.md, 9.8, column paper (Table 9); not in it: clean_update_prob, so 1",
            layout_name="Film",
            p_motion=0.95,
            vae_tile=TILED_PIXELS,
            learning_rate=2e-5,
            recycling=ErrorRecyclingConfig(clean_prob=0.5, clean_update_prob=1.0, warmup_steps=20),
        ),
        *_of_both_experts("2.0", "2.0", _VERSION_2_SOURCE, ErrorRecyclingConfig(clean_prob=0.2)),
        *_of_both_experts("pro", "2.0 Pro", _PRO_SOURCE, ErrorRecyclingConfig(clean_prob=0.2, num_image_error_slots=1)),
    )
}


def preset(name: str) -> ErftPreset:
    """Return the preset called `name`.

    Raises:
        ValueError: unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}: use one of {', '.join(map(repr, PRESETS))}.")
    return PRESETS[name]
