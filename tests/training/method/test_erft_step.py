"""The training step: the target, the errors that are stored, and what happens when a loss or gradient is not finite."""

import math
import threading
from dataclasses import replace

import pytest
import torch

from tests.training.fakes import SHAPE, FakeDataset, make_trainer, settings
from training.method.distributed import Group
from training.method.streams import stream

pytestmark = pytest.mark.usefixtures("training_mode")


def run(trainer, steps: int) -> list[float]:
    from training.method.erft_step import training_step

    return [training_step(trainer).loss for _ in range(steps)]


def state(trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trainer.lora.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def plain_lora_training(wan_folder, steps: int, seed: int = 0) -> tuple[list[float], dict[str, torch.Tensor]]:
    """An ordinary flow-matching LoRA training in a few lines that know nothing of errors or banks."""
    from training.model.adapters import LoraAdapters
    from training.model.conditions import Conditions
    from training.model.loading import load_backbone

    backbone = load_backbone(wan_folder / "fp32.safetensors")
    lora = LoraAdapters(backbone.transformer, rank=4, alpha=4.0, generator=stream(seed, 0, 0, "lora"))
    optimizer = torch.optim.AdamW(lora.parameters(), lr=1e-2, weight_decay=0.01)
    ids = torch.arange(1000)
    s = 1 - ids.double() / 1000
    sigmas = (5 * s / (1 + 4 * s)).float()
    bell = torch.exp(-2 * (sigmas.double() - 0.5) ** 2)
    weights = ((bell - bell.min()) / (bell - bell.min()).mean()).float()
    data, losses = FakeDataset(), []
    for step in range(1, steps + 1):
        example = data.example(seed, step - 1, 0)
        random = stream(seed, step, 0, "noise")
        noise = torch.randn(example.latent.shape, generator=random)
        index = int(torch.randint(0, 358, (1,), generator=random))
        sigma = sigmas[index]
        noisy = (1 - float(sigma)) * example.latent + float(sigma) * noise
        conditions = Conditions(example.y_latent[None], example.mask[None], example.text[None])
        predicted = backbone.velocity(noisy[None], sigma[None], conditions)
        loss = (predicted - (noise - example.latent)).square().mean() * weights[index]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, {key: value.clone() for key, value in lora.state_dict().items()}


@pytest.mark.parametrize(
    "recycling",
    [{"noise_prob": 0.0, "latent_prob": 0.0, "image_prob": 0.0}, {"clean_prob": 1.0}],
    ids=["all probabilities zero", "always clean"],
)
def test_without_errors_it_is_plain_lora_training_bit_for_bit(wan_folder, recycling):
    trainer = make_trainer(wan_folder, settings(recycling=recycling))
    losses, expected = plain_lora_training(wan_folder, 4)
    assert run(trainer, 4) == losses
    assert same(expected, state(trainer)) and len(trainer.banks) == 0


def test_with_errors_it_is_not(wan_folder):
    trainer = make_trainer(wan_folder)
    losses, _ = plain_lora_training(wan_folder, 4)
    ours = run(trainer, 4)
    assert ours[0] == losses[0]  # the bank is empty
    assert ours[1:] != losses[1:] and len(trainer.banks) >= 3


def test_the_same_seed_gives_the_same_run_and_another_seed_another(wan_folder):
    first, again, other = (make_trainer(wan_folder, settings(seed=seed)) for seed in (1, 1, 2))
    assert run(first, 4) == run(again, 4) and same(state(first), state(again))
    assert run(other, 4) != run(again, 4)


def test_the_target_is_the_released_objective(wan_folder):
    """docs/METHOD.md, 9.1: noisy = (1 - sigma)(x + e_vid) + sigma (eps + e_noi), target = eps + e_noi - x."""
    from training.method.erft_step import draw

    trainer = make_trainer(
        wan_folder, settings(recycling={"noise_prob": 1.0, "latent_prob": 1.0, "image_prob": 1.0, "clean_prob": 0.0})
    )
    bank = trainer.banks.of(SHAPE)
    error = torch.randn(SHAPE).bfloat16().float()
    for sigma in bank.grid.sigmas:
        bank.add(error, sigma, torch.Generator().manual_seed(0))
    example = trainer.data.make(0)
    drawn = draw(trainer, example, 1, 0)
    level = bank.grid.sigmas[bank.grid.index(drawn.sigma)]
    noise = torch.randn(SHAPE, generator=stream(0, 1, 0, "noise")) + (1 - level) * error
    latent = example.latent - level * error
    assert torch.allclose(drawn.sample.noisy_latent, (1 - drawn.sigma) * latent + drawn.sigma * noise, atol=1e-5)
    assert torch.allclose(drawn.target, noise - example.latent, atol=1e-5)
    changed = (drawn.inputs.y_latent - example.y_latent).abs().amax(dim=(0, 2, 3))
    assert changed[0] == 0 and changed[1] > 0 and changed[2] == 0  # the anchor stays clean, the motion slot does not


def test_the_residual_of_a_step_is_in_the_bank(wan_folder):
    from training.method.erft_step import draw, predict, training_step

    trainer = make_trainer(wan_folder)
    drawn = draw(trainer, trainer.data.example(0, 0, 0), 1, 0)
    with torch.no_grad():
        expected = (predict(trainer, [drawn])[0] - drawn.target).bfloat16().float()
    result = training_step(trainer)
    bank = trainer.banks.of(SHAPE)
    assert result.num_stored == 1 and len(bank) == 1
    stored = bank.sample_latent_error(drawn.sigma, torch.Generator().manual_seed(0))
    assert torch.allclose(stored, -drawn.sigma * expected, atol=1e-6)


def test_errors_are_stored_beside_the_last_backward_pass_and_after_the_last_draw(wan_folder, monkeypatch):
    """Storing waits here for a gradient of the second of two micro-batches: a step that stored afterwards would hang."""
    from training.method import erft_step

    happened, began = [], threading.Event()
    real_store, real_draw = erft_step.store, erft_step.draw

    def store_late(*arguments):
        assert began.wait(60), "the backward pass waits for the bank"
        happened.append("store")
        return real_store(*arguments)

    def draw(*arguments):
        happened.append("draw")
        return real_draw(*arguments)

    def on_gradient(gradient):
        happened.append("gradient")
        if happened.count("gradient") == 2:
            began.set()
        return gradient

    monkeypatch.setattr(erft_step, "store", store_late)
    monkeypatch.setattr(erft_step, "draw", draw)
    trainer = make_trainer(wan_folder, settings(loop={"accumulation": 2}))
    trainer.lora.parameters()[-1].register_hook(on_gradient)
    assert erft_step.training_step(trainer).num_stored == 2
    assert happened == ["draw", "gradient", "draw", "gradient", "store", "store"]


@pytest.mark.parametrize("loop", [{"batch_size": 4}, {"accumulation": 4}, {"batch_size": 2, "accumulation": 2}])
def test_the_split_into_micro_batches_does_not_matter(wan_folder, loop):
    """Four examples a step are four examples, however many go through the model at once; float sums differ a little."""
    expected = make_trainer(wan_folder, settings(loop={"batch_size": 4}))
    trainer = make_trainer(wan_folder, settings(loop=loop))
    assert run(trainer, 3) == pytest.approx(run(expected, 3), rel=1e-4)
    fills = [[cell.fill for cell in each.banks.of(SHAPE).statistics()] for each in (trainer, expected)]
    assert fills[0] == fills[1]


def test_processes_cover_each_slot_once():
    from training.method.erft_step import _micro_batches

    config = settings(loop={"batch_size": 2, "accumulation": 3})
    slots = []
    for rank in range(4):
        trainer = type("T", (), {"config": config, "group": Group(rank, 4)})()
        slots += [slot for slots_of_one in _micro_batches(trainer) for slot in slots_of_one]
    assert sorted(slots) == list(range(24))


def test_sizes_can_be_mixed_in_a_batch(wan_folder):
    trainer = make_trainer(wan_folder, settings(loop={"batch_size": 4}), data=FakeDataset(mixed=True))
    assert all(math.isfinite(loss) for loss in run(trainer, 3))
    assert set(trainer.banks.statistics()) == {SHAPE, (16, 3, 6, 4)}


def test_training_learns(wan_folder):
    """The loss on fixed noise and noise levels falls."""
    from training.method.erft_step import draw, predict, weighted_losses

    trainer = make_trainer(wan_folder, settings(recycling={"clean_prob": 1.0}, loop={"batch_size": 4}), data=FakeDataset(1))
    fixed = [draw(trainer, trainer.data.make(0), 1000 + index, 0) for index in range(8)]

    def loss() -> float:
        with torch.no_grad():
            return float(weighted_losses(predict(trainer, fixed), fixed).mean())

    before = loss()
    run(trainer, 40)
    assert loss() < 0.8 * before


@pytest.mark.parametrize("storage", ["bf16", "fp8", "fp8_scaled"])
def test_every_storage_trains(wan_folder, storage):
    trainer = make_trainer(wan_folder, storage=storage)
    before = state(trainer)
    assert all(math.isfinite(loss) for loss in run(trainer, 2))
    assert not any(torch.equal(value, before[key]) for key, value in state(trainer).items() if "lora_B" in key)


def test_wan_2_1_trains_with_clip_vision_and_not_without(wan_folder):
    class WithVision(FakeDataset):
        def make(self, index: int, name: str = "clip"):
            vision = torch.randn(257, 1280, generator=torch.Generator().manual_seed(index))
            return replace(super().make(index, name), clip_vision=vision)

    config = settings(loop={"batch_size": 2})
    assert all(math.isfinite(loss) for loss in run(make_trainer(wan_folder, config, data=WithVision(), storage="wan21_i2v"), 2))
    with pytest.raises(ValueError, match="no CLIP vision features"):
        run(make_trainer(wan_folder, config, storage="wan21_i2v"), 1)


class NanDataset(FakeDataset):
    def make(self, index: int, name: str = "clip"):
        example = super().make(index, name)
        return replace(example, latent=torch.full_like(example.latent, math.nan)) if index == 6 else example


def test_a_nan_loss_stops_before_it_reaches_the_lora(wan_folder):
    from training.method.erft_step import TrainingStopped, training_step

    trainer = make_trainer(wan_folder, data=NanDataset())  # step 3 takes clip (31 * 2) % 8 = 6
    run(trainer, 2)
    before, moments = state(trainer), trainer.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    with pytest.raises(TrainingStopped, match=r"step 3 is nan for clip clip6.mp4 at timestep \d+"):
        training_step(trainer)
    assert same(before, state(trainer)) and trainer.step == 2
    assert torch.equal(moments, trainer.optimizer.state_dict()["state"][0]["exp_avg"])


def test_an_infinite_gradient_stops_too(wan_folder):
    from training.method.erft_step import TrainingStopped, training_step

    trainer = make_trainer(wan_folder)
    before = state(trainer)
    trainer.lora.parameters()[3].register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingStopped, match="the gradient of step 1 is"):
        training_step(trainer)
    assert same(before, state(trainer))


