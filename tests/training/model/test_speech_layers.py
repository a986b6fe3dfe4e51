"""SVI-Talk's training: what a clip hears reaches every block, in the backward pass too, and only the LoRA moves."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from svi_core.files.safetensors_file import read_header
from tests.e2e import tiny_models, tiny_talk_models
from tests.training.fakes import SHAPE, FakeDataset, settings
from training.method.distributed import Group

pytestmark = pytest.mark.usefixtures("training_mode")
LAYERS, CHANNELS = 2, 6  # of the speech features
NUM_FRAMES = 4 * SHAPE[1] - 3
TALK = {"layout": "Talk", "frame_rate": 25}


class HearingDataset(FakeDataset):
    """The examples of FakeDataset with random speech."""

    def make(self, index, name="clip"):
        heard = torch.randn(NUM_FRAMES + 4, LAYERS, CHANNELS, generator=torch.Generator().manual_seed(7000 + index))
        return replace(super().make(index, name), extras={"sound": heard})


@pytest.fixture(scope="module")
def folder(comfy, tmp_path_factory) -> Path:
    """A two-block video model and audio layers for three blocks."""
    folder = tmp_path_factory.mktemp("talk_files")
    tensors, header = tiny_talk_models.talk_diffusion_model("t2v")
    save_file({key: value.float() for key, value in tensors.items()}, folder / "wan.safetensors", header)
    module = tiny_talk_models.multitalk_module(3, blocks=LAYERS, channels=CHANNELS)
    filled = {key: value.float() for key, value in tiny_models.fill_randomly(module, 42).items()}
    generator = torch.Generator().manual_seed(9)
    for key in filled:
        if key.endswith(".bias"):  # so that silence is heard too
            filled[key] = 0.1 * torch.randn(filled[key].shape, generator=generator)
    save_file(filled, folder / "multitalk.safetensors")
    return folder


def config_for(folder: Path, run: Path | str = "", audio_patch: str = "multitalk.safetensors", **sections):
    model = {"expert": "high", "path": str(folder / "wan.safetensors"), "audio_patch": str(folder / audio_patch)}
    return settings(run or folder / "run", data=TALK, model=model, **sections)


def talk_trainer(folder: Path, audio_patch: str = "multitalk.safetensors", data=None, **sections):
    from training.run.assembly import assemble, load_configured_backbone

    config = config_for(folder, audio_patch=audio_patch, **sections)
    return assemble(config, load_configured_backbone(config), data or HearingDataset(), Group(), folder / "run")


def plain_trainer(folder: Path, **sections):
    from training.run.assembly import assemble, load_configured_backbone

    config = settings(folder / "run", model={"expert": "high", "path": str(folder / "wan.safetensors")}, **sections)
    return assemble(config, load_configured_backbone(config), FakeDataset(), Group(), folder / "run")


def steps(trainer, count: int) -> list[float]:
    from training.method.erft_step import training_step

    return [training_step(trainer).loss for _ in range(count)]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def gradients(trainer, slots: tuple[int, ...] = (0, 1)) -> list[torch.Tensor]:
    """Return the LoRA's gradients of one batch; the LoRA is random, so that each matrix gets one."""
    from training.method.erft_step import draw, predict, weighted_losses

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for pair in trainer.lora.pairs.values():
            pair.up.normal_(std=0.1, generator=generator)
    batch = [draw(trainer, trainer.data.example(0, 0, slot), 1, slot) for slot in slots]
    weighted_losses(predict(trainer, batch), batch).sum().backward()
    return [parameter.grad for parameter in trainer.lora.parameters()]


@torch.no_grad()
def by_hand(folder: Path, heard: torch.Tensor):
    """Return MultiTalk's modules loaded plainly, and what they make of `heard`: windows as in docs/METHOD.md, 7.1."""
    module = tiny_talk_models.multitalk_module(3, blocks=LAYERS, channels=CHANNELS)
    module.load_state_dict(load_file(folder / "multitalk.safetensors"))
    windows = torch.stack([heard[frame : frame + 5] for frame in range(NUM_FRAMES)])  # of frame f: f - 2 .. f + 2
    later = []
    for slot in range(1, SHAPE[1]):
        first, second, third, fourth = windows[4 * slot - 3 : 4 * slot + 1]
        later.append(torch.cat([first[:3], second[2:3], third[2:3], fourth[2:]]))
    return module, module.audio_proj(windows[None, :1], torch.stack(later)[None])


