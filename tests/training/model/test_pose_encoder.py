"""SVI-Dance's training: poses join the patch tokens, their encoder learns, and what is saved is what the nodes read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from svi_core.conditioning.dance import PoseEncoder, encode_poses, pose_parts, read_pose_encoder
from svi_core.systems.pose_keys import POSE_KEY
from tests.training.fakes import SHAPE, FakeDataset, make_trainer, settings
from training.method.distributed import Group
from training.method.drops import drop_conditions
from training.method.streams import stream
from training.model.pose_encoder import TrainedPoses, start_pose_encoder
from training.settings.data import DropConfig

pytestmark = pytest.mark.usefixtures("training_mode")
NUM_FRAMES, HEIGHT, WIDTH = 4 * SHAPE[1] - 3, 8 * SHAPE[2], 8 * SHAPE[3]
DIM = 64  # of the tiny random model
DANCE = {"data": {"layout": "Dance"}}


class DancingDataset(FakeDataset):
    """The examples of FakeDataset with random poses."""

    def make(self, index, name="clip"):
        generator = torch.Generator().manual_seed(7000 + index)
        poses = torch.randint(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8)
        return replace(super().make(index, name), extras={"pose": poses})


def random_encoder(seed: int = 0) -> PoseEncoder:
    encoder = start_pose_encoder(None, DIM, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.nn.init.normal_(encoder[-1].weight, std=0.2, generator=torch.Generator().manual_seed(seed + 1))
    return encoder


def write_encoder(path: Path, encoder: PoseEncoder, prefix: str = "pipe.") -> Path:
    save_file({f"{prefix}{POSE_KEY}{name}": tensor for name, tensor in encoder.state_dict().items()}, path)
    return path


def dance_trainer(wan_folder: Path, encoder: Path | None = None, data=None, **sections):
    config = settings(wan_folder / "run", **DANCE, **sections)
    if encoder:
        config = replace(config, model=replace(config.model, pose_encoder=str(encoder)))
    return make_trainer(wan_folder, config, data=data or DancingDataset())


def steps(trainer, count: int) -> list[float]:
    from training.method.erft_step import training_step

    return [training_step(trainer).loss for _ in range(count)]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_tokens_are_those_that_the_node_makes():
    """The slow way: the whole clip at once, its first pose three times more in front."""
    encoder = random_encoder()
    poses = DancingDataset().make(3).extras["pose"]
    tokens = TrainedPoses(encoder).tokens([poses, None])
    frames = torch.cat([poses[:1].expand(3, -1, -1, -1), poses]).movedim(-1, 0)[None].float() / 255.0
    whole = encoder(frames).flatten(2).transpose(1, 2)
    assert tokens.shape == (2, SHAPE[1] * SHAPE[2] // 2 * SHAPE[3] // 2, DIM)
    torch.testing.assert_close(tokens[0], whole[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(tokens[0], encode_poses(encoder, poses, torch.float32)[0]) and not tokens[1].any()
    assert TrainedPoses(encoder).tokens([None, None]) is None


def test_gradients_of_parts_are_those_of_the_whole():
    encoder, poses = random_encoder(), torch.randint(0, 256, (21, 16, 16, 3), dtype=torch.uint8)
    assert len(list(pose_parts(poses))) == 3
    weights = torch.randn(6, DIM, generator=torch.Generator().manual_seed(5))
    frames = torch.cat([poses[:1].expand(3, -1, -1, -1), poses]).movedim(-1, 0)[None].float() / 255.0
    trained = TrainedPoses(encoder)
    (encoder(frames).flatten(2).transpose(1, 2)[0] * weights).sum().backward()
    whole = [parameter.grad.clone() for parameter in trained.parameters()]
    encoder.zero_grad()
    (trained.tokens([poses])[0] * weights).sum().backward()
    for found, expected in zip(trained.parameters(), whole, strict=True):
        torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory", [{}, {"checkpointing": False}, {"swapped_blocks": 3, "offload_block_inputs": True}])
def test_the_forward_is_that_of_tokens_added_by_hand(wan_folder, memory):
    """By hand: the bias of a patch embedding that is different for every place."""
    from training.method.erft_step import conditions_of

    trainer = dance_trainer(wan_folder, write_encoder(wan_folder / "pose.safetensors", random_encoder()), memory=memory)
    example = trainer.data.make(1)
    noisy, sigma = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(2)), torch.tensor([0.7])
    conditions = conditions_of(trainer, [example], [example.y_latent])
    found = trainer.backbone.velocity(noisy, sigma, conditions)
    tokens = encode_poses(trainer.poses.encoder, example.extras["pose"], torch.float32)
    grid = tokens.detach().transpose(1, 2).unflatten(2, (SHAPE[1], SHAPE[2] // 2, SHAPE[3] // 2))
    handle = trainer.backbone.transformer.patch_embedding.register_forward_hook(lambda layer, inputs, output: output + grid)
    by_hand = trainer.backbone.velocity(noisy, sigma, replace(conditions, pose_tokens=None))
    handle.remove()
    plain = trainer.backbone.velocity(noisy, sigma, replace(conditions, pose_tokens=None))
    assert torch.equal(found, by_hand) and not torch.allclose(found, plain, atol=1e-3)


def test_the_gradient_that_reaches_the_encoder_is_right(wan_folder):
    """A step along the gradient of the encoder's last layer changes the loss as much as the gradient says."""
    from training.method.erft_step import draw, predict, weighted_losses

    trainer = dance_trainer(wan_folder, write_encoder(wan_folder / "pose.safetensors", random_encoder()))
    batch = [draw(trainer, trainer.data.example(0, 0, 0), 1, 0)]
    loss = weighted_losses(predict(trainer, batch), batch).sum()
    loss.backward()
    for parameter in (trainer.poses.encoder[0].weight, trainer.poses.encoder[-1].weight):
        size = 1e-3 / float(parameter.grad.norm())
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(parameter.grad, alpha=sign * size)
                values.append(float(weighted_losses(predict(trainer, batch), batch).sum()))
                parameter.sub_(parameter.grad, alpha=sign * size)
        expected = 2 * size * float(parameter.grad.square().sum())
        assert values[0] - values[1] == pytest.approx(expected, rel=0.05)


