"""The model files that examples are encoded with. Finding them needs no ComfyUI; `training.model.encoders` runs them."""

from dataclasses import dataclass
from pathlib import Path

from svi_core.files.fingerprint import large_file_fingerprint
from svi_core.files.safetensors_file import read_header
from svi_core.systems.base_model import require_text_width, require_vision_width
from training.model.comfy_runtime import find_model
from training.settings.sections import ModelConfig

ENCODER_FOLDERS = {  # ComfyUI's folder of each setting in [model] that names an encoder
    "vae": "vae", "text_encoder": "text_encoders", "clip_vision": "clip_vision", "audio_encoder": "audio_encoders",
}  # fmt: skip

# The tensors whose shapes tell how wide the features are that an encoder makes and a video model reads: end of key, place.
_MADE = {"text_encoder": ("shared.weight", 1), "clip_vision": ("embeddings.patch_embedding.weight", 0)}
_READ = {"text_encoder": ("text_embedding.0.weight", 1), "clip_vision": ("img_emb.proj.0.weight", 0)}


@dataclass(frozen=True)
class EncoderFiles:
    """The model files that examples are encoded with.

    Attributes:
        vae: the Wan 2.1 VAE, which the Wan 2.2 14B models use too.
        text_encoder: umT5-XXL.
        clip_vision: CLIP ViT-H for Wan 2.1 I2V; None for Wan 2.2, which reads no image features.
        audio_encoder: chinese-wav2vec2-base for SVI-Talk; None without sound.
    """

    vae: Path
    text_encoder: Path
    clip_vision: Path | None = None
    audio_encoder: Path | None = None

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each file by its role. The audio encoder is listed only where there is one.

        Raises:
            ValueError: a file is missing or not a safetensors file.
        """
        files = {"vae": self.vae, "text_encoder": self.text_encoder, "clip_vision": self.clip_vision}
        files |= {"audio_encoder": self.audio_encoder} if self.audio_encoder else {}
        for path in files.values():
            if path is not None:
                read_header(path)
        return {role: "" if path is None else large_file_fingerprint(path) for role, path in files.items()}


def find_encoder(model: ModelConfig, role: str) -> Path:
    """Return the file of the encoder that ``model.<role>`` names, a key of :data:`ENCODER_FOLDERS`.

    Raises:
        ValueError: the setting is empty, or there is no such file.
    """
    return find_model(ENCODER_FOLDERS[role], getattr(model, role), f"model.{role}")


def find_encoders(model: ModelConfig, with_sound: bool = False) -> EncoderFiles:
    """Return the encoders' files: CLIP vision if the video model reads it, the audio encoder if examples come `with_sound`.

    Raises:
        ValueError: a file is missing, the video model needs CLIP vision and none is set, or it cannot read what they encode.
    """
    reads_vision = bool(model.clip_vision)
    path = find_model("diffusion_models", model.path, "model.path") if model.path else None
    if path:
        reads_vision = any("img_emb." in key for key in read_header(path))
        if reads_vision and not model.clip_vision:
            raise ValueError(
                f"{model.path} reads image features (Wan 2.1 I2V): set model.clip_vision to clip_vision_h.safetensors."
            )
    files = EncoderFiles(
        vae=find_encoder(model, "vae"),
        text_encoder=find_encoder(model, "text_encoder"),
        clip_vision=find_encoder(model, "clip_vision") if reads_vision else None,
        audio_encoder=find_encoder(model, "audio_encoder") if with_sound else None,
    )
    if path:
        _require_widths(files, path)
    return files


def width_read_by(model: Path, role: str) -> int | None:
    """Return how wide the features of the encoder `role` are that the video model in the file `model` reads, if it tells."""
    return _width(model, *_READ[role])


def _require_widths(files: EncoderFiles, model: Path) -> None:
    """Refuse encoders whose features the video model in the file `model` cannot read."""
    for role, require in (("text_encoder", require_text_width), ("clip_vision", require_vision_width)):
        encoder = getattr(files, role)
        made, read = encoder and _width(encoder, *_MADE[role]), width_read_by(model, role)
        if made and read:
            require(str(encoder), made, str(model), read)


def _width(path: Path, key: str, place: int) -> int | None:
    """Return the length of the dimension `place` of the tensor whose name ends with `key`; None if packed or absent."""
    found = (entry for name, entry in read_header(path).items() if name.endswith(key))
    return next((entry["shape"][place] for entry in found if "F" in entry["dtype"]), None)
