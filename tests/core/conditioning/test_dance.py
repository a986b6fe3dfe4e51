"""SVI-Dance's pose encoder against plain loops, and its files."""

import math

import pytest
import torch
from safetensors.torch import save_file

from svi_core.conditioning.dance import (
    PoseEncoder,
    build_pose_encoder,
    encode_poses,
    encoding_bytes,
    pose_state,
    read_pose_encoder,
)
from svi_core.systems.layouts import LAYOUTS, Condition, Overlap, Padding

DIM = 5
# docs/METHOD.md, 8.2: 3->16 k3 s1; 16->16 k3 s1 twice; k3 s(1,2,2); k3 s2; k3 s2; 16->dim k(1,2,2) s(1,2,2).
STRIDES = [(1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)]


def random_state(dim: int = DIM, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(7):
        shape = (dim, 16, 1, 2, 2) if layer == 6 else (16, 3 if layer == 0 else 16, 3, 3, 3)
        fan_in = math.prod(shape[1:])
        state[f"{2 * layer}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        state[f"{2 * layer}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return state


def poses_of(num_frames: int, width: int = 32, height: int = 16, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)


def slow_convolution(x, weight, bias, stride, padding):
    """A convolution as the sum it is: one shifted, strided copy of the padded input for each place of the kernel."""
    padded = torch.zeros(x.shape[0], *(side + 2 * padding for side in x.shape[1:]), dtype=torch.float64)
    padded[:, *(slice(padding, padding + side) for side in x.shape[1:])] = x
    sizes = [(n - k) // s + 1 for n, k, s in zip(padded.shape[1:], weight.shape[2:], stride, strict=True)]
    out = bias.double().reshape(-1, 1, 1, 1).expand(-1, *sizes).clone()
    for place in torch.cartesian_prod(*(torch.arange(k) for k in weight.shape[2:])).tolist():
        view = [slice(p, p + s * (n - 1) + 1, s) for p, s, n in zip(place, stride, sizes, strict=True)]
        out += torch.einsum("oc,cthw->othw", weight.double()[:, :, *place], padded[:, *view])
    return out


def slow_tokens(state: dict[str, torch.Tensor], poses: torch.Tensor) -> torch.Tensor:
    """Return the tokens of docs/METHOD.md, 8.2, from the whole clip at once, written out in float64."""
    x = torch.cat([poses[:1], poses[:1], poses[:1], poses]).double().permute(3, 0, 1, 2) / 255
    for layer, stride in enumerate(STRIDES):
        x = slow_convolution(x, state[f"{2 * layer}.weight"], state[f"{2 * layer}.bias"], stride, 1)
        x = x / (1 + torch.exp(-x))
    x = slow_convolution(x, state["12.weight"], state["12.bias"], (1, 2, 2), 0)
    return torch.stack([x[:, f, h, w] for f in range(x.shape[1]) for h in range(x.shape[2]) for w in range(x.shape[3])])[None]


@pytest.mark.parametrize("num_frames", [5, 9, 41])
def test_tokens_are_those_of_plain_loops(num_frames):
    state, poses = random_state(), poses_of(num_frames)
    tokens = encode_poses(build_pose_encoder(state, "x"), poses, torch.float32)
    assert tokens.shape == (1, (num_frames + 3) // 4 * 1 * 2, DIM)
    expected = slow_tokens(state, poses)
    assert expected.std() > 0.05
    assert torch.allclose(tokens.double(), expected, atol=1e-5)


def test_81_frames_become_21_slots():
    """docs/METHOD.md, 8.2: 81 -> 84 frames -> [1, dim, 21, H/16, W/16]."""
    tokens = encode_poses(build_pose_encoder(random_state(2), "x"), poses_of(81, 16, 48), torch.bfloat16)
    assert tokens.shape == (1, 21 * 3 * 1, 2) and tokens.dtype is torch.bfloat16


def test_tokens_are_in_the_order_of_patches_and_see_near_poses_only():
    """A change of one pose changes the slots around it, slot 0 holding frame 0 alone, slot k frames 4k-3 .. 4k."""
    encoder, poses = build_pose_encoder(random_state(), "x"), poses_of(41)
    changed = poses.clone()
    changed[24] = 255 - changed[24]  # slot 6
    difference = (encode_poses(encoder, poses, torch.float32) - encode_poses(encoder, changed, torch.float32)).abs()
    by_slot = difference.reshape(11, -1).amax(1)
    assert by_slot.nonzero().flatten().tolist() == [5, 6, 7, 8]  # frame 24 + 3 repeats = 27: kernels reach 1 before, 2 after


def test_memory_does_not_grow_with_the_clip(monkeypatch):
    seen = []
    forward = PoseEncoder.forward
    monkeypatch.setattr(PoseEncoder, "forward", lambda self, x: seen.append(x.shape) or forward(self, x))
    for num_frames in (41, 401):
        encode_poses(build_pose_encoder(random_state(), "x"), poses_of(num_frames, 16, 16), torch.float32)
    assert max(shape[2] for shape in seen) == 20
    assert encoding_bytes(832, 480) == 4 * 16 * 20 * 480 * 832 * 4


def lora_file(path, prefix: str, state: dict[str, torch.Tensor], dtype=torch.float32):
    tensors = {f"{prefix}dwpose_embedding.{key}": tensor.to(dtype) for key, tensor in state.items()}
    tensors["pipe.dit.blocks.0.self_attn.q.lora_A.default.weight"] = torch.zeros(2, 8)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("prefix", ["", "pipe.", "pipe.dit.", "model.pipe.", "diffusion_model.", "module._orig_mod."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_is_read_whatever_stands_before_its_keys(tmp_path, prefix, dtype):
    state = random_state()
    encoder = read_pose_encoder(lora_file(tmp_path / "svi-dance.safetensors", prefix, state, dtype))
    assert encoder.dim == DIM
    found = encoder.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key].to(dtype).float()) for key in state)


def test_only_the_keys_of_the_encoder_count():
    tensors = {"blocks.0.ffn.0.lora_A.weight": torch.zeros(1), "a.dwpose_embedding.0.default.weight": torch.ones(1)}
    assert pose_state(tensors) == {"0.weight": torch.ones(1)}


def test_a_file_without_pose_encoder_is_refused_by_name(tmp_path):
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 8)}, tmp_path / "svi-shot.safetensors")
    with pytest.raises(ValueError, match=r"svi-shot.safetensors holds no pose encoder .*'dwpose_embedding\.'"):
        read_pose_encoder(tmp_path / "svi-shot.safetensors")


