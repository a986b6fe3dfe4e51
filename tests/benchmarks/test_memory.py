"""Bytes counted without a GPU: against counts by hand, and against the files that the GPU benchmarks write."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu.shapes import SHAPES
from benchmarks.memory.__main__ import Need
from benchmarks.memory.count import LiveBytes

ROOT = Path(__file__).resolve().parents[2]
TINY = SHAPES["tiny"]


def test_views_and_weights_are_not_counted_and_what_is_gone_is_subtracted():
    weight = torch.empty(10, 100, device="meta")
    with LiveBytes([weight]) as live:
        a = torch.empty(100, device="meta")
        b = weight @ a + weight[:, 0]  # 40 bytes for the product, 40 for the sum
        assert (live.now, live.peak) == (440, 480)
        del a
        c = b[:5].view(1, 5)
        assert live.now == 40 and c.shape == (1, 5)
        b += 1
    assert (live.now, live.peak) == (40, 480)


def test_what_the_backward_pass_needs_is_alive_until_then():
    x = torch.empty(25, device="meta", requires_grad=True)
    with LiveBytes([x]) as live:
        y = x.sin().cos().sum()
        assert live.now == 100 + 4, "sin is kept for the backward pass of cos; the sum"
        y.backward()
        del y
        assert live.now == 100, "the gradient"


@pytest.mark.usefixtures("comfy")
def test_weights_have_the_bytes_of_the_files(tmp_path):
    from benchmarks.gpu.weights import expert_file
    from benchmarks.memory.models import transformer, weight_bytes

    file = expert_file(tmp_path, TINY, torch.device("cpu"))
    of_file = sum(tensor.nbytes for name, tensor in load_file(file).items() if not name.endswith("_scale"))
    model = transformer(TINY)
    assert weight_bytes(model) == of_file
    blocks = sum(weight_bytes(block, f"blocks.{index}.") for index, block in enumerate(model.blocks))
    assert 0 < blocks < of_file


@pytest.mark.slow
@pytest.mark.usefixtures("comfy")
def test_each_further_block_keeps_its_input_and_what_else_is_asked_for(monkeypatch):
    """A block's input is dim numbers in bf16 for each token; kept attention as much again, and 4 bytes for each row of sums."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "in_training", True)
    from benchmarks.memory.models import training_bytes

    shapes = replace(
        TINY, num_frames=81, lora_rank=1
    )  # activations outweigh the LoRA's gradients, as they do in the real model

    def of_a_block(**way):
        some, more = (training_bytes(replace(shapes, num_layers=layers), **way)[0] for layers in (6, 10))
        return (more - some) / 4

    block_input, rows = shapes.num_tokens * shapes.dim * 2, shapes.num_tokens * shapes.num_heads * 4
    assert of_a_block(offload=False) == block_input
    kept = of_a_block(offload=False, keep_attention=True)
    assert block_input + block_input + rows <= kept <= block_input + block_input + rows + 32, "random states of the kernel"
    _, trained = training_bytes(replace(shapes, num_layers=4), offload=True)
    assert of_a_block(offload=True) == trained / 4, "with inputs on the host only the gradients of a block's LoRA are left"
    on_host, on_card = (training_bytes(replace(shapes, num_layers=6), offload=offload)[0] for offload in (True, False))
    fewer = (6 - 2) * (block_input - trained / 4)  # at the peak 2 inputs of 6 are there, but gradients of 4 blocks more
    assert on_card - on_host == fewer, "the input in use, and the one on its way"


def test_the_smallest_card_has_room_for_gaps_and_the_driver():
    gib = 2**30
    assert [Need(round(size * gib), 0).card for size in (6.3, 6.4, 20.9, 100)] == ["8", "12", "24", "more than 80"]
    assert Need(gib, 2 * gib, 3 * gib).total == 6 * gib


def test_the_table_is_printed_and_counted_once(tmp_path, comfyui_path):
    def run() -> str:
        command = [sys.executable, "-m", "benchmarks.memory", "--shapes", "tiny", "--output", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"SVI_COMMIT": "tested"})
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    text = run()
    assert text.splitlines()[3].startswith("| clip, one expert at a time | 0.0 |") and "| commit | tested |" in text
    counted = json.loads((tmp_path / "memory.json").read_text())["measured"]["bytes"]
    both, one = (counted[f"clip, {which}"] for which in ("both experts stay on the card", "one expert at a time"))
    assert len(counted) == 7 and both["weights"] == 2 * one["weights"] > 0 and both["tensors"] == one["tensors"] > 0
    through, blocks_too = counted["clip, weights pass through block by block"], counted["training, blocks too (memory_24gb)"]
    assert blocks_too["weights"] == through["weights"] > 0, "of two blocks: one computes, one is on its way"
    began = (tmp_path / "memory.json").stat().st_mtime_ns
    assert run() == text == (tmp_path / "memory.md").read_text()
    assert (tmp_path / "memory.json").stat().st_mtime_ns == began and (tmp_path / "memory.png").exists()


def test_a_step_waits_for_the_first_copies_of_each_pass_only(comfy):
    """40 blocks of 14B in fp8: each one's weights twice to the card and never back, its input to the host and to the card."""
    from benchmarks.gains.copies import copies_waited_for, count_copies

    counted = count_copies(5)
    assert counted.copied == {"weights": 10, "inputs": 5, "inputs to the host": 5}
    assert counted.waited == {"weights": 2, "inputs": 1}
    found = copies_waited_for(None)
    block, tokens = 8 * 5_120**2 + 2 * 5_120 * 13_824, 2 * 32_760 * 5_120
    assert found["before"][0] == pytest.approx(80e-9 * (block + tokens), rel=0.01)
    assert found["after"][0] == pytest.approx(1e-9 * (2 * block + tokens), rel=0.01)


def test_copies_in_line_have_no_stream_of_their_own(monkeypatch):
    from benchmarks.gpu.training_step import in_line
    from training.model import block_memory

    beside, streams = block_memory.SideStream, []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams.append(device) or "side")
    with in_line():
        stream = block_memory.SideStream(torch.device("cuda"))
        assert stream.is_cuda and stream.copy(lambda: [torch.ones(1)]).ready() == [torch.ones(1)]
    assert block_memory.SideStream is beside