@pytest.mark.parametrize("memory", [{}, {"checkpointing": False}, {"swapped_blocks": 2, "offload_block_inputs": True}])
def test_the_forward_is_comfyuis(folder, memory):
    from comfy.ldm.wan.model_multitalk import MultiTalkCrossAttnPatch

    from training.method.erft_step import conditions_of

    trainer, plain = talk_trainer(folder, memory=memory), plain_trainer(folder)
    example = trainer.data.make(1)
    noisy, sigma = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(2)), torch.tensor([0.7])
    conditions = conditions_of(trainer, [example], [example.y_latent])
    found = trainer.backbone.velocity(noisy, sigma, conditions)
    without = replace(conditions, sound_tokens=None)
    assert not torch.allclose(found, plain.backbone.velocity(noisy, sigma, without), atol=1e-3)
    module, tokens = by_hand(folder, example.extras["sound"])
    torch.testing.assert_close(conditions.sound_tokens, tokens, rtol=1e-4, atol=1e-5)
    holder = type("Patcher", (), {"model": module})
    options = {"patches": {"attn2_patch": [MultiTalkCrossAttnPatch(holder)]}, "audio_embeds": conditions.sound_tokens}
    plain.backbone._patches = lambda conditions: options
    with torch.no_grad():
        assert torch.equal(found, plain.backbone.velocity(noisy, sigma, without))


