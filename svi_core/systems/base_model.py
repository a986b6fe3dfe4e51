"""Which base models SVI runs on and is trained on: the plain Wan image-to-video transformers, their text and their VAE.

Wan's relatives (HuMo, Animate, Fun-Camera, WanDancer) may have the same 36 input channels, but they expect conditions that SVI
does not give. So the class that ComfyUI loads a file as decides, and its input channels after it.

Source: docs/METHOD.md, 2.1 (input channels); ComfyUI's comfy/supported_models.py and comfy/model_base.py.
"""

I2V_CHANNELS = 36  # 16 noisy + 4 mask + 16 conditioning
_PLAIN = "WAN21"  # the class of the model; programs that speed it up may change the class of its transformer
_OTHER_CHANNELS = {16: " (a text-to-video model)", 48: " (a Fun-Control model)"}
_RELATIVES = {  # ComfyUI's classes of Wan models that SVI does not fit
    "WAN21_Vace": "Wan VACE",
    "WAN21_Camera": "Wan Fun-Camera",
    "WAN21_HuMo": "HuMo",
    "WAN22_Animate": "Wan-Animate",
    "WAN22_S2V": "Wan 2.2 S2V (speech to video)",
    "WAN22": "Wan 2.2 5B",
    "WAN21_CausalAR": "a causal Wan",
    "WAN21_FlowRVS": "FlowRVS",
    "WAN21_SCAIL": "SCAIL",
    "WAN21_SCAIL2": "SCAIL 2",
    "WAN22_WanDancer": "WanDancer",
}
_FITTING = (
    "SVI needs a Wan image-to-video model (36 input channels): load Wan 2.1 I2V 14B or a Wan 2.2 I2V A14B expert, not a T2V, "
    "5B, VACE, Fun, HuMo, Animate, S2V or WanDancer file."
)


def require_plain_i2v(name: str, model: type, transformer: type, in_channels: int) -> None:
    """Refuse every model but a plain Wan image-to-video transformer.

    Args:
        name: what the message calls the model: an input or a file.
        model: its class, from ComfyUI's comfy/model_base.py or derived from one.
        transformer: the class of its diffusion model.
        in_channels: input channels of its patch embedding; 0 if it has none.

    Raises:
        ValueError: the message says what the model is, and which models fit.
    """
    classes = [kind.__name__ for kind in model.__mro__]
    relative = next((_RELATIVES[kind] for kind in classes if kind in _RELATIVES), None)
    if relative or _PLAIN not in classes or not in_channels:
        found = f"(ComfyUI's {model.__name__} with {transformer.__name__})"
        raise ValueError(f"{name} is {relative or 'another model'} {found}, but {_FITTING}")
    if in_channels != I2V_CHANNELS:
        kind = _OTHER_CHANNELS.get(in_channels, "")
        raise ValueError(f"{name} is a model with {in_channels} input channels{kind}, but {_FITTING}")


def require_text_width(name: str, found: int, model: str, expected: int) -> None:
    """Refuse text embeddings that a model cannot read.

    Args:
        name: what holds the embeddings, for the message.
        found: their width.
        model: what the message calls the model.
        expected: the width that it reads.

    Raises:
        ValueError: the message gives both widths.
    """
    if found != expected:
        raise ValueError(
            f"{name} is {found} wide, but {model} reads text embeddings {expected} wide: use the text encoder of Wan, umT5-XXL "
            "(4096 wide; Load CLIP with type wan)."
        )


def require_vision_width(name: str, found: int, model: str, expected: int) -> None:
    """Refuse CLIP vision features that a model cannot read; the arguments are those of :func:`require_text_width`."""
    if found != expected:
        raise ValueError(
            f"{name} makes features {found} wide, but {model} reads CLIP vision features {expected} wide: use clip_vision_h "
            "(1280 wide)."
        )


def require_rgb(name: str, channels_in: int, channels_out: int) -> None:
    """Refuse relatives of Wan 2.1's VAE that make its latents, but of layered or for upscaled pictures.

    Args:
        name: what the message calls the VAE.
        channels_in: colour channels that it encodes.
        channels_out: colour channels that it decodes to.

    Raises:
        ValueError: either is not 3.
    """
    if (channels_in, channels_out) != (3, 3):
        raise ValueError(
            f"{name} encodes {channels_in} and decodes to {channels_out} colour channels, but a video has 3: use wan_2.1_vae, "
            "not the VAE of Qwen-Image-Layered or one that upscales."
        )
