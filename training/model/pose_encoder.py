"""SVI-Dance's pose encoder, trained together with the LoRA and saved in the LoRA's file.

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
    """A pose encoder that is trained.

    Attributes:
        encoder: in fp32, on the model's device.
    """

    def __init__(self, encoder: PoseEncoder, device: torch.device | str = "cpu"):
        self.encoder = encoder.to(device).requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        """Return all trainable parameters, in the order of the layers."""
        return list(self.encoder.parameters())

    @property
    def num_parameters(self) -> int:
        """Count of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tokens(self, poses: Sequence[Tensor | None]) -> Tensor | None:
        """Return the tokens [B, F * H / 16 * W / 16, dim] of a batch in fp32, or None if no example has poses.

        Args:
            poses: [T, H, W, 3] uint8 of each example; an example without poses gets zero tokens, as with dropped poses.
        """
        encoded = [None if frames is None else self._encode(frames) for frames in poses]
        known = next((tokens for tokens in encoded if tokens is not None), None)
        if known is None:
            return None
        return torch.stack([torch.zeros_like(known) if tokens is None else tokens for tokens in encoded])

    def complete_gradients(self) -> None:
        """Give parameters without a gradient a gradient of zero, so that all processes sum the same tensors."""
        for parameter in self.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights under ``dwpose_embedding.<name>``, as in svi-dance."""
        return {POSE_KEY + name: tensor.detach() for name, tensor in self.encoder.state_dict().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the weights of :meth:`state_dict`.

        Raises:
            RuntimeError: they belong to another encoder.
        """
        self.encoder.load_state_dict(pose_state(tensors))

    def _encode(self, poses: Tensor) -> Tensor:
        """Return the tokens [N, dim] of one clip, encoded a few slots at a time. The backward pass recomputes each part."""
        parts = [
            checkpoint(self._encode_part, seen, kept, use_reentrant=False, preserve_rng_state=False)
            for seen, kept in pose_parts(poses)
        ]
        return torch.cat(parts)

    def _encode_part(self, seen: Tensor, kept: slice) -> Tensor:
        frames = seen.to(next(self.encoder.parameters()).device).movedim(-1, 0)[None].float() / 255.0
        return self.encoder(frames)[0, :, kept].flatten(1).T


def start_pose_encoder(path: Path | None, dim: int, generator: torch.Generator) -> PoseEncoder:
    """Return the encoder that training starts from: the one in `path`, or a fresh one whose tokens are zero.

    A fresh encoder has Kaiming-normal weights and zero biases. Its last layer is zero, so training starts from the plain model.

    Raises:
        ValueError: the file holds no pose encoder, or one for a model of another width than `dim`.
    """
    if path is None:
        return _fresh(dim, generator)
    encoder = read_pose_encoder(path)
    if encoder.dim != dim:
        raise ValueError(
            f"model.pose_encoder: {path.name} makes tokens of width {encoder.dim}, but the model's tokens have width {dim}: "
            "use an encoder for this size of Wan."
        )
    return encoder


def split_poses(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the LoRA's tensors and the pose encoder's tensors."""
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
