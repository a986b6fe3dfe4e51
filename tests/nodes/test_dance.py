"""Pose tokens inside ComfyUI's own Wan model: against a forward by hand, per pass, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svi_core.video.video_file import VideoCoding, write_video
from tests.nodes.conftest import load_diffusion_model

DIM = 64  # of the tiny models
SLOTS, HEIGHT, WIDTH = 3, 4, 6  # of a latent: 9 frames of 48 x 32 pixels


@pytest.fixture(scope="module")
def model(comfy, tiny_models):
    return load_diffusion_model(tiny_models, "wan2.1_i2v_480p_14B_fp16.safetensors")


@pytest.fixture(scope="module")
def dance(pack):
    return sys.modules[f"{pack.__name__}.nodes.dance"]


@pytest.fixture(scope="module")
def core(pack):
    """The pack's own svi_core, whose classes the nodes compare with."""

    class Core:
        clips = sys.modules[f"{pack.__name__}.svi_core.clips.clip_plan"]
        dance = sys.modules[f"{pack.__name__}.svi_core.conditioning.dance"]
        layouts = sys.modules[f"{pack.__name__}.svi_core.systems.layouts"]
        pose_video = sys.modules[f"{pack.__name__}.svi_core.conditioning.pose_video"]
        schedule = sys.modules[f"{pack.__name__}.svi_core.schedule.text"]

    return Core


def encoder_of(core, dim=DIM, seed=0):
    encoder = core.dance.PoseEncoder(dim)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in encoder.state_dict().items():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.1 if name.endswith("bias") else 0.2))
    return encoder.requires_grad_(False)


def poses_of(num_frames: int) -> torch.Tensor:
    return torch.rand(num_frames, 32, 48, 3, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def make_control(dance, core):
    def make(num_poses=20, **options):
        poses = core.pose_video.pose_images(poses_of(num_poses))
        return dance.DanceControl(poses, encoder_of(core), "svi-dance.safetensors", **options)

    return make


def request_at(core, start_frame=0, num_frames=9, name="Dance"):
    layout = core.layouts.make_layout(name, num_frames)
    return core.clips.ClipRequest(0, core.schedule.ClipSpec("a"), 0, layout, True, start_frame=start_frame)


def inputs_of(passes=2):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, 36, SLOTS, HEIGHT, WIDTH, generator=generator).repeat(passes, 1, 1, 1, 1)
    context = torch.randn(1, 12, 32, generator=generator).repeat(passes, 1, 1)
    clip_features = torch.randn(1, 257, 1280, generator=generator).repeat(passes, 1, 1)
    return {"x": x, "timestep": torch.full((passes,), 700.0), "context": context, "clip_fea": clip_features}


@torch.no_grad()
def velocity(model, patched=None, passes=(0, 1), inputs=None):
    """Run the network as ComfyUI's sampler does, with the patches of the clone `patched`."""
    options = dict((patched or model).model_options["transformer_options"], cond_or_uncond=list(passes))
    return model.model.diffusion_model(**(inputs or inputs_of(len(passes))), transformer_options=options)


