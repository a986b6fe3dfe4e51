"""The model side of the clip loop: sample a clip with ComfyUI's samplers, decode it, and list what its key depends on."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch

from ..svi_core.clips.chain import Predecessor, motion_frames, motion_of
from ..svi_core.clips.clip_plan import ClipRequest
from ..svi_core.clips.continuation import RunEnd, VideoEnd, VideoStart, open_start
from ..svi_core.conditioning.build_y import ConditioningLatent, build_y, with_end_image
from ..svi_core.files.fingerprint import fingerprint
from ..svi_core.flow.flow_matching import num_high_noise_steps
from ..svi_core.out_of_memory import explain_out_of_memory
from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.store.clip_times import ClipWork
from ..svi_core.systems.layouts import Layout
from ..svi_core.systems.lora_variant import LoraVariant
from .bridge import latents, models, sampling, vaes
from .bridge.control import Control
from .bridge.guiders import NEGATIVE, POSITIVE, GuidanceRecipe
from .bridge.shown_progress import ShownProgress
from .lora import LoraRow, attached_variants, lora_files_fingerprint, variants_of_rows, with_strengths
from .patched_models import PatchedModels
from .schedule import EncodedPrompts

MAIN_ANCHOR = "main"  # what a schedule calls the anchor input


@dataclass(kw_only=True)
class ClipSampler:
    """The inputs that all clips of a run share, and the methods that make a clip from them (svi_core's ClipMaker).

    Attributes are named after SVI Generate's inputs. `model_low_noise` is None for a model without experts. `tiles`, of SVI
    Output, is set after.
    """

    model: object
    prompts: EncodedPrompts
    negative: list
    vae: object
    anchor: dict
    sampler: object
    sigmas: torch.Tensor
    cfg: float
    boundary: float
    model_low_noise: object = None
    clip_vision: object = None
    anchors: dict[str, dict] = field(default_factory=dict)
    loras: tuple[LoraRow, ...] = ()
    control: tuple[Control, ...] = ()
    guider: object = None
    tiles: vaes.DecodeTiles = field(init=False, default=vaes.DecodeTiles.AUTO)
    progress: ShownProgress = field(init=False, repr=False)
    recipe: GuidanceRecipe | None = field(init=False, repr=False)
    _patched: PatchedModels = field(init=False, repr=False)
    _picture_key: Callable[[str | None], str] = field(init=False, repr=False)  # hash of an anchor, made once a run

    def __post_init__(self):
        self.progress = ShownProgress(len(self.sigmas) - 1)
        self.recipe = None if self.guider is None else GuidanceRecipe(self.guider)
        self._patched = PatchedModels(self.model, self.model_low_noise, self.loras)
        self._picture_key = functools.cache(lambda name: fingerprint(self.anchor_named(name)))

    def lora_variants(self, spec: ClipSpec | None = None) -> tuple[LoraVariant, ...]:
        """Return what the LoRAs in use were trained for: those on the models, and the rows at the strengths of `spec`."""
        rows = with_strengths(self.loras, spec.loras) if spec else self.loras
        of_models = [found for model in (self.model, self.model_low_noise) if model for found in attached_variants(model)]
        used = {name for row in rows for name, strength in row.sides if strength}
        return (*of_models, *(found for name, found in self.variants_of_rows.items() if name in used))

    def require_loras(self, spec: ClipSpec) -> None:
        """Refuse a LoRA row of `spec` that a model cannot take; raise ValueError."""
        self._patched.require_loras(spec)

    def begin(self, request: ClipRequest) -> None:
        """Show that the clip of `request` begins."""
        self.progress.begin_clip(request.index)

    def determinants(self, request: ClipRequest) -> object:
        """Return everything that the clip of `request` depends on, except the previous clip."""
        spec = request.spec
        prompt = self.prompts.key(spec.prompt)
        pictures = [self._picture_key(spec.anchor), spec.end and self._picture_key(spec.end)]
        strengths = [(row.strength, row.strength_low_noise) for row in with_strengths(self.loras, spec.loras)]
        controls = [control.determinants(request) for control in self.control]
        of_clip = (request.seed, self._guidance(request), request.layout)
        decoding = vaes.decoding_choices(self.vae, self.tiles) if self._continues_from_frames(request.layout) else ()
        return (self._fixed_determinants, prompt, pictures, *of_clip, strengths, controls, *decoding)

    def sample(self, request: ClipRequest, previous: Predecessor | None) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of a clip; Wan 2.2 samples with the high-noise expert, then the low-noise one."""
        size = latents.clip_size(request.layout.num_slots, self.anchor["samples"])
        sampling.reset_peak_memory()
        with explain_out_of_memory(f"clip {request.index + 1} of {size}", vaes.MORE_MEMORY):
            return self._sample(request, previous)

    def _sample(self, request: ClipRequest, previous: Predecessor | None) -> torch.Tensor:
        self.progress.prepare()
        y = self.build_y(request, previous)
        features = self._clip_vision_features(request, previous)
        prompts = {POSITIVE: self.prompts.encode(request.spec.prompt), NEGATIVE: self.negative, **self._prompts_of_guider}
        prompts = {name: sampling.set_y(prompt, y, features) for name, prompt in prompts.items()}
        samples = latents.empty_latent(y)["samples"]
        noise = sampling.random_noise(samples, request.seed)
        self.progress.sample(len(self.sigmas) - 1)
        for model, sigmas in self._stages(request):
            for control in self.control:
                model = control.patched(model, request, samples)
            samples = self._sample_stage(request, model, sigmas, prompts, noise, samples)
            noise = torch.zeros_like(noise)
        return samples

    def _sample_stage(self, request: ClipRequest, model, sigmas, prompts, noise, samples) -> torch.Tensor:
        """Return `samples` after the steps of one expert."""
        seed, callback = request.seed, self.progress.callback(model)
        if self.recipe is not None:
            guider = self.recipe.guider_for(model, prompts, request.spec.cfg, self.sigmas)
            return sampling.sample_guided(guider, noise, self.sampler, sigmas, samples, seed, callback)
        cfg, conditions = self._cfg(request), (prompts[POSITIVE], prompts[NEGATIVE])
        return sampling.sample_stage(model, noise, cfg, self.sampler, sigmas, *conditions, samples, seed, callback)

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the frames of one clip in chunks [t, H, W, 3] in [0, 1]."""
        return self.progress.decoding(latent, vaes.decode_chunks(self.vae, latent, self.tiles))

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Return the steps and passes of the clip just sampled, and its peak memory in bytes."""
        num_passes = self.recipe.num_passes(request.spec.cfg) if self.recipe else 1 if self._cfg(request) == 1.0 else 2
        num_passes += sum(control.num_extra_passes for control in self.control)
        return {"num_steps": len(self.sigmas) - 1, "num_passes": num_passes, "peak_bytes": sampling.peak_memory()}

    def work(self, request: ClipRequest) -> ClipWork:
        """Return how much work the clip of `request` is."""
        measures = self.measures(request)
        size = self.anchor["samples"].shape[-2:]
        return ClipWork(int(measures["num_steps"]), int(measures["num_passes"]), request.layout.num_slots, *size)

    def anchor_frame(self, request: ClipRequest) -> torch.Tensor:
        """Return the anchor image [1, H, W, 3] in [0, 1] of the clip of `request`."""
        anchor = self.anchor_named(request.spec.anchor)
        frames = anchor.get(latents.FRAMES_KEY)
        return next(self.decode(anchor["samples"])) if frames is None else frames

    def anchor_key(self, request: ClipRequest) -> str:
        """Return a hash of the anchor image of the clip of `request`, or of the latent that it is decoded from."""
        anchor = self.anchor_named(request.spec.anchor)
        return fingerprint(anchor.get(latents.FRAMES_KEY, anchor["samples"]).float().cpu())

    def open_start(self, start: VideoStart, layout: Layout, frame_rate: float) -> VideoEnd | RunEnd:
        """Return the encoded end of a video, read at `frame_rate` frames per second, as the predecessor of the first clip.

        Raises:
            ValueError: the anchor has not the size that clips after this video need.
        """
        start.require_clip_size(*latents.pixel_size(self.anchor))
        needed = layout.num_motion_frames + layout.in_latent_space  # slot 0 of a latent, one frame, is never motion
        return open_start(start, self._encode, self.decode, frame_rate, needed)

    @property
    def _encode(self):
        return functools.partial(vaes.encode_frames, self.vae)

    @cached_property
    def variants_of_rows(self) -> dict[str, LoraVariant]:
        """What the files of the LoRA rows were trained for, where their headers or names say."""
        return variants_of_rows(self.loras)

    @cached_property
    def _fixed_determinants(self) -> str:
        experts = [model and models.model_fingerprint(model) for model in (self.model, self.model_low_noise)]
        vision = self.clip_vision and models.weights_fingerprint(self.clip_vision.patcher)
        settings = (self.sampler, self.sigmas, self.boundary, lora_files_fingerprint(self.loras))
        return fingerprint(experts, vision, models.weights_identity(self.vae.patcher), self.negative, settings)

    def _stages(self, request: ClipRequest) -> list[tuple[object, torch.Tensor]]:
        """Return (model, sigmas) of each stage that has steps."""
        model, low = self._patched.for_clip(request.spec)
        if low is None:
            return [(model, self.sigmas)]
        split = num_high_noise_steps(self.sigmas, self.boundary)
        return [stage for stage in ((model, self.sigmas[: split + 1]), (low, self.sigmas[split:])) if len(stage[1]) > 1]

    def _cfg(self, request: ClipRequest) -> float:
        return self.cfg if request.spec.cfg is None else request.spec.cfg

    def _continues_from_frames(self, layout: Layout) -> bool:
        """Whether clips depend on frames of the clip before, and so on how they were decoded."""
        return not layout.in_latent_space or models.needs_clip_vision(self.model)

    def _guidance(self, request: ClipRequest) -> object:
        return self.recipe.determinants(request.spec.cfg) if self.recipe else self._cfg(request)

    @property
    def _prompts_of_guider(self) -> dict[str, list]:
        return self.recipe.prompts if self.recipe else {}

    def anchor_named(self, name: str | None) -> dict:
        """Return the anchor called `name`, or the anchor input; raise ValueError for an unknown name."""
        if name in (None, MAIN_ANCHOR):
            return self.anchor
        if name not in self.anchors:
            known = ", ".join(map(repr, self.anchors)) or "none"
            raise ValueError(
                f"the schedule names {name!r}, but the anchors input has {known}: add it with SVI Named Anchor, or write "
                "[] above the prompt if what is in brackets are words."
            )
        return self.anchors[name]

    def build_y(self, request: ClipRequest, previous: Predecessor | None) -> ConditioningLatent:
        """Return y of the clip of `request` in ComfyUI's latent space, including its end image if it has one."""
        layout = request.layout
        anchor = latents.known_part(self.anchor_named(request.spec.anchor), "anchor")
        motion = None if previous is None else motion_of(layout, previous)
        if not layout.in_latent_space:
            anchor, motion = (vaes.near_vae(self.vae, part, layout.num_frames) for part in (anchor, motion))
        y = build_y(layout.padding, layout.num_frames, anchor, motion, latents.zero_latent_slot(), self._encode)
        if request.spec.end is None:
            return y
        end = vaes.encode_end_image(self.vae, self.anchor_named(request.spec.end), layout.num_frames)
        return with_end_image(y, end)

    def _clip_vision_features(self, request: ClipRequest, previous: Predecessor | None):
        """Encode the first known frame: the reference in the first clip, the first motion frame in later ones."""
        if self.clip_vision is None or not models.needs_clip_vision(self.model):
            return None
        if previous is not None:
            return self.clip_vision.encode_image(motion_frames(request.layout, previous)[:1], crop=False)
        return self.clip_vision.encode_image(self.anchor_frame(request)[:1], crop=False)
