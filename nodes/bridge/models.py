"""ComfyUI's MODEL and CLIP_VISION: checks before sampling, and hashes of everything their output depends on."""

from pathlib import Path

import comfy.utils
import torch

from ...svi_core.files.fingerprint import fingerprint, large_file_fingerprint


def require_i2v(model, name: str) -> None:
    """Raise ValueError for a model without SVI's 36 input channels (16 noise + 4 mask + 16 latent)."""
    channels = _in_channels(model)
    if channels != 36:
        found = "not a Wan model" if channels is None else f"a model with {channels} input channels"
        raise ValueError(
            f"{name} is {found}, but SVI needs a Wan image-to-video model (36 input channels): load Wan 2.1 I2V 14B "
            "or a Wan 2.2 I2V A14B expert, not a T2V, 5B or VACE file."
        )


def needs_clip_vision(model) -> bool:
    """Whether `model` reads CLIP vision features (Wan 2.1 I2V does, Wan 2.2 does not)."""
    return getattr(model.model.diffusion_model, "img_emb", None) is not None


def model_fingerprint(model) -> str:
    """Return a hash of everything a MODEL's output depends on: file (or samples of its weights), dtype, patches, settings."""
    source = _source_file(model)
    weights = large_file_fingerprint(source) if source else _weight_samples(model)
    loading = (getattr(model, "cached_patcher_init", None) or (None, ()))[1][1:]
    patches = {key: [tuple(map(_sampled, patch)) for patch in entries] for key, entries in model.patches.items()}
    names = "object_patches model_options wrappers callbacks injections weight_wrapper_patches hook_patches"
    others = [getattr(model, name, None) for name in names.split()]
    more = {key: [model_fingerprint(m) for m in models] for key, models in model.additional_models.items()}
    return fingerprint(type(model.model).__name__, str(model.model.get_dtype()), weights, loading, patches, others, more)


def weights_identity(patcher) -> str:
    """Return a hash of the file of a patcher's weights, or of samples of them."""
    source = _source_file(patcher)
    return large_file_fingerprint(source) if source else weights_fingerprint(patcher)


def weights_fingerprint(patcher) -> str:
    """Return a hash of samples of a patcher's weights."""
    return fingerprint(_weight_samples(patcher))


def _source_file(patcher) -> Path | None:
    """Return the file that ComfyUI's loader read this model from, if known."""
    arguments = (getattr(patcher, "cached_patcher_init", None) or (None, ()))[1]
    paths = [Path(argument) for argument in arguments[:1] if isinstance(argument, str)]
    return next((path for path in paths if path.is_file()), None)


def _weight_samples(patcher) -> dict[str, tuple]:
    """Return a sample of each unpatched weight.

    GGUF loaders put meta tensors into the state dict, and some are not weights: sample the stored bytes instead.
    """
    weights = patcher.model.state_dict()
    for key in [key for key, weight in weights.items() if weight.is_meta]:
        try:
            weights[key] = comfy.utils.get_attr(patcher.model, key).detach().as_subclass(torch.Tensor)
        except AttributeError:
            del weights[key]
    backups = {key: patcher.backup[key].weight for key in weights if key in patcher.backup}
    return {key: _sampled(backups.get(key, weight)) for key, weight in weights.items()}


def _sampled(value):
    """Replace tensors, also inside a weight adapter or a tuple, by their dtype, shape and 64 evenly spaced values."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().reshape(-1)
        count = min(64, flat.numel())
        index = torch.arange(count) * (flat.numel() - 1) // max(1, count - 1)
        return (str(value.dtype), tuple(value.shape), flat[index.to(flat.device)].float().cpu())
    if hasattr(value, "weights") and hasattr(value, "loaded_keys"):
        return (type(value).__name__, _sampled(value.weights))
    return tuple(map(_sampled, value)) if isinstance(value, list | tuple) else value


def _in_channels(model) -> int | None:
    """Return the input channels of the patch embedding, or None for a model without one."""
    embedding = getattr(getattr(model.model, "diffusion_model", None), "patch_embedding", None)
    weight = getattr(embedding, "weight", None)
    return None if weight is None or weight.ndim != 5 else weight.shape[1]