def test_checkpointed_blocks_hear_through_their_own_layers_in_the_backward_pass_too(folder):
    """ComfyUI's number of the block is the last one's by then."""
    kept, recomputed = talk_trainer(folder, memory={"checkpointing": False}), talk_trainer(folder)
    found, expected = gradients(recomputed), gradients(kept)
    assert all(value is not None and value.any() for value in found)
    assert all(torch.equal(value, other) for value, other in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def deep_folder(folder, tmp_path_factory) -> Path:
    """More blocks than variants of one function that PyTorch compiles, all alike, and audio layers that differ."""
    deep, num_blocks = tmp_path_factory.mktemp("deep_talk_files"), 10
    tensors, header = load_file(folder / "wan.safetensors"), read_header(folder / "wan.safetensors")["__metadata__"]
    first = {key.removeprefix("blocks.0."): value for key, value in tensors.items() if key.startswith("blocks.0.")}
    blocks = {f"blocks.{index}.{key}": value.clone() for index in range(num_blocks) for key, value in first.items()}
    save_file(tensors | blocks, deep / "wan.safetensors", header)
    module = tiny_talk_models.multitalk_module(num_blocks, blocks=LAYERS, channels=CHANNELS)
    filled = {key: value.float() for key, value in tiny_models.fill_randomly(module, 42).items()}
    save_file(filled, deep / "multitalk.safetensors")
    return deep


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks, and hides the warning by itself
def test_compiled_blocks_hear_through_their_own_layers(deep_folder, monkeypatch):
    """All blocks share their graphs: PyTorch allows 8 of one function, not one for each block."""
    import torch._dynamo

    expected = gradients(talk_trainer(deep_folder))
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    trainer = talk_trainer(deep_folder, memory={"compile": True, "keep_attention": True})
    try:
        assert all(torch.equal(value, other) for value, other in zip(gradients(trainer), expected, strict=True))
    finally:
        torch._dynamo.reset()


def test_a_batch_hears_what_its_clips_hear_alone(folder):
    trainer = talk_trainer(folder)
    heard = [trainer.data.make(index).extras["sound"] for index in (1, 2)]
    together = trainer.backbone.speech.tokens(heard)
    assert together.shape == (2, SHAPE[1], 32, tiny_talk_models.TOKEN_CHANNELS)
    for index in (0, 1):
        torch.testing.assert_close(together[index : index + 1], trainer.backbone.speech.tokens(heard[index : index + 1]))
    both, first, second = (gradients(talk_trainer(folder), slots) for slots in ((0, 1), (0,), (1,)))
    summed = [one + two for one, two in zip(first, second, strict=True)]
    for found, expected in zip(both, summed, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_layers_that_say_nothing_leave_the_plain_training_bit_for_bit(folder):
    tensors = load_file(folder / "multitalk.safetensors")
    mute = {key: torch.zeros_like(value) if ".proj." in key else value for key, value in tensors.items()}
    save_file(mute, folder / "mute.safetensors")
    trainer, plain = talk_trainer(folder, "mute.safetensors"), plain_trainer(folder)
    assert steps(trainer, 3) == steps(plain, 3)
    assert same(trainer.lora.state_dict(), plain.lora.state_dict())
    assert steps(talk_trainer(folder), 1) != steps(plain_trainer(folder), 1)


def test_a_dropped_sound_is_silence_through_the_layers(folder):
    from training.method.erft_step import draw

    trainer = talk_trainer(folder, drops={"sound": 0.5})
    drawn = [draw(trainer, trainer.data.example(0, 0, 0), 1, slot).example for slot in range(40)]
    silent = [example for example in drawn if not example.extras["sound"].any()]
    assert 8 < len(silent) < 32 and all(example.y_latent.any() for example in drawn)
    _, expected = by_hand(folder, torch.zeros(NUM_FRAMES + 4, LAYERS, CHANNELS))
    torch.testing.assert_close(trainer.backbone.speech.tokens([silent[0].extras["sound"]]), expected)
    assert expected.any()


def test_only_the_lora_is_trained_and_saved(folder, tmp_path):
    from training.model.lora_file import save_lora
    from training.run.loop import describe_lora

    trainer = talk_trainer(folder)
    before = {key: value.clone() for key, value in trainer.backbone.speech.model.state_dict().items()}
    steps(trainer, 2)
    assert same(trainer.backbone.speech.model.state_dict(), before)
    assert not any(parameter.requires_grad for parameter in trainer.backbone.speech.model.parameters())
    assert len(trainer.lora.pairs) == 20 and len(trainer.optimizer.param_groups) == 1
    save_lora(tmp_path / "talk.safetensors", trainer.lora, trainer.backbone, describe_lora(trainer))
    assert len(load_file(tmp_path / "talk.safetensors")) == 40


def test_bf16_hears_too(folder):
    trainer = talk_trainer(folder)
    config = replace(trainer.config, model=replace(trainer.config.model, compute="bf16"))
    from training.run.assembly import assemble, load_configured_backbone

    coarse = assemble(config, load_configured_backbone(config), HearingDataset(), Group(), folder / "run")
    assert next(coarse.backbone.speech.model.parameters()).dtype is torch.bfloat16
    assert steps(coarse, 1)[0] == pytest.approx(steps(trainer, 1)[0], rel=0.05)


def test_a_run_goes_on_bit_for_bit_and_not_with_other_layers(folder, tmp_path):
    from training.run.session import run_training

    results = {}
    for name, parts in (("whole", [4]), ("parts", [2, 4])):
        for part in parts:
            config = config_for(folder, tmp_path / name, drops={"sound": 0.3}, loop={"steps": part})
            assert run_training(config, Group(), lambda *_: HearingDataset(), resume=part != parts[0]) == 0
        results[name] = (tmp_path / name / "checkpoints/step_00000004/adapters.safetensors").read_bytes()
    assert results["whole"] == results["parts"]
    tensors = load_file(folder / "multitalk.safetensors")
    save_file({key: value * 1.5 for key, value in tensors.items()}, folder / "louder.safetensors")
    config = config_for(folder, tmp_path / "whole", "louder.safetensors", loop={"steps": 6})
    with pytest.raises(ValueError, match=r"audio layers \(model.audio_patch\)"):
        run_training(config, Group(), lambda *_: HearingDataset(), resume=True)


def test_what_is_missing_or_of_another_kind_is_named(folder, tmp_path):
    from training.method.erft_step import training_step
    from training.run.assembly import load_configured_backbone
    from training.run.session import require_trainable

    config = config_for(folder)
    require_trainable(config)
    with pytest.raises(ValueError, match=r"'Talk' is trained with MultiTalk's audio layers: set model.audio_patch"):
        require_trainable(replace(config, model=replace(config.model, audio_patch="")))
    with pytest.raises(ValueError, match=r"preset 'talk' trains with sound, but data.layout = 'Shot' does not"):
        require_trainable(settings("run", preset="talk", data={"layout": "Shot"}))
    with pytest.raises(ValueError, match=r"model.audio_patch is .*gone"):
        load_configured_backbone(config_for(folder, audio_patch="gone.safetensors"))
    with pytest.raises(ValueError, match=r"does not hold MultiTalk's audio layers"):
        load_configured_backbone(config_for(folder, audio_patch="wan.safetensors"))
    narrow = tiny_models.fill_randomly(tiny_talk_models.multitalk_module(1, 40, blocks=LAYERS, channels=CHANNELS), 1)
    save_file(narrow, folder / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"layers for 1 blocks of width 40, but the model has 2 blocks of width 80"):
        load_configured_backbone(config_for(folder, audio_patch="narrow.safetensors"))

    class OtherEncoder(FakeDataset):
        def make(self, index, name="clip"):
            return replace(super().make(index, name), extras={"sound": torch.zeros(NUM_FRAMES + 4, 3, CHANNELS)})

    with pytest.raises(ValueError, match=r"has \[3, 6\] features a frame, but model.audio_patch hears 12 numbers, not 18"):
        training_step(talk_trainer(folder, data=OtherEncoder()))


def test_the_preset_is_the_authors():
    from training.settings.reader import load_config

    config = load_config([Path(__file__).resolve().parents[3] / "training/configs/talk.toml"])
    assert (config.drops.image, config.drops.pose, config.drops.sound) == (0.0, 0.0, 0.1)  # docs/METHOD.md, 9.10
    assert (config.data.layout, config.data.frame_rate, config.data.width, config.data.height) == ("Talk", 25, 640, 480)
    assert config.data.default_caption == "the person is speaking"


def test_sample_clips_hear_the_speech_over_and_over():
    from training.run.sample_story import looped_speech

    heard = torch.arange(-2.0, 11.0)[:, None, None]  # frames 0 .. 8, and two more on either side
    assert looped_speech(heard, 8, 5)[:, 0, 0].tolist() == [6, 7, 8, 0, 1, 2, 3, 4, 5]
    assert looped_speech(heard, 0, 5)[:, 0, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]
