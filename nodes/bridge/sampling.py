"""ComfyUI's sampler: conditioning, noise, one stage of sampling, its progress and its memory.

ComfyUI's ``concat_mask`` is 0 where svi_core's mask is 1 (known); only :func:`set_y` inverts it.
Source: docs/METHOD.md, 2.4; ComfyUI's comfy/model_base.py, class WAN21 (concat_cond, extra_conds).
"""

import comfy.model_management
import comfy.sample
import comfy.utils
import latent_preview
import node_helpers
import torch

from ...svi_core.conditioning.build_y import ConditioningLatent


def reset_peak_memory() -> None:
    """Restart the measurement of :func:`peak_memory`."""
    device = comfy.model_management.get_torch_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory() -> int:
    """Return torch's peak GPU memory in bytes since :func:`reset_peak_memory`; 0 without a CUDA device."""
    device = comfy.model_management.get_torch_device()
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def set_y(conditioning: list, y: ConditioningLatent, clip_vision_output=None) -> list:
    """Return a copy of a CONDITIONING with `y` and, if given, CLIP vision features."""
    values = {"concat_latent_image": y.latent, "concat_mask": 1.0 - y.mask}
    if clip_vision_output is not None:
        values["clip_vision_output"] = clip_vision_output
    return node_helpers.conditioning_set_values(conditioning, values)


def sample_stage(model, noise, cfg, sampler, sigmas, positive, negative, samples, seed, callback) -> torch.Tensor:
    """Run `sampler` over `sigmas` exactly as ComfyUI's SamplerCustom node, with our progress callback.

    The sampler gets its own sigmas: uni_pc writes into them, and ComfyUI keeps those of the input for the next run.
    """
    sigmas = sigmas.clone()
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, samples, callback=callback, disable_pbar=True, seed=seed
    )


def sample_guided(guider, noise, sampler, sigmas, samples, seed, callback) -> torch.Tensor:
    """Run `sampler` over `sigmas` as :func:`sample_stage`, with a guider for this stage alone, as SamplerCustomAdvanced."""
    made = guider.sample(noise, samples, sampler, sigmas.clone(), callback=callback, disable_pbar=True, seed=seed)
    return made.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())


def random_noise(samples: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the CPU noise that ComfyUI's own samplers draw for `seed`."""
    return comfy.sample.prepare_noise(samples, seed)


class StepProgress:
    """One progress bar in sampler steps for a whole run, with previews of the first latent slot."""

    def __init__(self, steps_per_clip: int):
        self._steps_per_clip = steps_per_clip
        self._num_clips = 0
        self._done = 0
        self._bar: comfy.utils.ProgressBar | None = None

    def restart(self, num_clips: int) -> None:
        """Start over, for `num_clips` clips; 0 if unknown, to count each clip by itself."""
        self._num_clips, self._done, self._bar = num_clips, 0, None

    def end_clip(self, index: int) -> None:
        """Show that the clip `index` is done, even if it was reused without a step."""
        if self._num_clips:
            self._show((index + 1) * self._steps_per_clip)
        else:
            self._done = 0

    def callback(self, model):
        """Return a sampler callback that shows progress and a preview made with `model`'s latent format."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def on_step(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
            self._show(self._done + 1, preview)

        return on_step

    def _show(self, done: int, preview=None) -> None:
        self._done, total = done, (self._num_clips or 1) * self._steps_per_clip
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)  # created late, since it attaches to the running node
        self._bar.update_absolute(done, total, preview)
