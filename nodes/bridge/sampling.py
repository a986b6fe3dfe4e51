"""ComfyUI's sampler: conditioning, noise, one stage of sampling and its memory.

ComfyUI's ``concat_mask`` is 0 where svi_core's mask is 1 (known); only :func:`set_y` inverts it.
Source: docs/METHOD.md, 2.4; ComfyUI's comfy/model_base.py, class WAN21 (concat_cond, extra_conds).
"""

import copy

import comfy.clip_vision
import comfy.model_management
import comfy.sample
import node_helpers
import torch

from ...svi_core.conditioning.build_y import ConditioningLatent


def reset_peak_memory() -> None:
    """Restart the measurement of :func:`peak_memory`."""
    for device in _cuda_devices():
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory() -> int:
    """Return torch's peak memory in bytes since :func:`reset_peak_memory`, of the card that held most; 0 without CUDA."""
    return max(map(torch.cuda.max_memory_allocated, _cuda_devices()), default=0)


def _cuda_devices() -> list[torch.device]:
    return [device for device in comfy.model_management.get_all_torch_devices() if device.type == "cuda"]


def set_y(conditioning: list, y: ConditioningLatent, clip_vision_output=None) -> list:
    """Return a copy of a CONDITIONING with `y` and, if given, CLIP vision features."""
    values = {"concat_latent_image": y.latent, "concat_mask": 1.0 - y.mask}
    if clip_vision_output is not None:
        values["clip_vision_output"] = clip_vision_output
    return node_helpers.conditioning_set_values(conditioning, values)


def sample_stage(model, noise, cfg, sampler, sigmas, positive, negative, samples, seed, callback) -> torch.Tensor:
    """Run `sampler` over `sigmas` exactly as ComfyUI's SamplerCustom node, with our progress callback.

    Samplers and patches get sigmas and conditioning of their own: uni_pc and some patches write into them, and ComfyUI keeps
    those of the inputs for the next run.
    """
    sigmas, positive, negative = _own([sigmas, positive, negative])
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, samples, callback=callback, disable_pbar=True, seed=seed
    )


def sample_guided(guider, noise, sampler, sigmas, samples, seed, callback) -> torch.Tensor:
    """Run `sampler` over `sigmas` as :func:`sample_stage`, with a guider for this stage alone, as SamplerCustomAdvanced."""
    guider.original_conds = _own(guider.original_conds)
    made = guider.sample(noise, samples, sampler, sigmas.clone(), callback=callback, disable_pbar=True, seed=seed)
    return made.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())


def _own(value):
    """Return `value` with copies of its tensors, in lists and dicts of any depth and in CLIP vision features."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, list | tuple):
        return type(value)(map(_own, value))
    if isinstance(value, dict):
        return {name: _own(part) for name, part in value.items()}
    if isinstance(value, comfy.clip_vision.Output):
        made = copy.copy(value)
        vars(made).update(_own(vars(value)))
        return made
    return value


def random_noise(samples: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the CPU noise that ComfyUI's own samplers draw for `seed`."""
    return comfy.sample.prepare_noise(samples, seed)
