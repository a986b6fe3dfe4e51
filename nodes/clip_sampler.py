"""The model side of the clip loop: one clip sampled with ComfyUI's own samplers, its key, and its frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from ..svi_core.clips import Clip, ClipRequest
from ..svi_core.conditioning import ConditioningLatent, motion_tail
from ..svi_core.fingerprint import fingerprint
from ..svi_core.flow_matching import num_high_noise_steps, require_sigmas
from ..svi_core.geometry import require_frame_size
from ..svi_core.layouts import Layout
from . import bridge
from .prompts import EncodedPrompts


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
    layout: Layout
    num_clips: int
    model_low_noise: object = None
    clip_vision: object = None

    def check(self) -> None:
        """Refuse what cannot work, before the first step.

        Raises:
            ValueError: naming the input, its value and the fix.
        """
        for name, model in (("model", self.model), ("model_low_noise", self.model_low_noise)):
            if model is not None:
                self._check_model(name, model)
        bridge.require_wan_vae(self.vae)
        require_sigmas(self.sigmas)
        num_high_noise_steps(self.sigmas, self.boundary)
        if not 0.0 <= self.cfg <= 100.0:
            raise ValueError(f"cfg is {self.cfg}: use 1 with a distilled LoRA, 4 to 5 without.")
        batch, _, _, height, width = bridge.samples_of(self.anchor, "anchor").shape
        if batch != 1:
            raise ValueError(f"anchor holds {batch} images, but SVI Generate makes one video from one anchor: pick one image.")
        require_frame_size(width * 8, height * 8, "anchor")
        self._build_y(None)

    def determinants(self, request: ClipRequest) -> object:
        """Return the hash of all inputs that the clip of `request` depends on, and its own prompt and seed."""
        return (self._fixed_determinants, fingerprint(self.prompts.at(request.index)), request.seed)

    def sample(self, request: ClipRequest, previous: Clip | None) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of a clip, made by the high-noise expert first, then the low-noise one."""
        y = self._build_y(previous)
        features = self._clip_vision_features(previous)
        positive, negative = (bridge.set_y(c, y, features) for c in (self.prompts.at(request.index), self.negative))
        samples = bridge.empty_latent(y)["samples"]
        noise = bridge.random_noise(samples, request.seed)
        for model, sigmas in self._stages():
            callback = self._progress.callback(model)
            samples = bridge.sample_stage(
                model, noise, self.cfg, self.sampler, sigmas, positive, negative, samples, request.seed, callback
            )
            noise = torch.zeros_like(noise)
        return samples

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the frames of one clip in chunks [t, H, W, 3] in [0, 1]."""
        return bridge.decode_chunks(self.vae, latent)

    def on_clip(self, clip: Clip) -> None:
        """Move the progress bar to the end of `clip`, also when it was reused and took no step."""
        self._progress.move_to((clip.request.index + 1) * self._num_steps)

    @property
    def _num_steps(self) -> int:
        return len(self.sigmas) - 1

    @cached_property
    def _progress(self) -> bridge.StepProgress:
        return bridge.StepProgress(self.num_clips * self._num_steps)

    @cached_property
    def _fixed_determinants(self) -> str:
        models = [model and bridge.model_fingerprint(model) for model in (self.model, self.model_low_noise)]
        vision = self.clip_vision and bridge.vision_fingerprint(self.clip_vision)
        settings = (self.sampler, self.sigmas, self.cfg, self.boundary, self.layout)
        return fingerprint(models, vision, bridge.vae_fingerprint(self.vae), self.anchor, self.negative, settings)

    def _check_model(self, name: str, model) -> None:
        bridge.require_i2v(model, name)
        if bridge.needs_clip_vision(model) and self.clip_vision is None:
            raise ValueError(
                f"{name} is a Wan 2.1 I2V model, which reads CLIP vision features: connect Load CLIP Vision "
                "(clip_vision_h) to clip_vision."
            )

    def _stages(self) -> list[tuple[object, torch.Tensor]]:
        """Return (model, sigmas) of each stage; a stage without steps is left out."""
        if self.model_low_noise is None:
            return [(self.model, self.sigmas)]
        split = num_high_noise_steps(self.sigmas, self.boundary)
        stages = [(self.model, self.sigmas[: split + 1]), (self.model_low_noise, self.sigmas[split:])]
        return [(model, sigmas) for model, sigmas in stages if len(sigmas) > 1]

    def _build_y(self, previous: Clip | None) -> ConditioningLatent:
        layout = self.layout
        motion = None
        if previous is not None and layout.in_latent_space:
            motion = {"samples": motion_tail(previous.latent, layout.num_motion_frames)}
        elif previous is not None:
            motion = {bridge.FRAMES_KEY: previous.tail(layout.num_motion_frames)}
        return bridge.build_y(layout.padding, self.anchor, motion, layout.num_frames, layout.num_slots, self.vae)

    def _clip_vision_features(self, previous: Clip | None):
        """Encode the first known frame of the clip, as SVI does: the reference, then the first motion frame."""
        if self.clip_vision is None:
            return None
        if previous is not None:
            return self.clip_vision.encode_image(previous.tail(self.layout.num_motion_frames)[:1], crop=False)
        frames = self.anchor.get(bridge.FRAMES_KEY)
        frames = bridge.decode_frames(self.vae, self.anchor["samples"]) if frames is None else frames
        return self.clip_vision.encode_image(frames[:1], crop=False)
