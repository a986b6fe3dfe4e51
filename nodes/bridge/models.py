"""ComfyUI's MODEL and CLIP_VISION: checks before sampling, and hashes of everything their output depends on."""

import logging
from pathlib import Path

import comfy.model_detection
import comfy.utils
import torch

from ...svi_core.files.fingerprint import fingerprint, large_file_fingerprint
from ...svi_core.files.safetensors_file import read_header
from ...svi_core.systems.base_model import require_plain_i2v, require_text_width, require_vision_width
from .queued_graph import QueuedGraph, checkpoint_names, find_model, is_safetensors


def require_i2v(model, name: str) -> None:
    """Raise ValueError for a MODEL that is not a plain Wan image-to-video model."""
    _require_i2v(model.model, name)


def require_i2v_file(path: Path, name: str) -> None:
    """Raise ValueError for a safetensors file of another model, without reading its weights.

    A file that ComfyUI cannot tell is left to its loader.
    """
    model = model_without_weights(path)
    if model is not None:
        _require_i2v(model, name)


def require_text_fits(model, name: str, conditioning: list, what: str) -> None:
    """Raise ValueError for a CONDITIONING that is not as wide as the text embeddings that `model` reads."""
    for embedding in [embedding for embedding, _ in conditioning if embedding is not None]:
        require_text_width(what, embedding.shape[-1], name, model.model.diffusion_model.text_dim)


def require_vision_fits(model, name: str, clip_vision) -> None:
    """Raise ValueError for a CLIP_VISION that is missing, or whose features `model` cannot read, where it reads any."""
    if not needs_clip_vision(model):
        return
    if clip_vision is None:
        raise ValueError(
            f"{name} is a Wan 2.1 I2V model, which reads CLIP vision features: connect Load CLIP Vision "
            "(clip_vision_h) to clip_vision."
        )
    expected = model.model.diffusion_model.img_emb.proj[0].normalized_shape[0]
    require_vision_width("clip_vision", clip_vision.config["hidden_size"], name, expected)


def needs_clip_vision(model) -> bool:
    """Whether `model` reads CLIP vision features (Wan 2.1 I2V does, Wan 2.2 does not)."""
    return _reads_vision(model.model)


def may_read_vision(graph: QueuedGraph, node_id: str) -> bool:
    """Whether the model of an SVI Generate may read its CLIP vision: it has one, and no file says that it reads none."""
    if graph.link(node_id, "clip_vision") is None:
        return False
    name = checkpoint_names(graph, node_id)[0] if graph.link(node_id, "model") else None
    path = find_model(name)[1] if name else None
    try:
        found = model_without_weights(path) if path and is_safetensors(path) else None
    except ValueError:  # a damaged file: its loader will say so
        return True
    return found is None or _reads_vision(found)


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


def _reads_vision(model) -> bool:
    return getattr(model.diffusion_model, "img_emb", None) is not None


def _require_i2v(model, name: str) -> None:
    transformer = model.diffusion_model
    weight = getattr(getattr(transformer, "patch_embedding", None), "weight", None)
    channels = weight.shape[1] if weight is not None and weight.ndim == 5 else 0
    require_plain_i2v(name, type(model), type(transformer), channels)


def model_without_weights(path: Path):
    """Return ComfyUI's model object for a safetensors file, with meta tensors in place of weights; None if it cannot tell."""
    header = read_header(path)
    metadata = header.pop("__metadata__", None)
    tensors = {key: torch.empty(entry["shape"], device="meta") for key, entry in header.items()}
    prefix = comfy.model_detection.unet_prefix_from_state_dict(tensors)
    tensors = comfy.utils.state_dict_prefix_replace(tensors, {prefix: ""}, filter_keys=True) or tensors
    try:
        config = comfy.model_detection.model_config_from_unet(tensors, "", metadata=metadata)
        return None if config is None else config.get_model(tensors, "", device="meta")
    except Exception as error:  # keys of a model, but not all, or of other shapes: ComfyUI's detection raises anything then
        logging.info("SVI: ComfyUI cannot tell from its header which model %s is (%r).", path.name, error)
        return None