def test_a_fresh_encoder_changes_nothing_until_it_is_trained(wan_folder):
    dancing, plain = dance_trainer(wan_folder), make_trainer(wan_folder, settings(wan_folder / "run"))
    assert steps(dancing, 1) == steps(plain, 1)
    assert dancing.poses.encoder[-1].weight.any() and steps(dancing, 1) != steps(plain, 1)


def test_without_poses_it_is_the_plain_training_bit_for_bit(wan_folder):
    """All poses left out: the LoRA learns what it learns in Shot, and AdamW without decay leaves the encoder alone."""
    trainer = dance_trainer(wan_folder, write_encoder(wan_folder / "pose.safetensors", random_encoder()), FakeDataset(),
                            optimizer={"weight_decay": 0.0})  # fmt: skip
    before = {key: value.clone() for key, value in trainer.poses.state_dict().items()}
    plain = make_trainer(wan_folder, settings(wan_folder / "run", optimizer={"weight_decay": 0.0}))
    assert steps(trainer, 4) == steps(plain, 4)
    assert same(trainer.lora.state_dict(), plain.lora.state_dict()) and same(trainer.poses.state_dict(), before)


def test_the_encoder_learns_in_its_own_group(wan_folder):
    trainer = dance_trainer(wan_folder, write_encoder(wan_folder / "pose.safetensors", random_encoder()))
    assert [len(group["params"]) for group in trainer.optimizer.param_groups] == [2 * len(trainer.lora.pairs), 14]
    before = {key: value.clone() for key, value in trainer.poses.state_dict().items()}
    steps(trainer, 2)
    after = trainer.poses.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before)


def test_a_step_without_poses_has_a_gradient_of_zero_for_all_processes_to_add_up(wan_folder):
    trainer = dance_trainer(wan_folder, data=FakeDataset())
    steps(trainer, 1)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trainer.poses.parameters())


def test_things_are_left_out_as_often_as_asked():
    config, example = DropConfig(image=0.1, pose=0.145, sound=0.3), DancingDataset().make(0)
    example = replace(
        example, clip_vision=torch.ones(257, 8), extras={"pose": torch.ones(1, 2, 2, 3), "sound": torch.ones(4, 1, 2)}
    )
    counts, both, num = {"image": 0, "pose": 0, "sound": 0}, 0, 4000
    for step in range(num):
        left = drop_conditions(example, config, stream(0, step, 0, "drops"))
        without_image = not left.y_latent.any()
        assert without_image == (not left.mask.any()) == (not left.clip_vision.any()) == (len(left.error_slots) == 0)
        counts["image"] += without_image
        counts["pose"] += "pose" not in left.extras
        counts["sound"] += not left.extras["sound"].any()
        both += without_image and "pose" not in left.extras
    for name, expected in (("image", 0.1), ("pose", 0.145), ("sound", 0.3)):
        deviation = (expected * (1 - expected) / num) ** 0.5
        assert abs(counts[name] / num - expected) < 4 * deviation, (name, counts)
    assert abs(both / num - 0.0145) < 4 * (0.0145 / num) ** 0.5  # they are drawn independently
    assert example.mask.any() and "pose" in example.extras


def test_a_step_leaves_out_what_its_stream_says(wan_folder):
    from training.method.erft_step import draw

    trainer = dance_trainer(wan_folder, drops={"image": 0.5, "pose": 0.5}, recycling={"image_prob": 1.0, "clean_prob": 0.0})
    steps(trainer, 2)
    drawn = [draw(trainer, trainer.data.example(0, 0, 0), 3, slot) for slot in range(40)]
    no_image = [item for item in drawn if not item.example.mask.any()]
    assert 8 < len(no_image) < 32 and 8 < sum("pose" not in item.example.extras for item in drawn) < 32
    assert all(item.injection.image_error is None and not item.inputs.y_latent.any() for item in no_image)
    with_image = [item for item in drawn if item.example.mask.any()]
    assert all(item.injection.image_error is not None for item in with_image)


