"""MultiTalk's frozen audio layers on the transformer that is trained.

They run after a block's cross-attention, at ComfyUI's ``attn2_patch``, as in generation with SVI Talk. ComfyUI passes the
block's index in a dictionary that all blocks share. A checkpointed block runs again in the backward pass, when the dictionary
holds another block's index, so each block gets a dictionary of its own.
Source: docs/METHOD.md, 7.2 (audio projection; ungated attention of each slot to its own 32 tokens).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from svi_core.conditioning.talk import WINDOW, slot_windows


@dataclass
class SpeechLayers:
    """The frozen audio layers of a transformer.

    Attributes:
        model: `audio_proj` and `blocks`, on the device of the transformer, in its compute dtype.
        patch: ComfyUI's ``attn2_patch``, which runs the block of `model` whose index it is given.
        fingerprint: hash of the file that they came from.
    """

    model: nn.Module = field(repr=False)
    patch: Callable[..., Tensor] = field(repr=False)
    fingerprint: str

    @torch.no_grad()
    def tokens(self, heard: Sequence[Tensor]) -> Tensor:
        """Return the audio tokens of each latent slot of each clip, [B, F, 32, channels].

        Args:
            heard: [T + 4, layers, channels] of each clip, the "sound" of `TrainingExample.extras`; zeros are silence.

        Raises:
            ValueError: the features come from another speech encoder than the layers were trained with.
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
        """Return the transformer options that condition a batch on audio `tokens`."""
        return {"patches": {"attn2_patch": [self._hear]}, "audio_embeds": tokens.flatten(0, 1)[None]}

    @torch.compiler.disable
    def _hear(self, inputs: Mapping[str, object]) -> Tensor:
        """Run a block's audio layers, outside compiled code, which would be compiled anew for each block's index."""
        return self.patch(inputs)

    def attach(self, transformer: nn.Module) -> None:
        """Give every block of `transformer` its own index, whatever else is wrapped around the block's forward.

        Raises:
            ValueError: the layers belong to a model of another size.
        """
        num_layers, width = len(self.model.blocks), self.model.blocks[0].audio_cross_attn.dim
        if transformer.dim != width or len(transformer.blocks) > num_layers:
            raise ValueError(
                f"model.audio_patch has audio layers for {num_layers} blocks of width {width}, but the model has "
                f"{len(transformer.blocks)} blocks of width {transformer.dim}: use Wan 2.1 I2V 14B with multitalk."
            )
        for index, block in enumerate(transformer.blocks):
            block.register_forward_pre_hook(functools.partial(_with_index, index), with_kwargs=True)


def _with_index(index: int, _block: nn.Module, inputs: tuple, conditions: Mapping[str, object]) -> tuple[tuple, dict]:
    """Return a block's arguments with transformer options of its own, which hold its `index`."""
    return inputs, {**conditions, "transformer_options": {**conditions["transformer_options"], "block_index": index}}
