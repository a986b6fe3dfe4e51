"""MultiTalk's audio layers on the transformer that is trained: frozen, in ComfyUI's own modules, with a backward.

Each block hears its clip after its cross-attention, where ComfyUI runs ``attn2_patch`` and SVI Talk patches it. ComfyUI tells
the patch by a number in a shared dictionary in which block it runs; a checkpointed block runs again in the backward pass, when
that number is another's, so every block is told its own.
Source: docs/METHOD.md, 7.2 (audio projection; ungated attention of each slot to its own 32 tokens).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from svi_core.conditioning.talk import SLOT_WINDOW, WINDOW, slot_windows
from svi_core.files.fingerprint import large_file_fingerprint
from svi_core.files.safetensors_file import read_tensors
from training.model.comfy_runtime import start_comfy

start_comfy()  # before the first import of comfy

import comfy.ops  # noqa: E402
from comfy.ldm.wan.model_multitalk import (  # noqa: E402
    MultiTalkAudioProjModel,
    MultiTalkCrossAttnPatch,
    WanMultiTalkAttentionBlock,
)

_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass
class SpeechLayers:
    """The frozen audio layers of a transformer.

    Attributes:
        model: `audio_proj` and `blocks`, on the device of the transformer, in its compute dtype.
        fingerprint: hash of the file that they came from.
    """

    model: nn.Module = field(repr=False)
    fingerprint: str

    @torch.no_grad()
    def tokens(self, heard: Sequence[Tensor]) -> Tensor:
        """Return what the slots of each clip hear, [B, F, 32, channels].

        Args:
            heard: [T + 4, layers, channels] of each clip, the "sound" of `TrainingExample.extras`; zeros are silence.

        Raises:
            ValueError: features of another speech encoder than the layers are made for.
        """
        weight = self.model.audio_proj.proj1.weight
        if (size := WINDOW * heard[0][0].numel()) != weight.shape[1]:
            raise ValueError(
                f"the cached speech has {list(heard[0].shape[1:])} features a frame, but model.audio_patch hears "
                f"{weight.shape[1] // WINDOW} numbers, not {size // WINDOW}: set model.audio_encoder to chinese-wav2vec2-base "
                "and run python -m training.cache again."
            )
        windows = [slot_windows(features.to(weight.device, weight.dtype)) for features in heard]
        return self.model.audio_proj(*(torch.cat(parts) for parts in zip(*windows, strict=True)))

    def options(self, tokens: Tensor) -> dict[str, object]:
        """Return the transformer options that let a batch hear `tokens`."""
        patch = MultiTalkCrossAttnPatch(SimpleNamespace(model=self.model))
        return {"patches": {"attn2_patch": [patch]}, "audio_embeds": tokens.flatten(0, 1)[None]}

    def attach(self, transformer: nn.Module) -> None:
        """Tell every block of `transformer` its number; call it before the blocks are made frugal.

        Raises:
            ValueError: the layers belong to another size of model.
        """
        num_layers, width = len(self.model.blocks), self.model.blocks[0].audio_cross_attn.dim
        if transformer.dim != width or len(transformer.blocks) > num_layers:
            raise ValueError(
                f"model.audio_patch has audio layers for {num_layers} blocks of width {width}, but the model has "
                f"{len(transformer.blocks)} blocks of width {transformer.dim}: use Wan 2.1 I2V 14B with multitalk."
            )
        for index, block in enumerate(transformer.blocks):
            block.forward = _told_its_number(block.forward, index)


def load_speech_layers(path: Path, device: torch.device, dtype: torch.dtype) -> SpeechLayers:
    """Load multitalk.safetensors, or a file with the same names.

    Raises:
        ValueError: not a safetensors file, or one without audio layers of MultiTalk.
    """
    tensors = read_tensors(path)[0]
    try:
        model = _empty_layers(tensors)
        model.load_state_dict(tensors, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold MultiTalk's audio layers ({reason}): give multitalk.safetensors.") from error
    return SpeechLayers(model.to(device, dtype).requires_grad_(False).eval(), large_file_fingerprint(path))


def _empty_layers(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return modules of the sizes in `tensors`, without weights; ComfyUI's layers cast theirs to the dtype of what comes in."""
    heard = tensors["audio_proj.proj1.weight"].shape
    width, channels = tensors["blocks.0.audio_cross_attn.proj.weight"].shape[0], tensors["audio_proj.norm.weight"].shape[0]
    num_blocks = 1 + max(int(match[1]) for match in map(_BLOCK.match, tensors) if match)
    made_as = {"device": "meta", "operations": comfy.ops.manual_cast}
    model = nn.Module()
    model.audio_proj = MultiTalkAudioProjModel(
        seq_len=WINDOW,
        seq_len_vf=SLOT_WINDOW,
        blocks=1,  # layers and channels of a frame go in as one row
        channels=heard[1] // WINDOW,
        intermediate_dim=heard[0],
        out_dim=channels,
        context_tokens=tensors["audio_proj.proj3.weight"].shape[0] // channels,
        **made_as,
    )
    model.blocks = nn.ModuleList(WanMultiTalkAttentionBlock(width, channels, **made_as) for _ in range(num_blocks))
    return model


def _told_its_number(forward, index: int):
    """Return `forward` of block `index`, with transformer options of its own that hold the number."""

    def run(x: Tensor, *, transformer_options: Mapping[str, object], **conditions) -> Tensor:
        return forward(x, transformer_options={**transformer_options, "block_index": index}, **conditions)

    return run
