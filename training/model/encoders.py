"""VAE, text encoder and CLIP vision, loaded and run by ComfyUI's own code: what training sees is what generation sees.

The only file that knows how ComfyUI encodes. Latents are fp32 and *normalised* (``latent_format.process_in``) on both sides.
A clip is always encoded over its whole length: the VAE is causal, so a tile in time would restart its state and change
every slot after the first. Small cards can use tiles in space, which give the same latent.
Source: docs/METHOD.md, 3.1 (one causal fp32 encode), 2.3 (CLIP vision without crop, penultimate tokens) and 5.3 (VAE).
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from svi_core.conditioning.talk import encode_speech
from svi_core.files.safetensors_file import read_header, read_tensors
from svi_core.geometry import LATENT_CHANNELS, num_latent_slots, require_frame_size
from svi_core.out_of_memory import explain_out_of_memory
from svi_core.systems.base_model import require_rgb
from training.model.comfy_runtime import start_comfy
from training.model.encoder_files import EncoderFiles
from training.model.vae_tiles import MARGIN, encode_in_tiles

start_comfy()  # before the first import of comfy

import comfy.audio_encoders.audio_encoders  # noqa: E402
import comfy.audio_encoders.wav2vec2  # noqa: E402
import comfy.clip_vision  # noqa: E402
import comfy.latent_formats  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402

MORE_MEMORY = "Set data.vae_tile to 256, or close other programs that use the card."
_DECODED_CHUNK = 8  # frames
_TELLING_OF_VAE = ("conv2.weight", "encoder.conv1.weight", "decoder.head.0.gamma", "decoder.head.2.weight")  # its sizes
_STOCK_TEXT_ENCODER = (256384, 4096)  # vocabulary and width of umT5-XXL, the sizes that ComfyUI assumes


class WanEncoders:
    """The encoders of one cache.

    All files are checked at once, before hours of work. Only the text encoder, the largest, is loaded when it is first used.

    Raises:
        ValueError: a file is damaged or holds another model.
    """

    def __init__(self, files: EncoderFiles, vae_tile: int = 0):
        self.files = files
        self.vae_tile = vae_tile
        self.fingerprints: Mapping[str, str] = files.fingerprints()
        _text_encoder_options(files.text_encoder)
        self._vae = load_vae(files.vae)
        self._clip_vision = None if files.clip_vision is None else load_clip_vision(files.clip_vision)
        self._audio_encoder = None if files.audio_encoder is None else load_audio_encoder(files.audio_encoder)

    @cached_property
    def _text_encoder(self):
        return load_text_encoder(self.files.text_encoder)

    def text(self, prompt: str) -> Tensor:
        """Return the embedding [L, D] of `prompt`."""
        return encode_text(self._text_encoder, prompt)

    def release_text_encoder(self) -> None:
        """Free the text encoder's memory for the VAE."""
        if "_text_encoder" in vars(self):
            del self._text_encoder
            unload_encoders()

    def video(self, frames: Tensor) -> Tensor:
        """Return the normalised latent [16, F, h, w] of `frames` [T, H, W, 3]."""
        return encode_video(self._vae, frames, self.vae_tile)

    def vision(self, image: Tensor) -> Tensor | None:
        """Return the CLIP vision tokens [257, 1280] of `image` [H, W, 3], or None without CLIP vision."""
        return None if self._clip_vision is None else encode_vision(self._clip_vision, image)

    def speech(self, samples: Tensor, num_frames: int) -> Tensor:
        """Return the features [num_frames, layers, channels] of `samples` [n] at 16 kHz."""
        comfy.model_management.load_model_gpu(self._audio_encoder.patcher)
        return encode_speech(self._audio_encoder.model, samples.to(self._audio_encoder.load_device), num_frames)


