"""ComfyUI's VAE: frames to latents and back, in ComfyUI's un-normalised latent space."""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from enum import StrEnum

import comfy.ldm.wan.vae
import comfy.model_management
import comfy.taesd.taehv
import torch

from ...svi_core.conditioning.build_y import KnownPart, clip_that_ends_with
from ...svi_core.geometry import LATENT_CHANNELS, require_frame_size
from ...svi_core.out_of_memory import explain_out_of_memory, is_out_of_memory
from ...svi_core.systems.base_model import require_rgb
from ...svi_core.systems.layouts import Layout
from .decode_order import CONTIGUOUS, ORDER, in_order, working_in
from .latents import clip_size, known_part, samples_of
from .lean_decode import lean

MORE_MEMORY = (
    "Finished clips are stored, and Run continues from there: choose a smaller size, fewer frames per clip or fp8 weights, "
    "or start ComfyUI with --lowvram or a larger --reserve-vram."
)


_TYPICAL = 2  # the first chunk that continues from two whole slots, as all after it


class DecodeTiles(StrEnum):
    """When clips are decoded in spatial tiles, which need less memory and have faint seams."""

    AUTO = "auto"  # when memory runs out, from there on
    ALWAYS = "always"
    NEVER = "never"


def encode_frames(vae, frames: torch.Tensor) -> torch.Tensor:
    """Encode `frames` [T, H, W, 3] as one video: [1, 16, F, h, w], un-normalised.

    Raises:
        ValueError: a frame size that is not a multiple of 16, or another VAE than Wan 2.1's.
    """
    require_frame_size(frames.shape[2], frames.shape[1])
    require_wan_vae(vae)
    with lean(vae.first_stage_model):
        return samples_of({"samples": vae.encode(frames[..., :3])}, "what the VAE made")


def near_vae(vae, part: KnownPart | None, num_frames: int) -> KnownPart | None:
    """Return `part` with its frames on the VAE's device, so that the clip of `num_frames` is put together and scaled there.

    A clip of 81 frames at 832 x 480 in fp32 is 388 MB, which the processor would fill and scale in 0.8 s. The VAE comes to the
    device first, since other models may have to leave for it. Where a device lacks memory for the clip, the frames stay on the
    host. Any device gives the same bits.

    Raises:
        ValueError: another VAE than Wan 2.1's.
    """
    if part is None or part.frames is None:
        return part
    require_wan_vae(vae)
    if part.frames.device == vae.device:
        return part
    size = (1, 3, num_frames, *part.frames.shape[1:3])
    memory = vae.memory_used_encode(size, vae.vae_dtype)
    try:
        comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)
        return replace(part, frames=part.frames.to(vae.device))
    except Exception as error:
        if not (comfy.model_management.is_oom(error) or is_out_of_memory(error)):
            raise
    return part


def encode_images(vae, images: torch.Tensor) -> torch.Tensor:
    """Encode each of `images` [N, H, W, 3] as a video of one frame: [N, 16, 1, h, w], un-normalised."""
    return torch.cat([encode_frames(vae, image[None]) for image in images])


def decode_chunks(vae, samples: torch.Tensor, tiles: DecodeTiles = DecodeTiles.AUTO) -> Iterator[torch.Tensor]:
    """Yield the frames [t, H, W, 3] in [0, 1] of one clip [1, 16, F, h, w], bit for bit as a whole VAE decode.

    The causal VAE keeps its state between chunks of 8 frames, so a clip never has to fit in memory. Spatial tiles have the full
    length (temporal tiles would restart the state).
    """
    size, position = clip_size(samples.shape[2], samples), 0
    if tiles is not DecodeTiles.ALWAYS:
        remedy = f"{MORE_MEMORY} Or set decode_tiles of SVI Output to auto."
        is_last_try = tiles is DecodeTiles.NEVER
        try:
            with explain_out_of_memory(f"decoding a clip of {size}", remedy) if is_last_try else nullcontext():
                for chunk in _decode_causally(vae, samples):
                    position += len(chunk)
                    yield chunk
            return
        except Exception as error:
            if is_last_try or not (comfy.model_management.is_oom(error) or is_out_of_memory(error)):
                raise
        logging.warning("SVI: out of memory while decoding; using spatial tiles from frame %d on.", position)
        comfy.model_management.soft_empty_cache()
    tile = {"tile_x": 32, "tile_y": 32, "overlap": 8}
    with explain_out_of_memory(f"decoding a clip of {size}, even in spatial tiles", MORE_MEMORY):
        frames = vae.decode_tiled(samples, **tile, tile_t=samples.shape[2], overlap_t=1)[0, position:]
    yield frames


