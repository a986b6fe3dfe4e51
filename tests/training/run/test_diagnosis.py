"""A diagnosis on a tiny random model: its files and its text, and that a training run does not notice it."""

import json
from dataclasses import replace

import pytest
import torch

from svi_core.flow.timestep_grid import TimestepGrid
from tests.training.fakes import FakeDataset, make_trainer, settings
from training.method.distributed import Group
from training.method.verdict import Answer, Estimate
from training.run.report import write_report

pytestmark = pytest.mark.usefixtures("training_mode")
SMALL = {"num_scenes": 2, "num_clips": 2, "steps": 1}


def config_for(wan_folder, run, **sections):
    from demo.models.tiny_models import VAE_FILE

    return settings(
        run,
        model={"expert": "high", "path": str(wan_folder / "fp32.safetensors"), "vae": str(VAE_FILE)},
        samples={"other_expert": str(wan_folder / "fp32.safetensors")},
        data={"num_frames": 9, "width": 48, "height": 32},
        **sections,
    )


@pytest.fixture(scope="module")
def found(wan_folder, tmp_path_factory):
    """A diagnosis, and the folder that it was written into."""
    from training.run.chains import Chains
    from training.run.diagnosis import diagnose

    folder = tmp_path_factory.mktemp("diagnosis")
    trainer = make_trainer(wan_folder, config_for(wan_folder, folder, diagnosis=SMALL))
    diagnosis = diagnose(trainer, Chains(trainer))
    diagnosis.save(folder)
    return trainer, diagnosis, folder


def test_the_measures_are_of_the_trainers_model_and_settings(found):
    _, diagnosis, _ = found
    measures = diagnosis.measures
    assert (measures.num_scenes, measures.num_clips, measures.has_anchor) == (2, 2, True)
    assert [sigma for sigma, _ in measures.error_to_signal] == pytest.approx([1.0, 0.9375])  # of 4 cells
    assert measures.injected == pytest.approx(measures.error_to_signal[0][1], rel=0.5)
    assert measures.handed_over > 0 and torch.isfinite(torch.tensor(measures.gain.value))
    assert diagnosis.verdict.answer is Answer.CANNOT_TELL and "scenes: 2, clips of each: 2" in diagnosis.verdict.reason


def test_it_is_the_same_each_time(found):
    from training.run.chains import Chains
    from training.run.diagnosis import diagnose

    trainer, diagnosis, _ = found
    assert diagnose(trainer, Chains(trainer)).as_dict() == diagnosis.as_dict()


def test_the_injected_size_is_that_of_the_other_runs_errors_where_those_are_drawn(found):
    from svi_core.recycling.error_bank import ErrorBank
    from training.method.image_errors import ImageErrors
    from training.run.chains import Chains
    from training.run.diagnosis import diagnose

    trainer, own, _ = found
    bank, random = ErrorBank((16, 3, 4, 6), grid=TimestepGrid(4)), torch.Generator().manual_seed(0)
    bank.add(torch.full((16, 3, 4, 6), 7.0), 0.625, random)
    other = replace(trainer, image_errors=ImageErrors({"16x3x4x6": bank}))
    measures = diagnose(other, Chains(other)).measures
    signal = torch.stack([example.latent for example in Chains(trainer).examples]).square().mean().sqrt()
    assert measures.injected == pytest.approx(7 * 0.625 / float(signal), rel=1e-4)
    assert replace(measures, injected=own.measures.injected) == own.measures