def unload_encoders() -> None:
    """Free the GPU memory of the models that ComfyUI manages: VAE and encoders, not the transformer that is trained."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def load_vae(path: Path) -> comfy.sd.VAE:
    """Load the Wan 2.1 VAE in fp32.

    Raises:
        ValueError: the file is not a safetensors file, or holds another VAE or a part of one.
    """
    shapes = {key: entry["shape"] for key, entry in read_header(path).items() if key != "__metadata__"}
    if "decoder.middle.0.residual.0.gamma" not in shapes or shapes.get("conv2.weight", [LATENT_CHANNELS])[0] != LATENT_CHANNELS:
        raise ValueError(
            f"{path} is not the VAE of Wan 2.1 (16-channel video latents): use wan_2.1_vae.safetensors, which the Wan 2.2 14B "
            "models use too. The VAE of the 5B model and TAE files do not fit."
        )
    _require_whole_vae(path, _TELLING_OF_VAE, shapes)
    require_rgb(str(path), shapes["encoder.conv1.weight"][1], shapes["decoder.head.2.weight"][0])
    tensors, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    vae = comfy.sd.VAE(sd=tensors, dtype=torch.float32, metadata=metadata)
    _require_whole_vae(path, vae.first_stage_model.state_dict(), shapes)
    return vae


def load_text_encoder(path: Path) -> comfy.sd.CLIP:
    """Load umT5-XXL as ComfyUI's CLIPLoader (type wan) does, or a smaller umT5, whose sizes are read from its file.

    Raises:
        ValueError: the file is not a safetensors file, or holds another text encoder.
    """
    options = _text_encoder_options(path)
    return comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.WAN, model_options=options)


def load_clip_vision(path: Path) -> comfy.clip_vision.ClipVisionModel:
    """Load the CLIP vision encoder of Wan 2.1 I2V.

    Raises:
        ValueError: the file is not a safetensors file, or holds no CLIP vision encoder.
    """
    read_header(path)
    encoder = comfy.clip_vision.load(str(path))
    if encoder is None:
        raise ValueError(f"{path} is not a CLIP vision encoder that ComfyUI knows: use clip_vision_h.safetensors.")
    return encoder


def load_audio_encoder(path: Path):
    """Load the speech encoder of SVI-Talk, a wav2vec2, as ComfyUI's Load Audio Encoder does.

    Raises:
        ValueError: the file is not a safetensors file, or holds another encoder.
    """
    try:
        encoder = comfy.audio_encoders.audio_encoders.load_audio_encoder_from_sd(read_tensors(path)[0])
    except RuntimeError as error:
        raise ValueError(f"{path} is not an audio encoder that ComfyUI knows: use chinese-wav2vec2-base.") from error
    if not isinstance(encoder.model, comfy.audio_encoders.wav2vec2.Wav2Vec2Model):
        raise ValueError(f"{path} is not a wav2vec2, whose features SVI-Talk needs: use chinese-wav2vec2-base.")
    return encoder


@torch.no_grad()
def encode_text(text_encoder, prompt: str) -> Tensor:
    """Return the embedding [L, D] of `prompt` in fp32 on the CPU; ComfyUI pads it with zeros to L = 512."""
    embedding = text_encoder.encode_from_tokens(text_encoder.tokenize(prompt))
    return embedding[0].float().cpu()


@torch.no_grad()
def encode_video(vae, frames: Tensor, tile: int = 0) -> Tensor:
    """Return the normalised latent [16, F, h, w] of `frames` in fp32 on the CPU, encoded over its whole length.

    Args:
        vae: what :func:`load_vae` returned.
        frames: [T, H, W, 3] in [0, 1], T = 4n + 1; a single frame is an anchor.
        tile: side in pixels of the spatial tiles, a multiple of 8; 0: none. The latent is the same up to rounding.

    Raises:
        ValueError: Wan cannot take this size or length, or the result is not finite.
        RuntimeError: the device's memory ran out; the message says what helps.
    """
    count, height, width, _ = frames.shape
    num_latent_slots(count)
    require_frame_size(width, height, "frame")
    pixels = frames[..., :3].movedim(-1, 0)[None]
    with explain_out_of_memory(f"encoding {count} frames of {width} x {height}", MORE_MEMORY):
        read = tile + 2 * MARGIN if tile else max(height, width)
        _move_to_device(vae, vae.memory_used_encode((1, 3, count, min(height, read), min(width, read)), vae.vae_dtype))
        latent = _encode(vae, pixels, tile)
    _require_finite(latent, pixels)
    return comfy.latent_formats.Wan21().process_in(latent.float().cpu())[0]


@torch.no_grad()
def encode_vision(clip_vision, image: Tensor) -> Tensor:
    """Return the penultimate CLIP vision tokens [257, 1280] of `image` [H, W, 3], resized whole to 224 x 224 (no crop)."""
    return clip_vision.encode_image(image[None], crop=False)["penultimate_hidden_states"][0].float().cpu()


@torch.no_grad()
def decode(vae, latent: Tensor) -> Iterator[Tensor]:
    """Yield the frames [t, H, W, 3] in [0, 1] of a normalised latent [16, F, h, w], a few at a time, on the CPU."""
    samples = comfy.latent_formats.Wan21().process_out(latent[None].float())
    with explain_out_of_memory(f"decoding {latent.shape[1]} latent slots", MORE_MEMORY):
        frames = vae.decode(samples)[0]
    yield from frames.float().cpu().split(_DECODED_CHUNK)


def _move_to_device(vae, memory: float) -> None:
    """Have ComfyUI move the VAE to its device, and other models off it where `memory` bytes are not free."""
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)


def _encode(vae, pixels: Tensor, tile: int) -> Tensor:
    """Encode [1, 3, T, H, W] without `VAE.encode`, which falls back to blended tiles without being asked."""
    with comfy.model_management.cuda_device_context(vae.device):
        pixels = vae.process_input(pixels).to(vae.device, vae.vae_dtype)
        return encode_in_tiles(vae.first_stage_model, pixels, tile) if tile else vae.first_stage_model.encode(pixels)


def _require_finite(latent: Tensor, pixels: Tensor) -> None:
    bad = int((~latent.isfinite()).sum())
    if not bad:
        return
    if bool(pixels.isfinite().all()):
        made_by = "the VAE's encoder, from finite frames: its file may be damaged (use another), or the card's memory is faulty"
    else:
        made_by = "the frames before the VAE, which are not finite themselves"
    raise ValueError(f"{bad} of {latent.numel()} latent values are NaN or infinite. They come from {made_by}.")


def _require_whole_vae(path: Path, needed: Iterable[str], held: Container[str]) -> None:
    """Refuse a part of a VAE. ComfyUI would leave what is missing at random values."""
    missing = [key for key in needed if key not in held]
    if missing:
        raise ValueError(
            f"{path} is a part of the VAE of Wan 2.1: it lacks {missing[0]}, for example. Use the whole "
            "wan_2.1_vae.safetensors."
        )


def _text_encoder_options(path: Path) -> dict[str, dict[str, int]]:
    """Return the options with which ComfyUI loads the umT5 in `path`; reads its header only.

    Raises:
        ValueError: see :func:`load_text_encoder`.
    """
    shapes = {key: tuple(entry["shape"]) for key, entry in read_header(path).items() if key != "__metadata__"}
    bias = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    if "shared.weight" not in shapes or bias.format(1) not in shapes:  # T5 has the bias in its first block only
        raise ValueError(
            f"{path} is not the text encoder of Wan (umT5): use umt5_xxl_fp8_e4m3fn_scaled.safetensors or similar."
        )
    if shapes["shared.weight"] == _STOCK_TEXT_ENCODER:
        return {}
    return {"umt5xxl_model_config": _umt5_sizes(shapes, heads=shapes[bias.format(0)][1])}


def _umt5_sizes(shapes: dict[str, tuple[int, ...]], heads: int) -> dict[str, int]:
    """Return a umT5's sizes as ComfyUI names them."""
    vocabulary, width = shapes["shared.weight"]
    block = "encoder.block.0.layer."
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_heads": heads,
        "num_layers": sum(key.endswith(".layer.0.SelfAttention.q.weight") for key in shapes),
        "d_kv": shapes[block + "0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes[block + "1.DenseReluDense.wi_0.weight"][0],
    }
