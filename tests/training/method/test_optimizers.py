"""Optimizers by name, rates by step, states that come back to the bit."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.training.fakes import make_trainer, settings
from training.method.optimizers import learning_rate, make_optimizer, optimizer_tensors, restore_optimizer
from training.settings.sections import OptimizerConfig, Schedule


def parameters(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(3, 4, generator=generator)) for _ in range(2)]


def step(optimizer, own, count: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for parameter in own:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_adamw_is_pytorchs():
    optimizer = make_optimizer(parameters(), OptimizerConfig(options={"betas": [0.8, 0.9]}))
    assert type(optimizer) is torch.optim.AdamW
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], list(group["betas"])) == (1e-4, 0.01, [0.8, 0.9])


def test_any_class_by_its_dotted_name():
    optimizer = make_optimizer(parameters(), OptimizerConfig(name="torch.optim.SGD", options={"momentum": 0.5}))
    assert type(optimizer) is torch.optim.SGD and optimizer.param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimizerConfig(name="Adamw"), "use AdamW, AdamW8bit or a dotted name"),
        (OptimizerConfig(name="torch.optim.Nothing"), "'torch.optim.Nothing': use AdamW"),
        (OptimizerConfig(name="no_such_package.Prodigy"), "'no_such_package' is not installed"),
        (OptimizerConfig(options={"speed": 3}), "refuses optimizer.options .*speed"),
        (OptimizerConfig(options={"lr": 1.0}), "set optimizer.learning_rate"),
        (OptimizerConfig(options={"eps": -1.0}), "refuses optimizer.options .*Invalid epsilon"),
    ],
)
def test_wrong_names_and_options_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(parameters(), config)


def test_warm_up_then_cosine():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, schedule=Schedule.COSINE, final_share=0.2)
    rates = [learning_rate(config, step, 14) for step in range(1, 15)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[8] == pytest.approx(0.6)  # half way down
    assert rates[13] == pytest.approx(0.2)
    assert rates[6] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(0.3 * math.pi)))
    assert learning_rate(config, 20, 14) == pytest.approx(0.2)


def test_constant_stays():
    config = OptimizerConfig(learning_rate=3e-4)
    assert {learning_rate(config, step, 10) for step in (1, 5, 10)} == {3e-4}


@pytest.mark.parametrize("config", [OptimizerConfig(), OptimizerConfig(name="torch.optim.SGD", options={"momentum": 0.9})])
def test_a_restored_optimizer_goes_on_bit_for_bit(config):
    own = parameters()
    optimizer = make_optimizer(own, config)
    step(optimizer, own, 3)
    tensors, metadata = optimizer_tensors(optimizer)
    other = [torch.nn.Parameter(parameter.detach().clone()) for parameter in own]
    restored = make_optimizer(other, config)
    restore_optimizer(restored, tensors, metadata)
    step(optimizer, own, 2, seed=2)
    step(restored, other, 2, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))
    assert restored.param_groups[0].keys() == optimizer.param_groups[0].keys()


def test_state_that_cannot_be_saved_is_refused():
    own = parameters()
    optimizer = make_optimizer(own, OptimizerConfig())
    optimizer.state[own[0]]["odd"] = [1, 2]
    with pytest.raises(ValueError, match="AdamW keeps odd as list"):
        optimizer_tensors(optimizer)


class KeepsAList(torch.optim.SGD):
    """An optimizer of somebody's, whose history is a list."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("history", []).append(1.0)
        return super().step(closure)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{__name__}.KeepsAList", "KeepsAList keeps history as list, which cannot be saved"),
        ("torch.optim.LBFGS", r"'torch.optim.LBFGS', whose step\(\) needs more than gradients"),
    ],
)
def test_an_optimizer_that_no_checkpoint_can_hold_is_refused_before_the_first_step(wan_folder, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or SimpleNamespace(KeepsAList=KeepsAList))
    with pytest.raises(ValueError, match=message):
        make_trainer(wan_folder, settings(optimizer={"name": name}))


def test_settings_of_groups_that_are_no_plain_values_are_refused():
    optimizer = torch.optim.AdamW(parameters(), lr=torch.tensor(0.1))
    with pytest.raises(ValueError, match="AdamW keeps group settings that are not plain values"):
        optimizer_tensors(optimizer)


def test_state_keeps_its_own_dtype():
    """Third-party optimizers keep bf16 or 8-bit state; PyTorch's own loading would turn it into the parameter's dtype."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[weight]["exp_avg"] = optimizer.state[weight]["exp_avg"].bfloat16()
    tensors, metadata = optimizer_tensors(optimizer)
    other = torch.optim.AdamW([weight])
    restore_optimizer(other, tensors, metadata)
    assert other.state[weight]["exp_avg"].dtype == torch.bfloat16
    assert torch.equal(other.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg"])
