"""SVI-Dance's pose encoder as something that is trained beside the LoRA: a parameter group of its own, saved in its file.

Source: docs/METHOD.md, 8.2 (tokens are added to the patch tokens; training begins with UniAnimate-DiT's encoder, in fp32).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from svi_core.conditioning.dance import PoseEncoder, pose_parts, pose_state, read_pose_encoder
from svi_core.systems.pose_keys import POSE_KEY, is_pose_key


class TrainedPoses:
    """A pose encoder with gradients.

    Attributes:
        encoder: fp32, on the device of the model.
    """

    def __init__(self, encoder: PoseEncoder, device: torch.device | str = "cpu"):
        self.encoder = encoder.to(device).requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        """Return all trainable parameters, in the order of the layers."""
        return list(self.encoder.parameters())

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tokens(self, poses: Sequence[Tensor | None]) -> Tensor | None:
        """Return the tokens [B, F * H / 16 * W / 16, dim] of a batch in fp32; None if no example of it has poses.

        Args:
            poses: [T, H, W, 3] uint8 of each example; one that has none gets tokens of zero, as if its poses were left out.
        """
        encoded = [None if frames is None else self._encode(frames) for frames in poses]
        known = next((tokens for tokens in encoded if tokens is not None), None)
        if known is None:
            return None
        return torch.stack([torch.zeros_like(known) if tokens is None else tokens for tokens in encoded])

    def complete_gradients(self) -> None:
        """Give parameters that no example of this step reached a gradient of zero: so processes agree on what they add up."""
        for parameter in self.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights under ``dwpose_embedding.<name>``, as in svi-dance."""
        return {POSE_KEY + name: tensor.detach() for name, tensor in self.encoder.state_dict().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights of :meth:`state_dict`.

        Raises:
            RuntimeError: they are of another encoder.
        """
        self.encoder.load_state_dict(pose_state(tensors))

    def _encode(self, poses: Tensor) -> Tensor:
        """Return the tokens [N, dim] of one clip, a few slots at a time: the backward pass encodes each part again."""
        parts = [
            checkpoint(self._encode_part, seen, kept, use_reentrant=False, preserve_rng_state=False)
            for seen, kept in pose_parts(poses)
        ]
        return torch.cat(parts)

    def _encode_part(self, seen: Tensor, kept: slice) -> Tensor:
        frames = seen.to(next(self.encoder.parameters()).device).movedim(-1, 0)[None].float() / 255.0
        return self.encoder(frames)[0, :, kept].flatten(1).T


def start_pose_encoder(path: Path | None, dim: int, generator: torch.Generator) -> PoseEncoder:
    """Return the encoder that training starts with: that in `path`, or a fresh one whose tokens are zero.

    A fresh one has Kaiming-normal weights and zero biases; its last layer is zero, so that training starts from the plain
    model and the gradient reaches that layer first.

    Raises:
        ValueError: the file has no such encoder, or one for a model that is not `dim` wide.
    """
    if path is None:
        return _fresh(dim, generator)
    encoder = read_pose_encoder(path)
    if encoder.dim != dim:
        raise ValueError(
            f"model.pose_encoder: {path.name} makes tokens {encoder.dim} wide, but the model's are {dim} wide: they belong to "
            "different sizes of Wan."
        )
    return encoder


def split_poses(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the part of `tensors` that is a LoRA, and the part that is a pose encoder."""
    poses = {key: tensor for key, tensor in tensors.items() if is_pose_key(key)}
    return {key: tensor for key, tensor in tensors.items() if key not in poses}, poses


@torch.no_grad()
def _fresh(dim: int, generator: torch.Generator) -> PoseEncoder:
    encoder = PoseEncoder(dim)
    for layer in encoder:
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            layer.bias.zero_()
    encoder[-1].weight.zero_()
    return encoder