@torch.no_grad()
def velocity_by_hand(model, tokens, passes):
    """The same network, with `tokens` [1, L, dim] put onto the patch embedding's own output, [B, dim, F, h, w]."""
    embedding = model.model.diffusion_model.patch_embedding
    grid = tokens.transpose(1, 2).reshape(1, DIM, SLOTS, HEIGHT // 2, WIDTH // 2)
    handle = embedding.register_forward_hook(
        lambda module, inputs, output: output + torch.cat([grid if added else 0 * grid for added in passes])
    )
    try:
        return velocity(model, passes=tuple(range(len(passes))))
    finally:
        handle.remove()


def latent() -> torch.Tensor:
    return torch.zeros(1, 16, SLOTS, HEIGHT, WIDTH)


@pytest.mark.parametrize(("in_negative", "added"), [(True, (True, True)), (False, (True, False))])
def test_the_tokens_are_added_after_the_patch_embedding_in_the_passes_asked_for(model, core, make_control, in_negative, added):
    control = make_control(in_negative=in_negative)
    patched = control.patched(model, request_at(core, 8), latent())
    poses = (poses_of(20)[8:17] * 255).round().to(torch.uint8)
    tokens = core.dance.encode_poses(encoder_of(core), poses, torch.float32)
    assert tokens.std() > 0.1
    found, plain = velocity(model, patched), velocity(model)
    assert torch.allclose(found, velocity_by_hand(model, tokens, added), atol=1e-5)
    assert not torch.allclose(found[0], plain[0], atol=1e-3)
    assert torch.allclose(found[1], plain[1], atol=1e-6) is not in_negative


def test_passes_are_told_apart_by_comfys_numbers_whatever_their_order(model, core, make_control):
    patched = make_control(in_negative=False).patched(model, request_at(core), latent())
    both = velocity(model, patched, passes=(1, 0))
    plain = velocity(model, passes=(1, 0))
    assert torch.allclose(both[0], plain[0], atol=1e-6) and not torch.allclose(both[1], plain[1], atol=1e-3)
    alone = velocity(model, patched, passes=(1,))
    assert torch.allclose(alone, velocity(model, passes=(1,)), atol=1e-6)


def test_the_model_itself_is_left_alone(model, core, make_control):
    before = velocity(model)
    make_control().patched(model, request_at(core), latent())
    assert "patches_replace" not in model.model_options["transformer_options"]
    assert torch.equal(velocity(model), before)


def test_another_replacement_of_block_0_still_runs(model, core, make_control):
    """As skip-layer guidance and caches set one: it gets the tokens with the poses."""
    seen = []

    def other(args, extra):
        seen.append(args["img"].clone())
        return extra["original_block"](args)

    with_other = model.clone()
    with_other.set_model_patch_replace(other, "dit", "double_block", 0)
    plain = velocity(model, with_other)
    patched = make_control().patched(with_other, request_at(core), latent())
    with_poses = velocity(model, patched)
    assert len(seen) == 2 and not torch.allclose(seen[0], seen[1], atol=1e-3)
    assert torch.allclose(with_poses, velocity(model, make_control().patched(model, request_at(core), latent())), atol=1e-6)
    assert not torch.allclose(plain, with_poses, atol=1e-3)


def test_the_encoder_runs_once_per_clip_and_not_per_step(model, core, dance, make_control, monkeypatch):
    counted = []
    real = dance.encode_poses
    monkeypatch.setattr(dance, "encode_poses", lambda *arguments: counted.append(1) or real(*arguments))
    patched = make_control().patched(model, request_at(core), latent())
    for _ in range(3):
        velocity(model, patched)
    assert len(counted) == 1


def test_tokens_follow_the_model_to_its_device_and_keep_their_dtype(model, core, make_control):
    patched = make_control().patched(model, request_at(core), latent())
    patch = patched.model_options["transformer_options"]["patches_replace"]["dit"][("double_block", 0)]
    assert patch.tokens.dtype is model.model.get_dtype_inference()
    patched.model_patches_to(torch.device("meta"))
    assert patch.tokens.device.type == "meta"
    patched.model_patches_to(torch.bfloat16)
    assert patch.tokens.dtype is model.model.get_dtype_inference()
    patch.tokens = torch.zeros(1)  # ComfyUI moves patches once more when the clone goes, and meta tensors cannot come back


def test_a_part_of_the_clip_is_refused(model, core, make_control):
    """Context windows hand the model fewer slots; adding the first ones' poses to them would be wrong."""
    patched = make_control().patched(model, request_at(core), latent())
    inputs = inputs_of()
    inputs["x"] = inputs["x"][:, :, 1:]
    with pytest.raises(ValueError, match=r"poses are for \(3, 2, 3\) tokens.*works on \(2, 2, 3\): .*context windows"):
        velocity(model, patched, inputs=inputs)


def test_keys_follow_the_poses_that_a_clip_shows(core, dance, make_control):
    """20 poses, clips of 9 frames that share one: a change of pose 12 belongs to the second clip alone."""
    images = poses_of(20)
    changed = images.clone()
    changed[12] = 0.5
    controls = [dance.DanceControl(core.pose_video.pose_images(poses), encoder_of(core), "x") for poses in (images, changed)]
    keys = [[control.determinants(request_at(core, start)) for start in (0, 8, 16)] for control in controls]
    assert [a == b for a, b in zip(*keys, strict=True)] == [True, False, True]
    hold = make_control(when_poses_end=core.pose_video.WhenPosesEnd.HOLD)
    loop, held = ([c.determinants(request_at(core, start)) for start in (0, 8, 16)] for c in (make_control(), hold))
    assert [a == b for a, b in zip(loop, held, strict=True)] == [True, True, False]  # pose 20 would be in the third clip
    other = dance.DanceControl(controls[0].poses, encoder_of(core, seed=1), "x")
    assert other.determinants(request_at(core)) != keys[0][0]
    assert make_control(in_negative=False).determinants(request_at(core)) != make_control().determinants(request_at(core))


def test_where_the_video_ends(core, make_control):
    loop, stop, hold = core.pose_video.WhenPosesEnd
    assert [make_control(when_poses_end=end).num_frames for end in (loop, stop, hold)] == [0, 20, 0]


def test_a_layout_that_pads_otherwise_is_refused(model, core, make_control):
    control = make_control()
    control.check(model, core.layouts.LAYOUTS["Dance"], 48, 32)
    for name in ("2.0 Pro", "Film"):
        with pytest.raises(ValueError, match=f"layout is '{name}'.*choose Dance in SVI Layout"):
            control.check(model, core.layouts.LAYOUTS[name], 48, 32)


def test_an_encoder_for_another_size_of_wan_is_refused_with_both_numbers(model, core, dance, make_control):
    control = dance.DanceControl(make_control().poses, encoder_of(core, dim=48), "svi-dance.safetensors")
    with pytest.raises(ValueError, match="encoder of svi-dance.safetensors makes tokens 48 wide, but model's are 64 wide"):
        control.check(model, core.layouts.LAYOUTS["Dance"], 48, 32)


def test_wan_22_is_warned_of(tiny_models, core, make_control, caplog):
    model = load_diffusion_model(tiny_models, "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors")
    make_control().check(model, core.layouts.LAYOUTS["Dance"], 48, 32)
    assert "model is not Wan 2.1 I2V" in caplog.text


def write_dance_file(folder: Path, core, name="svi-dance.safetensors") -> None:
    state = encoder_of(core).state_dict()
    save_file({f"pipe.dwpose_embedding.{key}": tensor.half() for key, tensor in state.items()}, folder / name)


def execute(pack, poses, lora="svi-dance.safetensors", end="loop", in_negative=True, layout=None, control=()):
    return pack.nodes.SVIDance.execute(poses, lora, end, in_negative, layout, control).args


def video_of(path: Path, num_frames: int, frame_rate: float = 24.0) -> Path:
    grey = (np.arange(num_frames) * 3 + 10).astype(np.uint8)
    write_video(path, [np.repeat(grey, 32 * 48 * 3).reshape(-1, 32, 48, 3)], VideoCoding(crf=0, frame_rate=frame_rate))
    return path


def test_a_video_file_its_part_and_its_frames_as_images(pack, core, loras, tmp_path):
    from comfy_api.latest import InputImpl

    write_dance_file(loras, core)
    video = InputImpl.VideoFromFile(str(video_of(tmp_path / "pose.mp4", 60)))
    (control,), num_clips = execute(pack, video, layout=core.layouts.make_layout("Dance", 9))
    assert (len(control.poses.digests), control.frame_rate, num_clips) == (60, 24.0, 8)  # 8 * 8 + 1 = 65
    assert execute(pack, video)[1] == 1  # clips of 81 frames
    (part,), _ = execute(pack, video.as_trimmed(1.0, 0.5))
    assert part.poses.digests == control.poses.digests[24:36]
    images = torch.from_numpy(np.stack(list(core.pose_video.read_frames(tmp_path / "pose.mp4")))).float() / 255
    (loose,), _ = execute(pack, images)
    assert loose.poses.digests == control.poses.digests and loose.frame_rate is None


def test_a_video_in_memory_has_a_rate_too(pack, core, loras):
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    write_dance_file(loras, core)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=poses_of(12), frame_rate=Fraction(30)))
    (control,), _ = execute(pack, video)
    assert len(control.poses.digests) == 12 and control.frame_rate == 30.0


def test_controls_are_chained_but_poses_once(pack, core, loras):
    write_dance_file(loras, core)
    other = object()
    controls, _ = execute(pack, poses_of(9), control=(other,))
    assert controls[0] is other and len(controls) == 2
    with pytest.raises(ValueError, match="already follows a pose video: use one SVI Dance"):
        execute(pack, poses_of(9), control=controls)


def test_files_without_pose_encoder_and_missing_files_are_refused_by_name(pack, core, loras):
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 8)}, loras / "svi-shot.safetensors")
    with pytest.raises(ValueError, match="svi-shot.safetensors holds no pose encoder"):
        execute(pack, poses_of(9), "svi-shot.safetensors")
    with pytest.raises(FileNotFoundError, match="gone.safetensors"):
        execute(pack, poses_of(9), "gone.safetensors")