def test_clipping_scales_the_gradient(wan_folder):
    from training.method.erft_step import training_step

    trainer = make_trainer(
        wan_folder,
        settings(optimizer={"name": "torch.optim.SGD", "learning_rate": 1.0, "weight_decay": 0.0, "max_gradient_norm": 0.01}),
    )
    before = state(trainer)
    result = training_step(trainer)
    moved = math.sqrt(sum(float((value - before[key]).square().sum()) for key, value in state(trainer).items()))
    assert result.gradient_norm > 0.01 and moved == pytest.approx(0.01, rel=1e-3)


def test_errors_are_injected_as_often_as_asked(wan_folder):
    from training.method.erft_step import draw, training_step

    trainer = make_trainer(wan_folder)
    bank = trainer.banks.of(SHAPE)
    for sigma in bank.grid.sigmas:
        bank.add(torch.randn(SHAPE), sigma, torch.Generator().manual_seed(0))
    injections = [draw(trainer, trainer.data.make(0), step, 0).injection for step in range(1, 501)]

    def share(name: str) -> float:
        return sum(getattr(injection, name) is not None for injection in injections) / len(injections)

    assert sum(injection.is_clean for injection in injections) / 500 == pytest.approx(0.2, abs=0.05)
    assert share("image_error") == pytest.approx(0.8 * 0.9, abs=0.06) and share("noise_error") == pytest.approx(0.4, abs=0.06)
    assert share("latent_error") == pytest.approx(0.8 * 0.9, abs=0.06)
    expected = injections[0]
    reported = training_step(trainer).injected
    assert reported == {
        "noise": float(expected.noise_error is not None), "latent": float(expected.latent_error is not None),
        "image": float(expected.image_error is not None), "clean": float(expected.is_clean),
    }  # fmt: skip
