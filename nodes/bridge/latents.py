"""The only translator between ComfyUI and svi_core: LATENT, CONDITIONING, MODEL, VAE.

What ComfyUI does differently is undone here and nowhere else:

- its ``concat_mask`` is inverted (0 = known), svi_core's is not (1 = known);
- its latents are un-normalised VAE latents, so the zero of normalised space is a per-channel constant there;
- it accepts any model, VAE and latent: what does not fit is refused here by name, before sampling starts.

Source: SVI_SPEC A0; ComfyUI's comfy/model_base.py, class WAN21 (concat_cond, extra_conds).
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import comfy.cli_args
import comfy.latent_formats
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.sample
import comfy.taesd.taehv
import comfy.utils
import latent_preview
import node_helpers
import torch

from ...svi_core.conditioning.build_y import ConditioningLatent, concat_padding, known_mask, padded_frames
from ...svi_core.files.fingerprint import fingerprint, large_file_fingerprint
from ...svi_core.geometry import LATENT_CHANNELS, num_pixel_frames, require_frame_size
from ...svi_core.out_of_memory import explain_out_of_memory, is_out_of_memory
from ...svi_core.systems.layouts import Layout, Padding, require_whole_motion

FRAMES_KEY = "svi_frames"  # pixel frames [n, H, W, 3] that an SVI LATENT was encoded from, for pixel-space layouts

MORE_MEMORY = (
    "Clips finished so far are stored, and Run goes on from there: choose a smaller size or fewer frames a clip, fp8 weights, "
    "or start ComfyUI with --lowvram or a larger --reserve-vram."
)


def samples_of(latent: dict, name: str) -> torch.Tensor:
    """Return the tensor [B, 16, F, h, w] of a ComfyUI LATENT.

    Raises:
        ValueError: the LATENT is not a Wan 2.1 video latent.
    """
    samples = latent["samples"]
    if samples.is_nested or samples.ndim != 5 or samples.shape[1] != LATENT_CHANNELS:
        shape = "nested" if samples.is_nested else list(samples.shape)
        raise ValueError(
            f"{name} has shape {shape}, but SVI needs a Wan 2.1 video latent [batch, 16, slots, height / 8, width / 8]: "
            "encode it with the Wan 2.1 VAE (wan_2.1_vae; the Wan 2.2 14B models use it too)."
        )
    return samples


def empty_latent(y: ConditioningLatent) -> dict:
    """Return the all-zero LATENT that a sampler starts from for a clip conditioned on `y`."""
    return {"samples": torch.zeros_like(y.latent, device=comfy.model_management.intermediate_device())}


def clip_size(num_slots: int, samples: torch.Tensor) -> str:
    """Return in words the size of a clip of `num_slots` latent slots, each as large as those of `samples`."""
    height, width = samples.shape[-2:]
    return f"{num_pixel_frames(num_slots)} frames of {width * 8} x {height * 8} pixels"


def reset_peak_memory() -> None:
    """Begin to measure anew for :func:`peak_memory`."""
    device = comfy.model_management.get_torch_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory() -> int:
    """Return the most bytes that torch had in use on the GPU since :func:`reset_peak_memory`; 0 without a CUDA device."""
    device = comfy.model_management.get_torch_device()
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def zero_latent_slot() -> torch.Tensor:
    """Return the value [1, 16, 1, 1, 1] of an un-normalised Wan 2.1 latent that is zero in normalised space."""
    return comfy.latent_formats.Wan21().process_out(torch.zeros(1, LATENT_CHANNELS, 1, 1, 1))


def encode_frames(vae, frames: torch.Tensor) -> torch.Tensor:
    """Encode `frames` [T, H, W, 3] as one video: [1, 16, F, h, w], un-normalised.

    Raises:
        ValueError: a frame size that is not a multiple of 16, or a VAE that is not Wan 2.1's.
    """
    require_frame_size(frames.shape[2], frames.shape[1])
    require_wan_vae(vae)
    return samples_of({"samples": vae.encode(frames[..., :3])}, "what the VAE made")


def encode_images(vae, images: torch.Tensor) -> torch.Tensor:
    """Encode each of `images` [N, H, W, 3] alone, as a video of one frame: [N, 16, 1, h, w], un-normalised."""
    return torch.cat([encode_frames(vae, image[None]) for image in images])


def decode_chunks(vae, samples: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the frames [t, H, W, 3] in [0, 1] of one clip [1, 16, F, h, w], bit for bit those of a whole VAE decode.

    The causal VAE keeps its state between chunks of 8 frames, so a clip is never in memory as a whole. When memory runs
    out the rest of the clip is decoded in spatial tiles over its full length (temporal tiles would restart the state).
    """
    position = 0
    try:
        for chunk in _decode_causally(vae, samples):
            position += len(chunk)
            yield chunk
        return
    except Exception as error:
        if not (comfy.model_management.is_oom(error) or is_out_of_memory(error)):
            raise
    logging.warning("SVI: out of memory while decoding; frames from %d on are decoded in spatial tiles.", position)
    comfy.model_management.soft_empty_cache()
    tile = {"tile_x": 32, "tile_y": 32, "overlap": 8}
    what = f"decoding a clip of {clip_size(samples.shape[2], samples)}, even in spatial tiles"
    with explain_out_of_memory(what, MORE_MEMORY):
        frames = vae.decode_tiled(samples, **tile, tile_t=samples.shape[2], overlap_t=1)[0, position:]
    yield frames