def test_the_preset_leaves_out_what_the_authors_do():
    from training.settings.reader import load_config

    config = load_config([Path(__file__).resolve().parents[3] / "training/configs/dance.toml"])
    assert (config.drops.image, config.drops.pose, config.drops.sound) == (0.1, 0.145, 0.0)  # docs/METHOD.md, 9.10
    assert (config.data.layout, config.data.frame_rate, config.data.width, config.data.height) == ("Dance", 25, 480, 832)
    with pytest.raises(ValueError, match=r"drops.pose is 1.0"):
        load_config([], ["drops.pose=1.0"])


@pytest.mark.parametrize("file_dtype", ["fp16", "fp32"])
def test_the_saved_file_holds_both_and_everybody_reads_it(wan_folder, tmp_path, file_dtype):
    from svi_core.systems.lora import read_lora
    from training.model.lora_file import save_lora
    from training.run.loop import describe_lora

    trainer = dance_trainer(wan_folder, write_encoder(wan_folder / "pose.safetensors", random_encoder()))
    steps(trainer, 3)
    path = tmp_path / "dance.safetensors"
    save_lora(path, trainer.lora, trainer.backbone, describe_lora(trainer), file_dtype, trainer.poses)
    assert sum(key.startswith("dwpose_embedding.") for key in load_file(path)) == 14
    assert same(read_pose_encoder(path).state_dict(), trainer.poses.encoder.state_dict())
    read = read_lora(path)
    assert len(read.tensors) == 2 * len(trainer.lora.pairs) and read.num_pose_tensors == 14
    assert "Dance" in str(read.variant)
    again = dance_trainer(wan_folder, path)  # and it can be trained on from
    assert same(again.poses.state_dict(), trainer.poses.state_dict())


def test_a_pose_encoder_of_another_size_is_refused(wan_folder, tmp_path):
    with torch.random.fork_rng():
        path = write_encoder(tmp_path / "wide.safetensors", PoseEncoder(DIM + 1))
    with pytest.raises(
        ValueError, match=r"model.pose_encoder: wide.safetensors makes tokens of width 65, but the model's tokens have width 64"
    ):
        dance_trainer(wan_folder, path)
    with pytest.raises(ValueError, match=r"model.pose_encoder is 'gone.safetensors'"):
        dance_trainer(wan_folder, Path("gone.safetensors"))
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="holds no pose encoder"):
        dance_trainer(wan_folder, tmp_path / "lora.safetensors")


def test_poses_of_another_length_are_named(wan_folder):
    from training.method.erft_step import training_step

    class Longer(DancingDataset):
        def make(self, index, name="clip"):
            example = super().make(index, name)
            return replace(example, extras={"pose": torch.cat([example.extras["pose"], example.extras["pose"][:4]])})

    with pytest.raises(ValueError, match=r"the poses make tokens \[1, 24, 64\], but the clip's are \[1, 18, 64\]"):
        training_step(dance_trainer(wan_folder, data=Longer()))


def test_a_run_goes_on_bit_for_bit(wan_folder, tmp_path):
    from training.run.session import run_training

    results = {}
    for name, parts in (("whole", [6]), ("parts", [2, 6])):
        for part in parts:
            config = settings(
                tmp_path / name,
                **DANCE,
                drops={"image": 0.3, "pose": 0.3},
                model={"expert": "high", "path": str(wan_folder / "fp32.safetensors")},
                loop={"steps": part},
            )
            resume = part != parts[0]
            assert run_training(config, Group(), lambda *_: DancingDataset(), resume=resume) == 0
        results[name] = (tmp_path / name / "checkpoints/step_00000006/adapters.safetensors").read_bytes()
        assert read_pose_encoder(tmp_path / name / f"{name}.safetensors").dim == DIM
    assert results["whole"] == results["parts"]


def test_validation_and_plan_know_of_poses(wan_folder):
    from training.run.dry_run import _model_lines
    from training.run.validation import held_out_examples, validate

    trainer = dance_trainer(wan_folder, write_encoder(wan_folder / "pose.safetensors", random_encoder()))
    examples = held_out_examples(trainer)
    with_poses = validate(trainer, examples)
    without = validate(trainer, [replace(example, extras={}) for example in examples])
    assert with_poses != without and not trainer.poses.encoder[0].weight.grad
    first, middle, last = 3 * 16 * 27 + 16, 16 * 16 * 27 + 16, 16 * DIM * 4 + DIM  # docs/METHOD.md, 8.2
    assert f"pose encoder  {first + 5 * middle + last:,} trained parameters" in _model_lines(trainer)
