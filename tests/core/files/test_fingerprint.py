import functools
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from svi_core.files.fingerprint import fingerprint, large_file_fingerprint

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Settings:
    name: str
    steps: int


class Sampler:
    def __init__(self, eta):
        self.function = make_function(eta)
        self.extra = {"eta": eta}


def make_function(value):
    def inner(x):
        return x * value

    return inner


DIFFERENT = [
    None, True, 1, 1.0, "1", b"1", [1], [1, 2], [[1], 2], [1, [2]], {"a": 1}, {"a": 2}, {"b": 1}, {1}, "", [], {},
    torch.tensor([1.0]), torch.tensor([[1.0]]), torch.tensor([1]), torch.tensor([1.0], dtype=torch.bfloat16),
    torch.tensor([-0.0]), torch.tensor([0.0]), torch.tensor([float("nan")]),
    Settings("a", 1), Settings("a", 2), Settings("b", 1), Sampler(0.5), Sampler(0.6),
    make_function(1), make_function(2), functools.partial(make_function, 1), functools.partial(make_function, 2),
    torch.float16, torch.float32, torch.nn.Linear(2, 2), torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Dropout(0.1),
    lambda x: x * 0.5, lambda x: x * 2.0, lambda x: torch.sin(x), lambda x: torch.cos(x),
    lambda x, *, a=1: x, lambda x, *, a=2: x,
    np.float32(1), np.float32(2), np.zeros(3), np.ones(3), deque([1, 2, 3]), Path("a"), Path("b"), 1j, {print: 1}, {len: 1},
]  # fmt: skip


def test_different_values_have_different_fingerprints():
    prints = [fingerprint(value) for value in DIFFERENT]
    assert len(set(prints)) == len(prints)


def test_equal_values_have_equal_fingerprints():
    assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint({"b": [2.5], "a": 1})
    assert fingerprint(Sampler(0.5)) == fingerprint(Sampler(0.5))
    assert fingerprint(torch.ones(3, 2).T) == fingerprint(torch.ones(2, 3).contiguous())
    assert fingerprint({"x", "y", "z"}) == fingerprint({"z", "y", "x"})
    assert fingerprint("a", "b") != fingerprint("ab") != fingerprint(["a", "b"])


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ({"a": [1, None, 2.5, True, "ü"]}, "0f1f4c8e1cb6e0bf"),
        (np.float64(2.5), "7b8f53506a6853cf"),  # an array, though it is a float
        (np.str_("a"), "fe4fb1a742eb2907"),
        (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), "d489df7c1cbe55fa"),
    ],
)
def test_stored_keys_stay(value: object, known: str):
    """As commit 4cb4fe9 computed them: clips, records and tables on disk are found by such hashes."""
    assert fingerprint(value).startswith(known)


def test_fingerprints_do_not_depend_on_the_process():
    code = (
        "from svi_core.files.fingerprint import fingerprint; import torch\n"
        "print(fingerprint({'a': {'x', 'y', 'zz'}, 'b': torch.arange(5.), 'c': [1, None, 2.5, 'ü']}))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                       env={"PYTHONHASHSEED": seed, "PATH": ""}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    expected = fingerprint({"a": {"x", "y", "zz"}, "b": torch.arange(5.0), "c": [1, None, 2.5, "ü"]})
    assert outputs == {expected + "\n"}


def test_a_module_is_known_by_its_settings_and_not_by_weights_that_patches_change():
    module = torch.nn.Linear(4, 4)
    before = fingerprint(module)
    with torch.no_grad():
        module.weight.add_(1.0)
    assert fingerprint(module) == before
    norm, other = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    other.running_mean.add_(1.0)
    assert fingerprint(norm) != fingerprint(other), "buffers count"


def test_private_working_state_does_not_count():
    one, two = Sampler(0.5), Sampler(0.5)
    two._step = 7
    assert fingerprint(one) == fingerprint(two)


def test_what_a_patch_remembers_between_steps_does_not_count():
    """As core's Adaptive Projected Guidance does: the closure keeps a running average, and its settings beside it."""

    def patch(momentum):
        average = 0.0

        def step(value):
            nonlocal average
            average = momentum * average + value
            return average

        return step

    used = patch(0.5)
    used(3.0)
    assert fingerprint(used) == fingerprint(patch(0.5)) != fingerprint(patch(0.25))


def test_cycles_end():
    loop: list = [1]
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)


@pytest.mark.parametrize("position", [0, 5_000, 2_500_000, 4_999_999])
def test_a_large_file_is_known_by_its_size_and_samples(tmp_path, position):
    data = bytearray(torch.randint(0, 256, (5_000_000,), dtype=torch.uint8).numpy().tobytes())
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    before = large_file_fingerprint(path)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(data)
    assert large_file_fingerprint(copy) == before
    start = max(0, min(position, len(data) - 100_000))
    data[start : start + 100_000] = bytes(100_000)  # longer than the distance between two sampled blocks
    path.write_bytes(data)
    assert large_file_fingerprint(path) != before