def test_its_files(found):
    from svi_core.files.sealed_json import read_sealed

    _, diagnosis, folder = found
    assert sorted(path.name for path in folder.iterdir()) == ["diagnosis.json", "diagnosis.png", "report.html"]
    assert read_sealed(folder / "diagnosis.json") == {**json.loads(json.dumps(diagnosis.as_dict())), "picture": "diagnosis.png"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Error recycling: cannot tell." in page and "src='diagnosis.png'" in page and page.count("<svg") == 3


def test_a_damaged_file_is_named(found, tmp_path):
    from training.run.report import write_diagnosis_report

    _, _, folder = found
    (tmp_path / "diagnosis.json").write_bytes((folder / "diagnosis.json").read_bytes().replace(b"cannot", b"Cannot"))
    with pytest.raises(ValueError, match=r"diagnosis.json cannot be read \(.*\): remove it, or run training.diagnose again"):
        write_diagnosis_report(tmp_path)


def test_the_text_names_every_measure(found):
    from training.run.diagnosis import diagnosis_text

    _, diagnosis, _ = found
    text = diagnosis_text(diagnosis)
    names = ["chained", "gain", "clip", "contrast", "fine", "motion", "saturation", "colours", "sigma", "error/signal"]
    assert [line.split()[0] for line in text.splitlines()][:13] == [*names, "common", "sizes", "verdict"]
    contrast = next(line for line in text.splitlines() if line.startswith("contrast"))
    assert contrast.split()[1:3] == [f"{clip.value:.2f}" for clip in diagnosis.measures.contrast]
    assert "± " in text and "cannot tell: " in text


def test_levels_are_the_cells_of_the_trained_expert(wan_folder):
    from svi_core.recycling.error_recycling import make_bank
    from training.run.diagnosis import _levels

    for expert, expected in (("high", [1.0, 0.9375]), ("low", [5 / 6, 0.625]), ("single", [1.0, 0.9375, 5 / 6, 0.625])):
        trainer = make_trainer(wan_folder, settings(model={"expert": expert}))
        assert _levels(trainer, make_bank((16, 3, 4, 6), trainer.config.recycling)) == pytest.approx(expected)
    one_cell = settings(model={"expert": "low"}, recycling={"num_grids": 1})  # its one level, 1, is not the expert's
    trainer = make_trainer(wan_folder, one_cell)
    assert _levels(trainer, make_bank((16, 3, 4, 6), one_cell.recycling)) == pytest.approx([0.9], abs=1e-3)


def test_a_training_run_records_diagnoses_and_is_not_changed_by_them(wan_folder, tmp_path):
    from training.run.diagnosis import make_diagnoser
    from training.run.session import run_training

    loras = []
    for every in (0, 2):
        run = tmp_path / f"every{every}" / "run"
        config = config_for(wan_folder, run, loop={"steps": 4}, diagnosis={**SMALL, "every": every})
        assert run_training(config, Group(), lambda *_: FakeDataset(), diagnoser=make_diagnoser) == 0
        loras.append((run / "run.safetensors").read_bytes())
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found = [row for row in rows if row["kind"] == "diagnosis"]
        assert [row["step"] for row in found] == ([2, 4] if every else [])
        assert [row["picture"] for row in found] == [f"diagnosis/step_{row['step']:08d}.png" for row in found]
        assert all((run / row["picture"]).is_file() and isinstance(row["gain"], float) for row in found)
        page = write_report(run).read_text(encoding="utf-8")
        assert page.count("gain, and look of the last clip, by step") == (1 if every else 0)
    assert loras[0] == loras[1]
    assert found[0]["measures"] != found[1]["measures"]  # of the LoRA as it was then


def test_a_diagnosis_that_fails_or_is_stopped_does_not_end_the_training(wan_folder, tmp_path, monkeypatch, caplog):
    from training.run import diagnosis as module
    from training.run.run_folder import RunFolder

    trainer = make_trainer(wan_folder, config_for(wan_folder, tmp_path / "run", diagnosis={**SMALL, "every": 1}))
    run = RunFolder(tmp_path / "run", Group())
    make = module.make_diagnoser(trainer, run)
    caplog.set_level("INFO", logger="training")
    assert make(lambda: True) is None and "the diagnosis of step 0 is abandoned, because the run stops" in caplog.text
    monkeypatch.setattr(module, "diagnose", lambda *_: 1 / 0)
    assert make(lambda: False) is None and "the diagnosis of step 0 failed; training goes on without it" in caplog.text
    run.close()


def test_numbers_that_mean_nothing_are_left_out(found):
    from training.run.diagnosis import _scalars

    measures = replace(found[1].measures, motion=(Estimate(float("nan"), float("nan")),))
    assert _scalars(measures)["motion"] is None and _scalars(measures)["gain"] == measures.gain.value
