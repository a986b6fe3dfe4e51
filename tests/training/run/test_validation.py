"""Held-out losses by noise level, and what of a run is written down."""

import json
import math

import pytest
import torch

from tests.training.fakes import FakeDataset, make_trainer, settings
from training.method.distributed import Group
from training.run.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("training_mode")


def test_each_quantile_is_the_middle_of_its_part(wan_folder):
    from training.run.validation import quantile_ids

    trainer = make_trainer(wan_folder, settings(model={"expert": "low"}))
    assert quantile_ids(trainer, 4) == [438, 598, 759, 919]  # 358 + 642 * 1/8, 3/8, 5/8, 7/8
    assert quantile_ids(make_trainer(wan_folder), 1) == [179]


@torch.no_grad()
def test_the_loss_is_the_plain_velocity_error(wan_folder):
    from training.method.streams import stream
    from training.model.conditions import Conditions
    from training.run.validation import held_out_examples, validate

    trainer = make_trainer(wan_folder, settings(validation={"quantiles": 2, "max_examples": 1}))
    examples = held_out_examples(trainer)
    found = validate(trainer, examples)
    example = examples[0]
    for key, timestep_id in zip(found, (89, 268), strict=True):
        s = 1 - timestep_id / 1000
        sigma = 5 * s / (1 + 4 * s)
        noise = torch.randn(example.latent.shape, generator=stream(0, 0, 0, f"validation {timestep_id}"))
        noisy = (1 - sigma) * example.latent + sigma * noise
        conditions = Conditions(example.y_latent[None], example.mask[None], example.text[None])
        predicted = trainer.backbone.velocity(noisy[None], torch.tensor([sigma]), conditions)[0]
        assert found[key] == pytest.approx(float(((predicted - noise + example.latent) ** 2).mean()), rel=1e-5)
        assert float(key) == pytest.approx(sigma, abs=1e-3)
    assert validate(trainer, examples) == found


def test_validation_is_left_when_the_training_shall_end(wan_folder, monkeypatch):
    from training.run import validation as module

    trainer = make_trainer(wan_folder, settings(validation={"quantiles": 3}))
    real, asked = module._error, []

    def error(*arguments):
        asked.append(arguments[2])
        return real(*arguments)

    monkeypatch.setattr(module, "_error", error)
    assert module.validate(trainer, module.held_out_examples(trainer), lambda: len(asked) == 2) is None
    assert len(asked) == 2


def train_and_read(wan_folder, tmp_path, **sections) -> list[dict]:
    from training.run.session import run_training

    model = {"expert": "high", "path": str(wan_folder / "fp32.safetensors")}
    config = settings(tmp_path / "run", model=model, **sections)
    assert run_training(config, Group(), lambda *_: FakeDataset()) == 0
    return [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]


def test_everything_is_written_down(wan_folder, tmp_path):
    lines = train_and_read(wan_folder, tmp_path, validation={"every": 3, "quantiles": 2}, loop={"steps": 6})
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert {
        "loss", "gradient_norm", "learning_rate", "injected_image", "injected_latent", "injected_noise", "injected_clean",
        "bank_entries", "seconds", "examples_per_second", "peak_memory_gib",
    } <= steps[0].keys()  # fmt: skip
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [0, 3, 6]
    bank = [line for line in lines if line["kind"] == "bank"][-1]
    assert bank["step"] == 6 and bank["shape"] == "16x3x4x6" and sum(bank["fill"]) == steps[-1]["bank_entries"]
    assert all((ratio is None) == (fill == 0) for ratio, fill in zip(bank["error_to_signal"], bank["fill"], strict=True))
    assert max(ratio for ratio in bank["error_to_signal"] if ratio is not None) > 0.1


def test_banks_are_looked_at_without_validation_too(wan_folder, tmp_path):
    lines = train_and_read(wan_folder, tmp_path, validation={"every": 0}, loop={"steps": 5, "checkpoint_every": 2})
    assert [line["step"] for line in lines if line["kind"] == "bank"] == [2, 4, 5]
    assert not [line for line in lines if line["kind"] == "validation"]


def test_a_torn_line_and_later_steps_are_forgotten(tmp_path):
    run = RunFolder(tmp_path, Group())
    for step in (1, 2, 3):
        run.record("step", step, loss=float(step))
    with run.metrics.open("a") as file:
        file.write('{"kind": "step", "st')
    run.go_back_to(2)
    assert [line["loss"] for line in run.measurements()] == [1.0, 2.0]
    run.close()


def test_nan_of_a_held_out_clip_names_it(wan_folder):
    from dataclasses import replace

    from training.method.erft_step import TrainingStopped
    from training.run.validation import validate

    trainer = make_trainer(wan_folder)
    broken = replace(FakeDataset().make(1, "held_out"), latent=torch.full((16, 3, 4, 6), math.nan))
    with pytest.raises(TrainingStopped, match="held_out1.mp4"):
        validate(trainer, [broken])


def test_the_report_shows_all_of_it(wan_folder, tmp_path):
    from training.report import main

    train_and_read(wan_folder, tmp_path, validation={"every": 3, "quantiles": 2}, loop={"steps": 3})
    run = tmp_path / "run"
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"kind": "sample", "step": 3, "path": "samples/step_00000003.mp4"}\n')
        metrics.write('{"kind": "step", "st')  # cut off by a kill
    assert main([str(run)]) == 0
    page = (run / "report.html").read_text()
    for part in (
        "held-out loss by noise level",
        "error-to-signal",
        "samples/step_00000003.png",
        "sigma 0.",
        "<video src='samples/step_00000003.mp4' controls",
        "<details><summary>Settings</summary>",
        "&quot;rank&quot;: 4",
        "<h2>Summary</h2>",
        "held-out loss, mean",
        "at the end, lowest",
        "s a step (median)",
        "<td>sample videos</td><td>1</td>",
    ):
        assert part in page, part
    assert page.count("<svg") == 8 and "http" not in page.replace("http://www.w3.org", "")


def test_a_report_of_nothing_is_an_error(tmp_path, capsys):
    from training.report import main
    from training.run.charts import chart

    assert main([str(tmp_path)]) == 2 and "holds no run" in capsys.readouterr().err
    assert chart("empty", {"a": [(1, None), (2, math.nan)]}) == ""
    assert "<circle" in chart("one point", {"a": [(1, 2.0)]})
    assert "&lt;b&gt;" in chart("<b>", {"a": [(1, 2.0)]})
