"""The order in which clips are decoded: off unless asked for, timed once, kept on disk, never a disturbance of the decode."""

import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.nodes.conftest import PACK


@pytest.fixture(scope="module")
def module(pack):
    return sys.modules[f"{PACK}.nodes.bridge.decode_order"]


@pytest.fixture
def timed(module, bridge, monkeypatch, tmp_path):
    """Ask for timed orders on the CPU; return a function that gives the next times, and what has been timed."""
    choices = sys.modules[f"{PACK}.nodes.bridge.attention_choices"].StoredChoices(lambda: tmp_path / "decode_order.json")
    runs = []

    def order(*milliseconds):
        left = list(milliseconds)

        def time(decode):
            runs.append(decode())
            if isinstance(left[0], Exception):
                raise left.pop(0)
            return left.pop(0)

        made = module.TimedOrder(time, "cpu", choices)
        monkeypatch.setattr(bridge.vaes, "ORDER", made)
        monkeypatch.setenv(module.SETTING, "timed")
        return made

    return order, runs


def latents(slots=7):
    return torch.randn(1, 16, slots, 4, 6, generator=torch.Generator().manual_seed(0))


def decoded(bridge, vae, slots=7):
    return torch.cat(list(bridge.vaes.decode_chunks(vae, latents(slots))))


def watched(bridge, vae):
    """Return the frames of each chunk (slots 0, 1 and 2, 3 and 4, 5 and 6), and how its convolutions' inputs lie."""
    chunks, frames, lie = bridge.vaes.decode_chunks(vae, latents()), [], []
    for _ in range(4):
        with torch.inference_mode(), ConvolutionInputs() as inputs:
            frames.append(next(chunks))
        lie.append(inputs.are_last)
    return frames, lie


class ConvolutionInputs(TorchFunctionMode):
    """Notes of each call of a convolution whether its input lies channels last, with autograd and without."""

    def __init__(self):
        super().__init__()
        self.are_last = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.conv2d, torch.conv3d):
            last = torch.channels_last_3d if args[0].ndim == 5 else torch.channels_last
            self.are_last.append(args[0].is_contiguous(memory_format=last))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("winner", ["channels last", "contiguous"])
def test_every_convolution_works_in_the_chosen_order(module, bridge, vae, timed, winner):
    """What the decoder keeps between two chunks, attention and upsampling in time would each bring the other one back."""
    layers = vae.first_stage_model.decoder.modules()
    convolutions = sum(isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d) for layer in layers)
    expected, as_comfyui = watched(bridge, vae)  # some processors' convolutions give channels last of themselves
    order, _ = timed
    order(10.0, 5.0 if winner == module.LAST else 15.0)
    decoded(bridge, vae)
    found, lie = watched(bridge, vae)
    assert all(len(chunk) >= convolutions for chunk in lie[1:])
    if winner == module.LAST:
        assert lie[:2] == as_comfyui[:2] and all(all(chunk) for chunk in lie[2:])  # chosen for chunks of two slots
    else:
        assert lie == as_comfyui
    assert torch.allclose(torch.cat(found), torch.cat(expected), atol=1e-4)


def test_it_is_off_unless_asked_for(module, bridge, vae, monkeypatch):
    monkeypatch.setattr(bridge.vaes, "ORDER", module.TimedOrder(lambda decode: pytest.fail("it was timed"), "cpu"))
    decoded(bridge, vae)
    monkeypatch.setenv(module.SETTING, "time")
    with pytest.raises(ValueError, match="SVI_DECODE is 'time': set it to plain or timed"):
        module.require_decode_setting()


@pytest.mark.parametrize(("times", "winner"), [((10.0, 9.0), "channels last"), ((10.0, 9.8), "contiguous")])
def test_the_clearly_faster_order_is_used_from_then_on(bridge, vae, timed, times, winner, caplog):
    expected = decoded(bridge, vae)
    order, runs = timed
    made = order(*times)
    with caplog.at_level("INFO"):
        found = decoded(bridge, vae)
    assert list(made.chosen.values()) == [winner] and f"using {winner}." in caplog.text
    assert torch.equal(found, expected) if winner == "contiguous" else torch.allclose(found, expected, atol=1e-4)
    decoded(bridge, vae)
    assert len(runs) == 2, "each order is timed once"
    again = order()
    decoded(bridge, vae)
    assert list(again.chosen.values()) == [winner], "a new process reads it"


def test_a_clip_too_short_to_tell_is_decoded_as_it_is(bridge, vae, timed):
    order, runs = timed
    order()
    decoded(bridge, vae, slots=3)
    assert runs == []


def test_without_memory_to_compare_it_stays_comfyuis(bridge, vae, timed, caplog):
    expected = decoded(bridge, vae)
    order, _ = timed
    made = order(10.0, torch.OutOfMemoryError("CUDA out of memory"))
    assert torch.equal(decoded(bridge, vae), expected) and list(made.chosen.values()) == ["contiguous"]
    assert "not enough memory to compare" in caplog.text
    other = order(10.0, 1.0)
    decoded(bridge, vae)
    assert list(other.chosen.values()) == ["channels last"], "another process may have the memory"


def test_other_errors_are_told(bridge, vae, timed):
    order, _ = timed
    order(RuntimeError("a fault"))
    with pytest.raises(RuntimeError, match="a fault"):
        decoded(bridge, vae)
