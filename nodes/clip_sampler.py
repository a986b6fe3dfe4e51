"""The model side of the clip loop: one clip sampled with ComfyUI's own samplers, its key, and its frames."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from ..svi_core.clips.chain import Clip, Predecessor
from ..svi_core.clips.clip_plan import ClipPlan, ClipRequest
from ..svi_core.clips.continuation import RunEnd, VideoEnd, VideoStart, open_start
from ..svi_core.conditioning.build_y import ConditioningLatent, cut_to_8_bits, motion_tail, with_end_image
from ..svi_core.files.fingerprint import fingerprint
from ..svi_core.flow.flow_matching import num_high_noise_steps, require_sigmas
from ..svi_core.geometry import require_frame_size
from ..svi_core.out_of_memory import explain_out_of_memory
from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.systems.layouts import Layout
from ..svi_core.systems.lora import LoraFile, read_lora
from ..svi_core.systems.lora_variant import LoraVariant, require_lora_variants
from .bridge import translate as bridge
from .bridge.attention import with_fastest_attention
from .bridge.compiled import require_uncompiled
from .bridge.control import Control, require_condition
from .lora import LoraRow, apply_rows, attached_variants, lora_files_fingerprint, variants_of_rows, with_strengths
from .schedule import EncodedPrompts

MAIN_ANCHOR = "main"  # what a schedule calls the anchor input
MAX_LORA_SETTINGS = 8  # patched clones kept, for schedules that go back and forth


@dataclass(frozen=True, kw_only=True)
class ClipSampler:
    """Everything that stays the same from clip to clip, and how a clip is made from it (svi_core's ClipMaker).

    Attributes carry the names of SVI Generate's inputs; `model_low_noise` is None for a model without experts.
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
    _counted: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def check(self, plan: ClipPlan) -> None:
        """Refuse what cannot work, before the first step.

        Raises:
            ValueError: naming the input, its value and the fix.
        """
        for name, model in (("model", self.model), ("model_low_noise", self.model_low_noise)):
            if model is not None:
                self._check_model(name, model)
                require_uncompiled(name, model, self.control)
        if self.loras and self.model.patches:
            logging.warning("SVI Generate: model carries LoRAs already; those of the loras input are added to them.")
        bridge.require_wan_vae(self.vae)
        require_sigmas(self.sigmas)
        num_high_noise_steps(self.sigmas, self.boundary)
        if not 0.0 <= self.cfg <= 100.0:
            raise ValueError(f"cfg is {self.cfg}: use 1 with a distilled LoRA, 4 to 5 without.")
        bridge.warn_of_rounding(self.vae, plan.layout)
        _check_anchor("anchor", self.anchor, plan.layout)
        for name, anchor in self.anchors.items():
            _check_anchor(f"anchor {name!r}", anchor, plan.layout, like=self.anchor)
        _, _, _, height, width = self.anchor["samples"].shape
        require_condition(plan.layout, self.control)
        for control in self.control:
            control.check(self.model, plan.layout, width * 8, height * 8)
        self._check_schedule(plan)

    def claims(self, spec: ClipSpec | None = None) -> tuple[LoraVariant, ...]:
        """Return what the LoRAs were trained for: those on the models, and rows with a strength (as `spec` changes them)."""
        rows = with_strengths(self.loras, spec.loras) if spec else self.loras
        of_models = [claim for model in (self.model, self.model_low_noise) if model for claim in attached_variants(model)]
        used = {name for row in rows for name, strength in row.sides if strength}
        return (*of_models, *(claim for name, claim in self._variants_of_rows.items() if name in used))

    def determinants(self, request: ClipRequest) -> object:
        """Return everything besides the clip before that the clip of `request` depends on."""
        spec = request.spec
        prompt = fingerprint(self.prompts.encode(spec.prompt))
        pictures = [fingerprint(self._anchor(spec.anchor)), spec.end and fingerprint(self._anchor(spec.end))]
        strengths = [(row.strength, row.strength_low_noise) for row in with_strengths(self.loras, spec.loras)]
        controls = [control.determinants(request) for control in self.control]
        return (
            self._fixed_determinants,
            prompt,
            pictures,
            request.seed,
            self._cfg(request),
            request.layout,
            strengths,
            controls,
        )

    def sample(self, request: ClipRequest, previous: Predecessor | None) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of a clip, made by the high-noise expert first, then the low-noise one."""
        size = bridge.clip_size(request.layout.num_slots, self.anchor["samples"])
        bridge.reset_peak_memory()
        with explain_out_of_memory(f"clip {request.index + 1} of {size}", bridge.MORE_MEMORY):
            return self._sample(request, previous)

    def _sample(self, request: ClipRequest, previous: Predecessor | None) -> torch.Tensor:
        y = self._build_y(request, previous)
        features = self._clip_vision_features(request, previous)
        prompt = self.prompts.encode(request.spec.prompt)
        positive, negative = (bridge.set_y(c, y, features) for c in (prompt, self.negative))
        samples = bridge.empty_latent(y)["samples"]
        noise = bridge.random_noise(samples, request.seed)
        cfg, seed = self._cfg(request), request.seed
        for model, sigmas in self._stages(request):
            for control in self.control:
                model = control.patched(model, request, samples)
            callback = self._progress.callback(model)
            samples = bridge.sample_stage(model, noise, cfg, self.sampler, sigmas, positive, negative, samples, seed, callback)
            noise = torch.zeros_like(noise)
        return samples

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the frames of one clip in chunks [t, H, W, 3] in [0, 1]."""
        return bridge.decode_chunks(self.vae, latent)

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Return what the time of the clip just sampled depends on besides its size, and the memory it took."""
        num_passes = (1 if self._cfg(request) == 1.0 else 2) + sum(control.num_extra_passes for control in self.control)
        return {"num_steps": self._num_steps, "num_passes": num_passes, "peak_bytes": bridge.peak_memory()}

    def anchor_frame(self, request: ClipRequest) -> torch.Tensor:
        """Return the anchor image [1, H, W, 3] in [0, 1] of the clip of `request`."""
        anchor = self._anchor(request.spec.anchor)
        frames = anchor.get(bridge.FRAMES_KEY)
        return next(self.decode(anchor["samples"])) if frames is None else frames

    def open_start(self, start: VideoStart, frame_rate: float) -> VideoEnd | RunEnd:
        """Return the end of a video, encoded, for the first clip, of `frame_rate` frames per second, to move on from.

        Raises:
            ValueError: the video has another size than the anchor.
        """
        source = start.source
        _, _, _, height, width = self.anchor["samples"].shape
        if (source.width, source.height) != (width * 8, height * 8):
            raise ValueError(
                f"the video to continue ({source.path.name}) has {source.width} x {source.height} pixels, but the anchor "
                f"{width * 8} x {height * 8}: encode the anchor at the video's size, or scale the video first."
            )
        encode = functools.partial(bridge.encode_frames, self.vae)
        return open_start(start, encode, self.decode, frame_rate)

    def start_progress(self, num_clips: int) -> None:
        """Show progress over all steps of `num_clips` clips; 0 if their number is open, then each clip by itself."""
        self._progress.restart((num_clips or 1) * self._num_steps)
        self._counted["clips"] = num_clips

    def on_clip(self, clip: Clip) -> None:
        """Move the progress bar to the end of `clip`, also when it was reused and took no step."""
        if self._counted["clips"]:
            self._progress.move_to((clip.request.index + 1) * self._num_steps)
        else:
            self._progress.restart(self._num_steps)

    @property
    def _num_steps(self) -> int:
        return len(self.sigmas) - 1

    @cached_property
    def _progress(self) -> bridge.StepProgress:
        return bridge.StepProgress(self._num_steps)

    @cached_property
    def _variants_of_rows(self) -> dict[str, LoraVariant]:
        return variants_of_rows(self.loras)

    @cached_property
    def _fixed_determinants(self) -> str:
        models = [model and bridge.model_fingerprint(model) for model in (self.model, self.model_low_noise)]
        vision = self.clip_vision and bridge.vision_fingerprint(self.clip_vision)
        settings = (self.sampler, self.sigmas, self.boundary, lora_files_fingerprint(self.loras))
        return fingerprint(models, vision, bridge.vae_fingerprint(self.vae), self.negative, settings)

    @cached_property
    def _patched_models(self) -> dict[tuple[LoraRow, ...], tuple]:
        """Patched clones by LoRA rows: each distinct setting is built once, so that ComfyUI sees the same clone again."""
        return {}

    @cached_property
    def _lora_files(self) -> dict[str, LoraFile]:
        """The files of the rows, read once each: clones of different strengths share their matrices."""
        return {}

    def _read_lora(self, path: Path, name: str) -> LoraFile:
        if name not in self._lora_files:
            self._lora_files[name] = read_lora(path, name)
        return self._lora_files[name]

    def _models(self, request: ClipRequest) -> tuple:
        """Return (model, low-noise model) with the LoRA strengths of this clip; the 8 settings used last are kept."""
        rows, known = with_strengths(self.loras, request.spec.loras), self._patched_models
        patched = known.pop(rows, None)
        if patched is None:
            models = self.model, self.model_low_noise
            if rows:
                models = apply_rows(*models, rows, self._read_lora)[:2]
            patched = tuple(model and with_fastest_attention(model) for model in models)
        known[rows] = patched
        if len(known) > MAX_LORA_SETTINGS:
            del known[next(iter(known))]
        return patched

    def _stages(self, request: ClipRequest) -> list[tuple[object, torch.Tensor]]:
        """Return (model, sigmas) of each stage; a stage without steps is left out."""
        model, low = self._models(request)
        if low is None:
            return [(model, self.sigmas)]
        split = num_high_noise_steps(self.sigmas, self.boundary)
        return [stage for stage in ((model, self.sigmas[: split + 1]), (low, self.sigmas[split:])) if len(stage[1]) > 1]

    def _cfg(self, request: ClipRequest) -> float:
        return self.cfg if request.spec.cfg is None else request.spec.cfg

    def _anchor(self, name: str | None) -> dict:
        """Return the anchor called `name`, or the anchor input.

        Raises:
            ValueError: no anchor has that name.
        """
        if name in (None, MAIN_ANCHOR):
            return self.anchor
        if name not in self.anchors:
            known = ", ".join(map(repr, self.anchors)) or "none"
            raise ValueError(f"the schedule names {name!r}, but the anchors input has {known}: add it with SVI Named Anchor.")
        return self.anchors[name]

    def _build_y(self, request: ClipRequest, previous: Predecessor | None) -> ConditioningLatent:
        layout, motion = request.layout, None
        if previous is not None and layout.in_latent_space:
            motion = {"samples": motion_tail(previous.latent, layout.num_motion_frames)}
        elif previous is not None:
            motion = {bridge.FRAMES_KEY: _motion_frames(layout, previous)}
        anchor = self._anchor(request.spec.anchor)
        y = bridge.build_y(layout.padding, anchor, motion, layout.num_frames, layout.num_slots, self.vae)
        if request.spec.end is None:
            return y
        end = bridge.encode_end_image(self.vae, self._anchor(request.spec.end)[bridge.FRAMES_KEY], layout.num_frames)
        return with_end_image(y, end)

    def _clip_vision_features(self, request: ClipRequest, previous: Predecessor | None):
        """Encode the first known frame of the clip, as SVI does: the reference, then the first motion frame."""
        if self.clip_vision is None or not bridge.needs_clip_vision(self.model):
            return None
        if previous is not None:
            return self.clip_vision.encode_image(_motion_frames(request.layout, previous)[:1], crop=False)
        return self.clip_vision.encode_image(self.anchor_frame(request)[:1], crop=False)

    def _check_model(self, name: str, model) -> None:
        bridge.require_i2v(model, name)
        if bridge.needs_clip_vision(model) and self.clip_vision is None:
            raise ValueError(
                f"{name} is a Wan 2.1 I2V model, which reads CLIP vision features: connect Load CLIP Vision "
                "(clip_vision_h) to clip_vision."
            )

    def _check_schedule(self, plan: ClipPlan) -> None:
        """Refuse lengths, names and strengths of the schedule that this run has nothing for."""
        schedule = plan.schedule.snapshot()
        plan.require_joints(schedule)
        for index in range(min(plan.num_clips, len(schedule))):
            self.check_spec(schedule.at(index), plan.layout)
        self._build_y(plan.request_for(0, schedule.at(0)), None)

    def check_spec(self, spec: ClipSpec, layout: Layout) -> None:
        """Refuse names in a clip's spec that nothing is connected for, and LoRAs that `layout` contradicts.

        Raises:
            ValueError: naming what is missing.
        """
        self._anchor(spec.anchor)
        if spec.end is not None and bridge.FRAMES_KEY not in self._anchor(spec.end):
            raise ValueError(f"the end image {spec.end!r} holds only latents: make it from an image with SVI Anchor Encode.")
        require_lora_variants(layout, self.claims(spec))


def _motion_frames(layout: Layout, previous: Predecessor) -> torch.Tensor:
    """Return the frames [n, H, W, 3] of the clip before that carry motion, as they are encoded again."""
    frames = previous.tail(layout.num_motion_frames)
    return cut_to_8_bits(frames) if layout.cuts_to_8_bits else frames


def _check_anchor(name: str, anchor: dict, layout: Layout, like: dict | None = None) -> None:
    """Refuse an anchor that is not one image of a size that Wan takes, or lacks the frames that the layout needs.

    Raises:
        ValueError: naming the anchor.
    """
    batch, _, slots, height, width = bridge.samples_of(anchor, name).shape
    if batch != 1 or slots != 1:
        raise ValueError(
            f"{name} holds {batch} images of {slots} latent slots, but SVI Generate makes one video from one anchor of 1 slot: "
            "encode one image with SVI Anchor Encode."
        )
    if not layout.in_latent_space and bridge.FRAMES_KEY not in anchor:
        raise ValueError(
            f"{name} holds only latents, but layout {layout.name!r} is padded with frames: make it with SVI Anchor Encode."
        )
    require_frame_size(width * 8, height * 8, name)
    if like is not None and like["samples"].shape[-2:] != anchor["samples"].shape[-2:]:
        asked = " x ".join(str(side * 8) for side in reversed(like["samples"].shape[-2:]))
        raise ValueError(f"{name} is {width * 8} x {height * 8} pixels, but the video is {asked}: encode it at that size.")