def _decode_causally(vae, samples: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield frames of slot 0, then of two slots at a time, as ComfyUI's WanVAE.decode walks through them."""
    decoder = vae.first_stage_model
    if not isinstance(decoder, comfy.ldm.wan.vae.WanVAE):
        yield vae.decode(samples)[0]
        return
    memory = vae.memory_used_decode(samples.shape, vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)
    latent = decoder.conv2(samples.to(device=vae.device, dtype=vae.vae_dtype))
    state = [None] * comfy.ldm.wan.vae.count_cache_layers(decoder.decoder) if samples.shape[2] > 1 else None
    starts = [0, *range(1, samples.shape[2], 2)]
    for start in starts:
        slots = latent[:, :, start : start + (2 if start else 1)]
        with comfy.model_management.cuda_device_context(vae.device):
            frames = torch.cat(decoder.decoder(slots, feat_cache=state, feat_idx=[0]), dim=2)
        pixels = vae.process_output(frames.to(vae.vae_output_dtype()))
        yield pixels[0].movedim(0, -1)


def encode_end_image(vae, frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Return the last slot [1, 16, 1, h, w] of a clip that is grey but for its last frame, the image [1, H, W, 3]."""
    clip = torch.full((num_frames - 1, *frames.shape[1:]), 0.5, dtype=frames.dtype, device=frames.device)
    return encode_frames(vae, torch.cat([clip, frames[:1]]))[:, :, -1:]


def build_y(
    padding: Padding, anchor: dict, motion: dict | None, num_frames: int, num_slots: int, vae=None
) -> ConditioningLatent:
    """Return the paper's y for one clip, in ComfyUI's un-normalised latent space.

    Latent-space layouts concatenate latents. Pixel-space layouts send ``[known frames | padding frames]`` through the VAE,
    so `anchor` and `motion` must be LATENTs made by SVI nodes from images, which carry their frames.

    Raises:
        ValueError: parts that do not fit; a pixel-space padding without VAE or without frames.
    """
    if padding is Padding.ZERO_LATENT:
        motion_samples = None if motion is None else _whole_motion(motion)
        return concat_padding(samples_of(anchor, "anchor"), motion_samples, zero_latent_slot(), num_slots)
    if vae is None:
        raise ValueError(f"padding {padding.value!r} is made of pixel frames: connect the VAE to the vae input.")
    reference = _frames_of(anchor, "anchor", padding)
    if reference.shape[0] != 1:
        raise ValueError(f"anchor holds {reference.shape[0]} images, but padding {padding.value!r} takes one: pick one image.")
    known = reference if motion is None else _frames_of(motion, "motion", padding)
    require_whole_motion(known.shape[0])
    padding_image = reference if padding is Padding.ANCHOR_FRAMES else None
    latent = encode_frames(vae, padded_frames(known, padding_image, num_frames))
    return ConditioningLatent(latent, known_mask(latent))


def set_y(conditioning: list, y: ConditioningLatent, clip_vision_output=None) -> list:
    """Return a copy of a CONDITIONING that carries `y` and, where given, the CLIP vision features."""
    values = {"concat_latent_image": y.latent, "concat_mask": 1.0 - y.mask}
    if clip_vision_output is not None:
        values["clip_vision_output"] = clip_vision_output
    return node_helpers.conditioning_set_values(conditioning, values)


def embedded_graph(hidden) -> dict[str, object]:
    """Return what a video file says of the graph that made it; nothing if ComfyUI was told not to embed it."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    return {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}


def require_i2v(model, name: str) -> None:
    """Refuse a model that does not take SVI's 36 input channels (16 noise + 4 mask + 16 latent).

    Raises:
        ValueError: naming the input and what to load instead.
    """
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


def warn_of_rounding(vae, layout: Layout) -> None:
    """Tell the log where frames that go through `vae` between clips are rounded by it more than SVI has seen.

    Source: SVI_SPEC A1, last line: in bf16, and in tiles, still backgrounds gather artefacts that SVI cannot correct.
    """
    if not layout.in_latent_space and vae.vae_dtype is not torch.float32:
        logging.warning("SVI Generate: %s", rounding_warning(layout, vae.vae_dtype))


def rounding_warning(layout: Layout, vae_dtype: torch.dtype) -> str:
    """Return what to say of a VAE of `vae_dtype` under a layout that hands over frames."""
    dtype = str(vae_dtype).removeprefix("torch.")
    return (
        f"layout {layout.name!r} sends frames through the VAE between clips, and it runs in {dtype}: its rounding adds up in "
        "long videos. Start ComfyUI with --fp32-vae."
    )


def require_wan_vae(vae) -> None:
    """Refuse a VAE that does not make Wan 2.1's 16-channel video latents.

    Raises:
        ValueError: naming what the VAE makes.
    """
    if vae is None:
        raise ValueError("vae is missing: connect Load VAE with wan_2.1_vae.")
    known = isinstance(vae.first_stage_model, comfy.ldm.wan.vae.WanVAE | comfy.taesd.taehv.TAEHV)
    if vae.latent_channels != LATENT_CHANNELS or vae.latent_dim != 3 or not known:
        raise ValueError(
            f"vae ({type(vae.first_stage_model).__name__}) makes {vae.latent_channels}-channel {vae.latent_dim}-dimensional "
            "latents, but SVI needs those of Wan 2.1's VAE (16-channel video): load wan_2.1_vae (Wan 2.2 14B uses it too)."
        )


def sample_stage(model, noise, cfg, sampler, sigmas, positive, negative, samples, seed, callback) -> torch.Tensor:
    """Run `sampler` over `sigmas` exactly as ComfyUI's own SamplerCustom node does, with our progress callback."""
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, samples, callback=callback, disable_pbar=True, seed=seed
    )


def random_noise(samples: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the CPU noise that ComfyUI's own samplers draw for `seed`."""
    return comfy.sample.prepare_noise(samples, seed)


def model_fingerprint(model) -> str:
    """Return a hash of all that a MODEL's output depends on: its file and dtype, the patches on it, its settings.

    A model that came from a loader with a file is identified by that file; any other by samples of its weights.
    """
    source = _source_file(model)
    weights = large_file_fingerprint(source) if source else _weight_samples(model)
    loading = (getattr(model, "cached_patcher_init", None) or (None, ()))[1][1:]
    patches = {key: [tuple(map(_sampled, patch)) for patch in entries] for key, entries in model.patches.items()}
    others = [
        getattr(model, name, None)
        for name in (
            "object_patches",
            "model_options",
            "wrappers",
            "callbacks",
            "injections",
            "weight_wrapper_patches",
            "hook_patches",
        )
    ]
    more = {key: [model_fingerprint(m) for m in models] for key, models in model.additional_models.items()}
    return fingerprint(type(model.model).__name__, str(model.model.get_dtype()), weights, loading, patches, others, more)


def vae_fingerprint(vae) -> str:
    """Return a hash of a VAE: of its file, or of samples of its weights."""
    source = _source_file(vae.patcher)
    return large_file_fingerprint(source) if source else fingerprint(_weight_samples(vae.patcher))


def vision_fingerprint(clip_vision) -> str:
    """Return a hash of a CLIP vision model, by samples of its weights."""
    return weights_fingerprint(clip_vision.patcher)


def weights_fingerprint(patcher) -> str:
    """Return a hash of what a patcher carries, by samples of its weights."""
    return fingerprint(_weight_samples(patcher))


class StepProgress:
    """One progress bar in sampler steps for a whole run, with previews of the first latent slot."""

    def __init__(self, total_steps: int):
        self.bar = comfy.utils.ProgressBar(total_steps)
        self.total = total_steps
        self.done = 0

    def move_to(self, step: int) -> None:
        """Show that `step` steps of the run are done."""
        self.done = step
        self.bar.update_absolute(step, self.total)

    def restart(self, total_steps: int) -> None:
        """Begin to count again, up to `total_steps`."""
        self.done, self.total = 0, total_steps

    def callback(self, model):
        """Return a sampler callback that shows progress and a preview made with `model`'s latent format."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def on_step(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            self.done += 1
            preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
            self.bar.update_absolute(self.done, self.total, preview)

        return on_step


def _source_file(patcher) -> Path | None:
    """Return the file that ComfyUI's loader read this model from, where it says so."""
    arguments = (getattr(patcher, "cached_patcher_init", None) or (None, ()))[1]
    paths = [Path(argument) for argument in arguments[:1] if isinstance(argument, str)]
    return next((path for path in paths if path.is_file()), None)


def _weight_samples(patcher) -> dict[str, tuple]:
    """Return a sample of each weight, as it was before any patch.

    GGUF loaders fill the state dict with meta tensors, some of which are no weights: stored bytes are sampled in their place.
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
    """Return dtype, shape and 64 spread values in place of a tensor, also of those inside a weight adapter or a tuple."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().reshape(-1)
        count = min(64, flat.numel())
        index = torch.arange(count) * (flat.numel() - 1) // max(1, count - 1)
        return (str(value.dtype), tuple(value.shape), flat[index.to(flat.device)].float().cpu())
    if hasattr(value, "weights") and hasattr(value, "loaded_keys"):
        return (type(value).__name__, _sampled(value.weights))
    return tuple(map(_sampled, value)) if isinstance(value, list | tuple) else value


def _in_channels(model) -> int | None:
    """Return the channels that the patch embedding takes, or None for a model without one."""
    embedding = getattr(getattr(model.model, "diffusion_model", None), "patch_embedding", None)
    weight = getattr(embedding, "weight", None)
    return None if weight is None or weight.ndim != 5 else weight.shape[1]


def _frames_of(latent: dict, name: str, padding: Padding) -> torch.Tensor:
    if FRAMES_KEY not in latent:
        raise ValueError(
            f"padding {padding.value!r} is made of pixel frames, but {name} holds only latents: make it from images, with "
            + ("SVI Anchor Encode." if name == "anchor" else "the images input of SVI Motion Latent.")
        )
    return latent[FRAMES_KEY]


def _whole_motion(motion: dict) -> torch.Tensor:
    """Return motion slots of 4 frames each; a tail of 1 or 5 frames belongs to the pixel-space layouts."""
    frames = motion.get(FRAMES_KEY)
    if frames is not None and frames.shape[0] % 4:
        raise ValueError(
            f"motion holds {frames.shape[0]} frames, which is for pixel-space layouts; padding 'zero latent' (2.0 Pro) takes "
            "4, 8 or 12: change num_motion_frames of SVI Motion Latent."
        )
    return samples_of(motion, "motion")
