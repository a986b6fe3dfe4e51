"""The SVI systems as their authors run them: base model, LoRA files, sampling settings, advice.

A layout (layouts.py) decides how a clip is made; a variant lists what the user has to provide. None of it is part of a clip's
key.

Source: docs/METHOD.md, 3.1 to 3.3 (settings of the released scripts and READMEs), 7 and 8 (Talk, Dance), 10 (advice) and 6.3
(files).
"""

from dataclasses import dataclass

from ..flow.flow_matching import BOUNDARY
from .layouts import LAYOUTS, Layout, Overlap

WAN21 = "Wan 2.1 I2V 14B 480P"
WAN22 = "Wan 2.2 I2V A14B"


_ROUND_TRIP = "Frames go through the VAE between clips: keep it untiled and in fp32 (--fp32-vae)."
_HORIZONTAL = f"Trained at 832 x 480 only; portraits work less well. {_ROUND_TRIP}"
_FORGETS = f"No anchor: who leaves the picture is forgotten. {_HORIZONTAL}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One SVI system as its authors run it.

    Attributes:
        name: a name of :data:`LAYOUTS`.
        good_for: its purpose, in a few words.
        base: the model that its LoRA was trained on.
        files: released LoRA files in the authors' repository, vita-video-gen/svi-model; high noise before low noise.
        cfg: guidance scale of the text.
        audio_cfg: guidance scale of the sound (Talk).
        num_steps: sampler steps of a clip, both experts together; euler.
        shift: of the noise schedule.
        seed_step: added to the seed from clip to clip; None if the released script draws seeds at random.
        max_width: pixels to which the released script scales wider pictures down.
        also_trained_with: other numbers of motion frames that its authors use it with.
        prompts: how the released script prompts it.
        advice: further advice.
    """

    name: str
    good_for: str
    files: tuple[str, ...]
    base: str = WAN21
    cfg: float = 5.0
    audio_cfg: float | None = None
    num_steps: int = 50
    shift: float = 5.0
    seed_step: int | None = 42
    max_width: int = 832
    also_trained_with: tuple[int, ...] = ()
    prompts: str = "one per clip"
    advice: str = _HORIZONTAL

    @property
    def layout(self) -> Layout:
        """How its clips are conditioned and joined."""
        return LAYOUTS[self.name]

    @property
    def clip_vision(self) -> str:
        """Which picture CLIP vision sees, uncropped: reference, then first motion frame. Wan 2.2 has no input for it."""
        return "first known frame" if self.base == WAN21 else "none"

    @property
    def boundary(self) -> float | None:
        """Sigma below which the low-noise expert of Wan 2.2 takes over; None for Wan 2.1, a single model."""
        return BOUNDARY if self.base == WAN22 else None


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            name="2.0 Pro",
            good_for="long stories, much motion, no VAE round trip",
            base=WAN22,
            files=tuple(
                f"version-2.0/SVI_Wan2.2-I2V-A14B_{expert}_noise_lora_v2.0_pro.safetensors" for expert in ("high", "low")
            ),
            cfg=4.0,
            advice="With LightX2V: 4 to 8 steps, cfg 1, its strength 0.5 to 0.6 on the high-noise expert.",
        ),
        Variant(
            name="2.0",
            good_for="one scene with much motion",
            base=WAN22,
            files=tuple(f"version-2.0/SVI_Wan2.2-I2V-A14B_{expert}_noise_lora_v2.0.safetensors" for expert in ("high", "low")),
        ),
        Variant(
            name="2.0 (Wan 2.1)",
            good_for="one scene, some changes of scenery",
            files=("version-2.0/SVI_Wan2.1-I2V-14B_lora_v2.0.safetensors",),
            also_trained_with=(1,),
            prompts="one per clip, each for two clips in the authors' sample",
        ),
        Variant(
            name="Shot",
            good_for="one scene without end",
            files=("version-1.0/svi-shot.safetensors",),
            prompts="a single one for the whole video; one per clip works too",
        ),
        Variant(
            name="Film",
            good_for="several scenes, a story",
            files=("version-1.0/svi-film-opt-10212025.safetensors", "version-1.0/svi-film.safetensors"),
            advice=_FORGETS,
        ),
        Variant(
            name="Film-transitions",
            good_for="as Film, with more transitions between scenes",
            files=("version-1.0/svi-film-transitions.safetensors",),
            advice=_FORGETS,
        ),
        Variant(name="Tom & Jerry", good_for="cartoons", files=("version-1.0/svi-tom.safetensors",)),
        Variant(
            name="Talk",
            good_for="a person who speaks as a sound says",
            files=("version-1.0/svi-talk.safetensors",),
            cfg=2.0,
            audio_cfg=5.0,
            seed_step=None,
            max_width=640,
            prompts='"a person is talking"',
            advice=f"Trained at 640 x 480. {_ROUND_TRIP}",
        ),
        Variant(
            name="Dance",
            good_for="a person who moves as poses say",
            files=("version-1.0/svi-dance.safetensors",),
            cfg=2.0,
            seed_step=None,
            max_width=640,
            prompts='"the person is dancing"',
            advice="Trained at 480 x 832, upright. Load no UniAnimate LoRA beside it: the file holds one, trained further.",
        ),
    )
}


def settings_text(layout: Layout) -> str:
    """Return the authors' settings for `layout`, as Markdown to read beside the graph."""
    variant = VARIANTS[layout.name]
    guidance = f"{variant.cfg:g}" + ("" if variant.audio_cfg is None else f" for the text, {variant.audio_cfg:g} for the sound")
    rows = {
        "good for": variant.good_for,
        "base model": variant.base,
        "SVI LoRA, strength 1": ", ".join(file.rpartition("/")[2] for file in variant.files),
        "padding": layout.padding.value,
        "motion frames": _motion(layout, variant),
        "CLIP vision": variant.clip_vision,
        "joins": _joins(layout),
        "steps": f"{variant.num_steps}, euler",
        "cfg": guidance,
        "shift": f"{variant.shift:g}",
        "boundary": "no experts" if variant.boundary is None else f"{variant.boundary:g}",
        "seeds": "at random" if variant.seed_step is None else f"seed + {variant.seed_step} for each clip",
        "picture": f"at most {variant.max_width} pixels wide",
        "prompts": variant.prompts,
        "frames per second": f"{layout.frame_rate:g}",
    }
    lines = [f"**SVI {layout.name}**", "", "| | |", "|-|-|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([*lines, "", variant.advice]) + "\n"


def length_formula(layout: Layout) -> str:
    """Return how many frames N clips of `layout` make: "76 N + 5"."""
    return f"{layout.num_frames - layout.overlap} N + {layout.overlap}"


def _motion(layout: Layout, variant: Variant) -> str:
    trained = variant.layout.num_motion_frames
    text = f"{layout.num_motion_frames}, {'handed over as a latent' if layout.in_latent_space else 'decoded and encoded again'}"
    if layout.cuts_to_8_bits:
        text += ", cut to 8 bits"
    if layout.num_motion_frames not in (trained, *variant.also_trained_with):
        text += f" (trained with {trained})"
    return text


def _joins(layout: Layout) -> str:
    kept = "earlier" if layout.overlap_rule is Overlap.KEEP_PREVIOUS else "later"
    shared = "1 shared frame" if layout.overlap == 1 else f"{layout.overlap} shared frames"
    return f"{shared}, the {kept} clip's kept where they are not blended; N clips make {length_formula(layout)} frames"
