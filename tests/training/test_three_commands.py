"""The path a user walks: cache, dry run, train, use the LoRA; and every wrong turn at the start of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.synthetic_clips import write_numbered
from training import cache, diagnose, erft

pytestmark = pytest.mark.usefixtures("training_mode")
ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "training" / "configs" / "tiny.toml")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three clips of 60 frames with captions."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(3):
        write_numbered(folder / f"clip{index}.mp4", 60 + index)
        (folder / f"clip{index}.txt").write_text(f"a grey clip, number {index}")
    return folder


@pytest.fixture
def words(clips, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(ROOT)  # the paths of tiny.toml count from here
    return [
        f"run={tmp_path / 'run'}", f"data.folder={clips}", f"data.cache={tmp_path / 'cache'}", "data.num_frames=9",
        "data.width=64", "data.height=64", "data.variants=1", "loop.steps=4", "loop.checkpoint_every=2", "samples.every=4",
        "samples.steps=2", "samples.num_clips=2", "validation.every=2",
    ]  # fmt: skip


def test_cache_train_use(words, tmp_path, capsys):
    import comfy.sd
    from safetensors.torch import load_file

    assert cache.main(["--config", TINY, *words]) == 0
    assert erft.main(["--config", TINY, *words, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    for line in (
        "60 layers",
        "2 to learn from, 1 held out",
        "1 for each window (data.variants)",
        "seconds/step",
        "sigma 1.000 .. 0.900",
        "flash_attention_for_cpu",
        "augmented in 81 % of the examples, one of 2 versions",
        "image errors  from this run's own bank: errors of the high-noise expert, but a chain hands over",
    ):
        assert line in plan, line
    run = tmp_path / "run"
    assert (run / "first_batch.png").is_file() and not (run / "checkpoints").exists()
    assert erft.main(["--config", TINY, *words]) == 0
    assert (run / "report.html").is_file() and len(list(run.glob("samples/*.mp4"))) == 1
    patcher = comfy.sd.load_diffusion_model(str(ROOT / "demo/models/tiny_wan22_i2v_high.safetensors"))
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, load_file(run / "run.safetensors"), 1.0, 0.0)
    assert len(patched.patches) == 60
    again = [*words, f"run={tmp_path / 'again'}", f"lora.start_from={run / 'run.safetensors'}", "lora.rank=0"]
    capsys.readouterr()
    assert erft.main(["--config", TINY, *again, "--dry-run"]) == 0
    assert "begins from   run.safetensors (sha256 " in capsys.readouterr().out


@pytest.mark.slow
def test_the_low_noise_expert_first_then_the_high_noise_one_on_its_errors(words, tmp_path, capsys):
    """The dry run says whose errors they are; without the other run nothing is loaded."""
    low, high = str(tmp_path / "low"), [*words, f"run={tmp_path / 'high'}", f"bank.image_errors_from={tmp_path / 'low'}"]
    assert cache.main(["--config", TINY, *words]) == 0
    assert erft.main(["--config", TINY, *high, "--dry-run"]) == 2
    assert "there is no such run or file: train that run first" in capsys.readouterr().err
    expert = ["preset=pro-low", "model.path=demo/models/tiny_wan22_i2v_low.safetensors", "samples.every=0"]
    assert erft.main(["--config", TINY, *words, *expert, f"run={low}"]) == 0
    capsys.readouterr()
    assert erft.main(["--config", TINY, *high, "--dry-run"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("image errors"))
    found = re.search(r"(\d+) errors of the low expert after step 4, cells \d+ to \d+ \(sigma ([\d.]+) \.\. ", line)
    assert low in line and found and int(found[1]) >= 1 and float(found[2]) < 0.95, line
    assert erft.main(["--config", TINY, *high, "samples.every=0"]) == 0


@pytest.mark.slow
def test_dance_from_clips_to_a_file_with_its_pose_encoder(words, tmp_path, capsys):
    from svi_core.conditioning.dance import read_pose_encoder

    for index in range(2):
        write_numbered(tmp_path / f"dancers/clip{index}.mp4", 40 + index)
        write_numbered(tmp_path / f"dancers/clip{index}.pose.mp4", 40 + index)
    words += [
        f"data.folder={tmp_path / 'dancers'}", "data.default_caption=a dancer", "data.layout=Dance", "drops.pose=0.3",
        "drops.image=0.3", "data.held_out=0",
    ]  # fmt: skip
    assert cache.main(["--config", TINY, *words]) == 0
    assert erft.main(["--config", TINY, *words, "--dry-run"]) == 0
    assert "pose encoder" in capsys.readouterr().out
    assert erft.main(["--config", TINY, *words]) == 0
    run = tmp_path / "run"
    first = read_pose_encoder(run / "run.safetensors")
    assert first[-1].weight.any() and len(list(run.glob("samples/*.mp4"))) == 1
    assert erft.main(["--resume", str(run), "loop.steps=5", "samples.every=0"]) == 0
    assert not torch.equal(read_pose_encoder(run / "run.safetensors")[-1].weight, first[-1].weight)


def test_the_cache_of_talk_needs_an_audio_encoder(words, capsys):
    assert cache.main(["--config", TINY, *words, "data.layout=Talk", "data.frame_rate=25"]) == 2
    assert "model.audio_encoder is empty" in capsys.readouterr().err


@pytest.mark.slow
def test_going_on_from_the_command_line(words, tmp_path, capsys):
    assert cache.main(["--config", TINY, *words]) == 0
    assert erft.main(["--config", TINY, *words, "loop.steps=2", "samples.every=0"]) == 0
    assert erft.main(["--resume", str(tmp_path / "run"), "loop.steps=3"]) == 0
    whole = [word.replace(f"run={tmp_path}", f"run={tmp_path / 'whole'}") for word in words]
    assert erft.main(["--config", TINY, *whole, "loop.steps=3", "samples.every=0"]) == 0
    assert (tmp_path / "run" / "run.safetensors").read_bytes() == (tmp_path / "whole" / "run" / "run.safetensors").read_bytes()
    assert erft.main(["--resume", str(tmp_path / "run"), "lora.rank=4"]) == 2
    assert "lora.rank: 8 -> 4" in capsys.readouterr().err
    assert erft.main(["--config", TINY, *words]) == 2
    assert "holds a run already" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2, 3]


DIAGNOSIS = ["data.held_out=2", "diagnosis.num_scenes=2", "diagnosis.num_clips=2", "diagnosis.steps=1"]


def test_a_base_is_diagnosed_from_the_command_line(words, tmp_path, capsys, cached):
    cached(words)
    assert diagnose.main(["--config", TINY, *words, *DIAGNOSIS, "--output", str(tmp_path / "found")]) == 0
    said = capsys.readouterr().out
    assert "chained       2 held-out clips, 2 clips from each" in said and "verdict       cannot tell: too little" in said
    assert said.endswith(f"report        {tmp_path / 'found' / 'report.html'}\n") and not (tmp_path / "run").exists()
    assert json.loads((tmp_path / "found" / "diagnosis.json").read_text())["answer"] == "cannot tell"
    assert erft.main(["--config", TINY, *words, *DIAGNOSIS, "--dry-run", "--diagnose"]) == 0
    dry_run = capsys.readouterr().out
    assert "seconds/step" in dry_run and dry_run.count("\nverdict ") == 1
    assert {"diagnosis.json", "report.html", "first_batch.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_what_cannot_be_diagnosed_is_said_before_a_model_loads(words, tmp_path, capsys, cached, monkeypatch):
    from training.run import assembly

    monkeypatch.setattr(assembly, "load_configured_backbone", lambda config: pytest.fail("a model was loaded"))
    cached(words)
    for command, more in ((diagnose, []), (erft, ["--dry-run", "--diagnose"]), (erft, ["diagnosis.every=2"])):
        assert command.main(["--config", TINY, *words, *more]) == 2
        assert "but 1 examples are held out: set data.held_out=8" in capsys.readouterr().err
    assert diagnose.main(["--config", TINY, *words, f"bank.image_errors_from={tmp_path / 'low'}"]) == 2
    assert "there is no such run or file: train that run first" in capsys.readouterr().err
    assert erft.main(["--config", TINY, *words, "model.vae=gone.safetensors"]) == 2
    assert "model.vae is 'gone.safetensors'" in capsys.readouterr().err
    assert diagnose.main(["--config", TINY, *words, "samples.other_expert="]) == 2
    assert "samples.other_expert is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        erft.main(["--config", TINY, *words, "--diagnose"])
    assert "--diagnose comes after --dry-run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        erft.main(["--resume", str(tmp_path / "run"), "--dry-run", "--diagnose"])
    assert "--diagnose measures the model before its training: give --config, not --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.learning_rat=1", "did you mean optimizer.learning_rate?"),
        ("model.path=gone.safetensors", "model.path is 'gone.safetensors'"),
        ("run=''", "run is not set"),
        ("preset=dance", "holds no finished cache of this configuration (it holds one with"),
        ("preset=talk", "set model.audio_patch to multitalk.safetensors"),
        ("memory.attention=sage", "memory.attention is 'sage'"),
        ("memory.swapped_blocks=7", "the model has 6 blocks"),
        ("lora.targets=['q','x']", "lora.targets names 'x'"),
        ("optimizer.name=AdamW9", "optimizer.name is 'AdamW9'"),
    ],
)
def test_wrong_turns_end_with_a_message(words, capsys, tmp_path, word, message, cached):
    cached(words)
    assert erft.main(["--config", TINY, *words, word]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture
def cached(clips, tmp_path_factory, tmp_path):
    """Fill the cache, once for all tests of this file, and point `words` to it."""
    shared = tmp_path_factory.getbasetemp() / "shared_cache"

    def fill(words: list[str]) -> None:
        words[:] = [f"data.cache={shared}" if word.startswith("data.cache=") else word for word in words]
        if not shared.exists():
            assert cache.main(["--config", TINY, *words]) == 0

    return fill


def test_ctrl_c_saves_and_says_how_to_go_on(words, tmp_path, cached, comfyui_path):
    cached(words)
    command = [sys.executable, "-m", "training.erft", "--config", TINY, *words, "loop.steps=100000", "samples.every=0"]
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and '"step"' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"Resume with: python -m training.erft --resume {tmp_path / 'run'}" in said
    assert "60 x float32" in said and "flash_attention_for_cpu" in said
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) >= 1


def test_a_cache_of_another_encoder_is_refused(words, capsys, cached, tmp_path, caplog):
    """The same weights under another header are other bytes; a file that is gone cannot be compared, which is said."""
    from safetensors.torch import load_file, save_file

    cached(words)
    save_file(load_file(ROOT / "demo/models/tiny_umt5.safetensors"), tmp_path / "other.safetensors", {"is": "another"})
    assert erft.main(["--config", TINY, *words, f"model.text_encoder={tmp_path / 'other.safetensors'}"]) == 2
    assert "was made with another file than model.text_encoder" in capsys.readouterr().err
    gone = ["model.text_encoder=gone.safetensors", "samples.every=0", "loop.steps=1"]
    assert erft.main(["--config", TINY, *words, *gone]) == 0
    assert "cannot check whether the cache was made with model.text_encoder" in caplog.text


def test_without_a_cache_the_command_to_make_it_is_named(words, capsys):
    assert erft.main(["--config", TINY, *words]) == 2
    assert "training.cache" in capsys.readouterr().err