def test_a_pickle_is_refused(tmp_path):
    torch.save({"dwpose_embedding.0.weight": torch.zeros(1)}, tmp_path / "svi-dance.safetensors")
    with pytest.raises(ValueError, match="is a pickle"):
        read_pose_encoder(tmp_path / "svi-dance.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("12.weight"), r"'12.weight': 'missing'"),
        (lambda state: state.pop("4.bias"), r"'4.bias': 'missing'"),
        (lambda state: state.update({"14.weight": torch.zeros(2)}), r"'14.weight': \[2\]"),
        (lambda state: state.update({"0.weight": torch.zeros(16, 4, 3, 3, 3)}), r"'0.weight': \[16, 4, 3, 3, 3\]"),
    ],
)
def test_encoders_of_another_kind_are_refused(tmp_path, change, words):
    state = random_state()
    change(state)
    with pytest.raises(ValueError, match=rf"odd.safetensors holds a pose encoder of another kind.*{words}"):
        read_pose_encoder(lora_file(tmp_path / "odd.safetensors", "", state))


def test_a_fresh_encoder_is_trainable_and_has_the_files_names():
    encoder = PoseEncoder(DIM)
    assert {key: tensor.shape for key, tensor in encoder.state_dict().items()} == {
        key: tensor.shape for key, tensor in random_state().items()
    }
    encoder(torch.rand(1, 3, 8, 16, 16)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_the_layout_is_that_of_the_spec():
    """docs/METHOD.md, 3 and 5.1, reference padding, 1 motion frame; the later clip's copy of the shared frame is kept."""
    dance = LAYOUTS["Dance"]
    assert (dance.padding, dance.num_motion_frames) == (Padding.ANCHOR_FRAMES, 1)
    assert (dance.overlap_rule, dance.overlap, dance.num_frames) == (Overlap.KEEP_NEXT, 1, 81)
    assert (dance.frame_rate, dance.condition) == (25, Condition.POSE)