def decoding_choices(vae, tiles: DecodeTiles) -> tuple[str, ...]:
    """Return by what choice of the user clips are decoded to other bits than by default."""
    if tiles is DecodeTiles.ALWAYS:
        return ("tiled",)
    return ("timed order",) if ORDER.is_asked_for(vae.device) else ()


def _decode_causally(vae, samples: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the frames of slot 0, then of two slots at a time, in the order of ComfyUI's WanVAE.decode."""
    decoder = vae.first_stage_model
    if not isinstance(decoder, comfy.ldm.wan.vae.WanVAE):
        yield vae.decode(samples)[0]
        return
    memory = vae.memory_used_decode(samples.shape, vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)
    latent = decoder.conv2(samples.to(device=vae.device, dtype=vae.vae_dtype))
    state = [None] * comfy.ldm.wan.vae.count_cache_layers(decoder.decoder) if samples.shape[2] > 1 else None
    order = CONTIGUOUS
    for number, start in enumerate((0, *range(1, samples.shape[2], 2))):
        places = slice(start, start + (2 if start else 1))
        with comfy.model_management.cuda_device_context(vae.device), lean(decoder.decoder):
            if number == _TYPICAL and ORDER.is_asked_for(vae.device):
                order = ORDER(decoder.decoder, latent[:, :, places], state)
                latent, *state = in_order(order, (latent, *state))
            with working_in(order, decoder.decoder):
                frames = torch.cat(decoder.decoder(latent[:, :, places], feat_cache=state, feat_idx=[0]), dim=2)
        pixels = vae.process_output(frames.to(vae.vae_output_dtype()))
        yield pixels[0].movedim(0, -1)


def encode_end_image(vae, image: dict, num_frames: int) -> torch.Tensor:
    """Return the last slot [1, 16, 1, h, w] of a grey clip that ends with the picture of the LATENT `image`."""
    picture = known_part(image, "end image")
    frames = near_vae(vae, replace(picture, frames=picture.frames[:1]), num_frames).frames
    return encode_frames(vae, clip_that_ends_with(frames, num_frames))[:, :, -1:]


def hand_over_warnings(layout: Layout, vae_dtype: torch.dtype, tiles: DecodeTiles) -> Iterator[str]:
    """Yield a warning for each reason why frames that pass between clips are less exact than in SVI.

    Source: docs/METHOD.md, 5.3: in bf16, and in tiles, still backgrounds gather artefacts that SVI cannot correct.
    """
    if layout.in_latent_space:
        return
    if vae_dtype is not torch.float32:
        yield _rounding_warning(layout, vae_dtype)
    if tiles is DecodeTiles.ALWAYS:
        yield (
            f"layout {layout.name!r} sends frames through the VAE between clips, and decode_tiles is 'always': the seams of "
            "tiles add up in long videos. Use 'auto'."
        )


def _rounding_warning(layout: Layout, vae_dtype: torch.dtype) -> str:
    """Return the warning about a VAE of `vae_dtype` under a layout that passes frames between clips."""
    dtype = str(vae_dtype).removeprefix("torch.")
    return (
        f"layout {layout.name!r} sends frames through the VAE between clips, and it runs in {dtype}: its rounding adds up in "
        "long videos. Start ComfyUI with --fp32-vae."
    )


def require_wan_vae(vae) -> None:
    """Raise ValueError for a VAE that does not turn RGB frames into Wan 2.1's 16-channel video latents and back."""
    if vae is None:
        raise ValueError("vae is missing: connect Load VAE with wan_2.1_vae.")
    coder = vae.first_stage_model
    known = isinstance(coder, comfy.ldm.wan.vae.WanVAE | comfy.taesd.taehv.TAEHV)
    if vae.latent_channels != LATENT_CHANNELS or vae.latent_dim != 3 or not known:
        raise ValueError(
            f"vae ({type(coder).__name__}) makes {vae.latent_channels}-channel {vae.latent_dim}-dimensional "
            "latents, but SVI needs those of Wan 2.1's VAE (16-channel video): load wan_2.1_vae (Wan 2.2 14B uses it too)."
        )
    if isinstance(coder, comfy.ldm.wan.vae.WanVAE):
        require_rgb("vae", coder.encoder.conv1.weight.shape[1], coder.decoder.head[-1].weight.shape[0])
