"""The GPU benchmarks, run on CPU at tiny shapes: that they work, go on where they were stopped, and count rightly."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.gpu.command import shown
from benchmarks.gpu.shapes import SHAPES

ROOT = Path(__file__).resolve().parents[2]
FULL, TINY = SHAPES["14b"], SHAPES["tiny"]


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    variables = os.environ | {"SVI_COMMIT": "tested"}  # a commit between two runs of a test would have all measured again
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_cost_of_a_forward_pass_is_that_of_the_method_page():
    """docs/METHOD.md, 11.1 and 11.2: 32 760 tokens, 787 TFLOP linear, 900 attention; a clip 7.1 s in bf16, 3.7 s in 8 bits."""
    assert FULL.num_tokens == 32_760 and FULL.latent_shape == (1, 16, 21, 60, 104)
    assert FULL.linear_tflop == pytest.approx(787, rel=0.01) and FULL.attention_tflop == pytest.approx(900, rel=0.01)
    assert FULL.clip_limit("NVIDIA H200", 4, 16) == pytest.approx(7.1, rel=0.01)
    assert FULL.clip_limit("NVIDIA H200", 4, 8) == pytest.approx(3.7, rel=0.05)
    assert FULL.training_limit("NVIDIA H200", keeps_attention=False) == pytest.approx(6.65, rel=0.05)
    kept = FULL.training_limit("NVIDIA H200", True) / FULL.training_limit("NVIDIA H200", False)
    assert kept == pytest.approx(1 - 0.14, abs=0.005)
    assert FULL.clip_limit("another GPU", 4, 16) is None


ROWS = {
    "kernels": (
        "product, FFN layer, bf16",
        "attention over clip, flash, and backward",
        "VAE decode of 9 frames, channels last",
    ),
    "loop": (
        "1: ours",
        "2: stock",
        "3: stock",
        "4: ours",
        "ours, each expert fetched when its turn comes",
        "ours, compiled",
    ),
    "training_step": ("ours", "ours, attention kept"),
    "smallest_card": ("one clip in 8 GiB", "a training step in 24 GiB"),
}


@pytest.fixture(scope="module")
def tiny_run(comfyui_path, tmp_path_factory):
    """Run a benchmark of benchmarks.gpu at tiny shapes, once for all tests of this file; return its folder and its output."""

    @cache
    def run_once(name: str) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp(name)
        return folder, run(f"gpu.{name}", "--shapes", "tiny", "--device", "cpu", "--output", folder)

    return run_once


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("kernels", "smallest_card") else ()) for name in ROWS]
)
def test_a_benchmark_runs_at_tiny_shapes_and_measures_nothing_twice(tiny_run, name):
    folder, output = tiny_run(name)
    (figures,) = folder.glob(f"{name}*.json")
    measured = json.loads(figures.read_text())["measured"]
    for row in ROWS[name]:
        assert "unavailable" not in measured[row], measured[row]
        assert any(isinstance(value, float) and value > 0 for value in measured[row].values())
        assert f"| {row} |" in output
    assert "these figures only show that the benchmark works" in output
    assert figures.with_suffix(".md").read_text() == output[output.index("|") :] and figures.with_suffix(".png").exists()
    began = figures.stat().st_mtime_ns
    again = run(f"gpu.{name}", "--shapes", "tiny", "--device", "cpu", "--output", folder)
    assert again[again.index("|") :] == output[output.index("|") :] and figures.stat().st_mtime_ns == began


def test_the_jobs_do_the_same_work(tiny_run):
    """Stages are counted; ours and stock call the transformer equally often and show what their overlaps leave.

    Compiled by a backend that runs graphs as they are, ours makes the same latent.
    """
    folder, _ = tiny_run("loop")
    measured = json.loads((folder / "loop-fp8.json").read_text())["measured"]
    ours, stock = measured["1: ours"], measured["2: stock"]
    assert round(ours["s"] / ours["s per new frame"]) == 3 * (9 - 5) + 5
    assert round(stock["s"] / stock["s per new frame"]) == 3 * (9 - 1) + 1
    assert measured["ours, compiled"]["deviation"] == 0.0 and measured["ours, compiled"]["compiling"] > 0
    for row in (ours, stock):
        stages = [row[name] for name in ("conditioning", "transformer", "decode", "waiting for video")]
        assert min(stages) > 0 and sum(stages) + row["rest"] == pytest.approx(row["s"])


def test_without_a_gpu_the_real_thing_says_so():
    command = [sys.executable, "-m", "benchmarks.gpu.kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    assert done.returncode == 2 and "no CUDA device" in done.stderr


def test_weights_are_files_that_comfyui_loads_as_what_they_say(tmp_path, comfy):
    """Scaled fp8 and bf16: normal numbers of unit gain, every key of the model, nothing infinite."""
    import comfy.sd
    from safetensors.torch import load_file

    from benchmarks.gpu.weights import expert_files, vae_file

    high, low = expert_files(tmp_path, TINY, torch.device("cpu"), "fp8")
    assert high != low and len(set(expert_files(tmp_path, TINY, torch.device("cpu"), "bf16"))) == 1
    tensors = load_file(high)
    codes, scale = (tensors[f"blocks.1.ffn.0.weight{end}"] for end in ("", "_scale"))
    assert codes.dtype is torch.float8_e4m3fn
    values = codes.float() * scale
    assert float(values.std()) == pytest.approx(TINY.dim**-0.5, rel=0.05) and values.isfinite().all()
    model = comfy.sd.load_diffusion_model(str(high))
    assert type(model.model.diffusion_model.blocks[0].ffn[0].weight).__name__ == "QuantizedTensor"
    assert len(model.model.diffusion_model.blocks) == TINY.num_layers
    vae = load_file(vae_file(tmp_path, TINY, torch.device("cpu")))
    assert all(tensor.dtype is torch.bfloat16 and tensor.isfinite().all() for tensor in vae.values())


@pytest.mark.parametrize(
    ("found", "column", "is_first", "cell"),
    [
        ({"ms": 1.23456}, "ms", True, "1.23"),
        ({"ms": 1.0}, "TFLOP/s", False, ""),
        ({"unavailable": "RuntimeError: no"}, "ms", True, "not available: RuntimeError: no"),
        ({"unavailable": "RuntimeError: no"}, "least", False, ""),
    ],
)
def test_cells(found, column, is_first, cell):
    assert shown(found, column, is_first) == cell


def test_the_bank_is_timed_at_small_sizes_too(tmp_path):
    output = run("bank", "--quick", "--output", tmp_path)
    for row in ("2 RAM", "2 file", "4 RAM", "4 file"):
        assert f"| {row} |" in output
    found = json.loads((tmp_path / "bank.json").read_text())["measured"]["4 file"]
    assert found["draw"] > 0 and found["insertion"] > 0 and found["waited"] >= 0
    assert Image.open(tmp_path / "bank.png").size[0] > 100
    assert not (tmp_path / "bank.work").exists()


def test_every_gain_is_exact_where_it_says_so(tmp_path, comfyui_path):
    """Frames, gradients and outputs are equal to the last bit; times at this size say nothing and are not looked at.

    The VAE's weights in another order give sums in another order.
    """
    run("gains", "--quick", "--output", tmp_path)
    measured = json.loads((tmp_path / "gains.json").read_text())["measured"]
    assert len(measured) == 6 and Image.open(tmp_path / "gains.png").size[0] > 100
    for row, found in measured.items():
        assert all(value > 0 for value in found["before"] + found["after"]), row
        if "VAE" in row:
            assert found["deviation"] < 1e-3
        else:
            assert found["deviation"] == ("" if "fp8" in row else 0.0), row
    fp8 = measured["share of a LoRA left in fp8"]
    assert fp8["before"][0] < 0.5 < 0.9 < fp8["after"][0] < 1.1
