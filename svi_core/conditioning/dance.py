"""SVI-Dance's pose encoder: it turns pose frames into tokens that are added to the patch tokens of a Wan transformer.

Source: SVI (arXiv:2510.09212), spatial conditions; docs/METHOD.md, 8.1 and 8.2 (UniAnimate-DiT's encoder, trained further with
the SVI LoRA).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from ..files.safetensors_file import read_header
from ..geometry import SIZE_MULTIPLE, TEMPORAL_STRIDE
from ..systems.pose_keys import POSE_KEY, is_pose_key

POSE_CHANNELS = 16
_STRIDES = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
_REPEATS = TEMPORAL_STRIDE - 1  # of the first pose, so that frame 0 fills a slot of its own as in the VAE
_SLOTS_AT_ONCE = 2
_SLOTS_SEEN_BEFORE, _SLOTS_SEEN_AFTER = 2, 1  # neighbours that a slot depends on, through the 3-frame kernels


class PoseEncoder(torch.nn.Sequential):
    """Seven convolutions with SiLU in between: [B, 3, 4F, H, W] in [0, 1] -> [B, dim, F, H / 16, W / 16].

    Parameters are named "0.weight", "0.bias", "2.weight" ... "12.bias", as behind :data:`POSE_KEY` in the released file.
    """

    def __init__(self, dim: int):
        """Make an encoder with random weights for a transformer of width `dim`."""
        layers: list[torch.nn.Module] = []
        for index, stride in enumerate(_STRIDES):
            channels = POSE_CHANNELS if index else 3
            layers += [torch.nn.Conv3d(channels, POSE_CHANNELS, 3, stride, padding=1), torch.nn.SiLU()]
        super().__init__(*layers, torch.nn.Conv3d(POSE_CHANNELS, dim, (1, 2, 2), (1, 2, 2)))

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        last = self[-1]
        assert isinstance(last, torch.nn.Conv3d)
        return last.out_channels


def pose_state(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the pose encoder's part of a file's `tensors`, under PoseEncoder's own names; {} if there is none."""
    return {
        key.rpartition(POSE_KEY)[2].replace(".default.", "."): tensor for key, tensor in tensors.items() if is_pose_key(key)
    }


def read_pose_encoder(path: Path, name: str | None = None) -> PoseEncoder:
    """Return the pose encoder in the LoRA file `path`, in fp32; read only its own tensors.

    Raises:
        ValueError: no pose encoder, or one of another architecture; the message calls the file `name`.
    """
    name = name or path.name
    keys = [key for key in read_header(path) if is_pose_key(key)]
    if not keys:
        raise ValueError(
            f"{name} holds no pose encoder (none of its keys contains {POSE_KEY!r}): choose the svi-dance file itself, not a "
            "repack that kept only its LoRA."
        )
    with safe_open(path, "pt") as file:
        return build_pose_encoder(pose_state({key: file.get_tensor(key) for key in keys}), name)


def build_pose_encoder(state: Mapping[str, torch.Tensor], name: str) -> PoseEncoder:
    """Return the pose encoder with the weights `state`, in fp32.

    Raises:
        ValueError: missing or surplus tensors, or other shapes; the message calls their file `name`.
    """
    with torch.device("meta"):
        last = state.get(f"{2 * len(_STRIDES)}.weight")
        encoder = PoseEncoder(1 if last is None else last.shape[0])
    expected = {key: tensor.shape for key, tensor in encoder.state_dict().items()}
    wrong = sorted(expected.keys() ^ state.keys()) or sorted(key for key in expected if expected[key] != state[key].shape)
    if wrong:
        found = {key: list(state[key].shape) if key in state else "missing" for key in wrong[:3]}
        raise ValueError(
            f"{name} holds a pose encoder of another kind than SVI-Dance's seven convolutions: {POSE_KEY}* has {found}. "
            "Download svi-dance again, or convert the file."
        )
    encoder.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    return encoder.requires_grad_(False)


def encoding_bytes(width: int, height: int) -> int:
    """Estimate the bytes that :func:`encode_poses` needs on the device, without the weights."""
    frames = TEMPORAL_STRIDE * (_SLOTS_SEEN_BEFORE + _SLOTS_AT_ONCE + _SLOTS_SEEN_AFTER)
    return 4 * POSE_CHANNELS * frames * height * width * torch.float32.itemsize  # of a layer: input, output, SiLU, workspace


def pose_parts(poses: torch.Tensor) -> Iterator[tuple[torch.Tensor, slice]]:
    """Yield a clip's `poses` [T, H, W, 3] in parts, each with the neighbours that it depends on and the slots to keep.

    The kept slots of all parts together are those of the whole clip.
    """
    frames = [0] * _REPEATS + list(range(len(poses)))
    num_slots = len(frames) // TEMPORAL_STRIDE
    assert len(frames) == num_slots * TEMPORAL_STRIDE, len(poses)
    for first in range(0, num_slots, _SLOTS_AT_ONCE):
        begin, end = max(0, first - _SLOTS_SEEN_BEFORE), min(num_slots, first + _SLOTS_AT_ONCE + _SLOTS_SEEN_AFTER)
        seen = poses[frames[begin * TEMPORAL_STRIDE : end * TEMPORAL_STRIDE]]
        yield seen, slice(first - begin, first - begin + min(_SLOTS_AT_ONCE, num_slots - first))


def encode_poses(encoder: PoseEncoder, poses: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the tokens [1, F * H / 16 * W / 16, dim] of a clip's `poses` [T, H, W, 3] uint8, on the CPU.

    The encoder runs in fp32 on its own device, as in the released code, two slots at a time: memory does not grow with the
    clip, and the result is that of the whole clip at once.
    """
    device = next(encoder.parameters()).device
    _, height, width, _ = poses.shape
    num_tokens = (_REPEATS + len(poses)) // TEMPORAL_STRIDE * (height // SIZE_MULTIPLE) * (width // SIZE_MULTIPLE)
    tokens, done = torch.empty(1, num_tokens, encoder.dim, dtype=dtype), 0
    for seen, kept in pose_parts(poses):
        features = encoder(seen.to(device).movedim(-1, 0)[None].float().div_(255.0))
        part = features[:, :, kept].flatten(2).transpose(1, 2)
        tokens[:, done : done + part.shape[1]] = part
        done += part.shape[1]
    assert done == num_tokens, poses.shape
    return tokens
