"""The high-noise expert trains on errors that the low-noise expert made; such a run resumes bit for bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from svi_core.recycling.exported_bank import read_banks
from tests.training.fakes import FakeDataset, settings
from training import bank
from training.method import erft_step
from training.method.distributed import Group
from training.run import error_source
from training.run.error_source import find_source
from training.settings.reader import config_table, load_config

pytestmark = pytest.mark.usefixtures("training_mode")
CONFIGS = Path(__file__).resolve().parents[3] / "training" / "configs"
BOUNDARY = 0.9


def config_for(wan_folder: Path, run: Path, expert: str, storage: str = "file", **sections):
    others = sections.pop("image_errors_from", "")
    model = {"expert": expert, "path": str(wan_folder / "fp32.safetensors")}
    sections = {"recycling": {"capacity": 8, "num_grids": 8}, **sections}
    return settings(run, model=model, bank={"storage": storage, "image_errors_from": str(others)}, **sections)


def train(config, resume: bool = False, data=None) -> None:
    from training.run.session import run_training

    assert run_training(config, Group(), lambda *_: data or FakeDataset(), resume=resume) == 0


@pytest.fixture
def low(wan_folder, tmp_path) -> Path:
    """A finished run of the low-noise expert."""
    train(config_for(wan_folder, tmp_path / "low", "low", loop={"steps": 12, "checkpoint_every": 6}))
    return tmp_path / "low"


@pytest.fixture
def drawn(monkeypatch) -> list[torch.Tensor]:
    """The image errors that are drawn while a test runs."""
    found, original = [], erft_step.draw_injection

    def recording(*arguments):
        injection = original(*arguments)
        if injection.image_error is not None:
            found.append(injection.image_error)
        return injection

    monkeypatch.setattr(erft_step, "draw_injection", recording)
    return found


def windows(banks) -> dict[float, list[torch.Tensor]]:
    """All image errors of one slot that the banks can give, by their noise level."""
    found: dict[float, list[torch.Tensor]] = {}
    for each in banks.values():
        for sigma, values in (entry for grid in range(each.grid.num_grids) for entry in each.contents(grid)):
            found.setdefault(sigma, []).extend(-sigma * values[:, slot : slot + 1].float() for slot in range(values.shape[1]))
    return found


def sources_of(errors, banks) -> list[float]:
    """The noise level at which each of `errors` was made, by the banks that hold it."""
    levels = windows(banks)
    return [
        sigma
        for error in errors
        for sigma, candidates in levels.items()
        if any(torch.equal(error, item) for item in candidates)
    ]


def test_every_image_error_was_made_by_the_low_noise_expert(wan_folder, tmp_path, low, drawn):
    drawn.clear()
    high = config_for(wan_folder, tmp_path / "high", "high", image_errors_from=low)
    train(high)
    banks = read_banks(tmp_path / "high" / error_source.COPY)[2]
    levels = sources_of(drawn, banks)
    assert len(drawn) >= 3 and len(levels) == len(drawn)
    assert max(levels) < BOUNDARY


def test_without_it_none_is(wan_folder, tmp_path, low, drawn):
    error_source.export_banks(low, tmp_path / "low.safetensors")
    drawn.clear()
    train(config_for(wan_folder, tmp_path / "high", "high"))
    assert len(drawn) >= 3 and sources_of(drawn, read_banks(tmp_path / "low.safetensors")[2]) == []


def test_the_recommended_run_names_the_low_noise_expert_and_the_other_does_not():
    recommended, independent = (load_config(CONFIGS / f"{name}.toml") for name in ("pro_high", "pro_high_independent"))
    assert recommended.bank.image_errors_from == load_config(CONFIGS / "pro_low.toml").run
    assert independent.bank.image_errors_from == ""
    tables = config_table(recommended), config_table(independent)
    for table in tables:
        table["bank"].pop("image_errors_from")
    assert tables[0] == tables[1]


@pytest.mark.parametrize("storage", ["ram", "file"])
def test_resumes_bit_for_bit_while_the_other_run_goes_on(wan_folder, tmp_path, low, storage):
    whole, parts = (
        config_for(wan_folder, tmp_path / name, "high", storage, image_errors_from=low, name="same") for name in ("a", "b")
    )
    train(whole)
    half = config_for(wan_folder, tmp_path / "b", "high", storage, image_errors_from=low, name="same", loop={"steps": 4})
    train(half)
    shutil.rmtree(low)
    train(parts, resume=True)
    first, second = (load_file(tmp_path / name / "same.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_run_wants_the_errors_that_it_began_with(wan_folder, tmp_path, low):
    config = config_for(wan_folder, tmp_path / "high", "high", image_errors_from=low)
    train(config)
    copy = tmp_path / "high" / error_source.COPY
    error_source.export_banks(tmp_path / "high", tmp_path / "others.safetensors")
    kept = copy.read_bytes()
    shutil.copy(tmp_path / "others.safetensors", copy)
    with pytest.raises(ValueError, match=r"belongs to another training run \(image errors \(bank.image_errors_from\)"):
        train(config, resume=True)
    copy.unlink()
    with pytest.raises(
        ValueError, match=r"image_errors\.safetensors is missing, and bank.image_errors_from = '.*low' is no file"
    ):
        train(config, resume=True)
    copy.write_bytes(kept)
    train(config, resume=True)


def test_a_resumed_run_is_described_by_the_errors_that_it_began_with(wan_folder, tmp_path, low):
    config = config_for(wan_folder, tmp_path / "high", "high", image_errors_from=low)
    train(config)
    expected = find_source(config, FakeDataset())
    shutil.rmtree(low)
    found = find_source(config, FakeDataset(), resume=True)
    assert found.name == str(tmp_path / "high" / error_source.COPY)
    assert (found.facts, found.fills) == (expected.facts, expected.fills)


def test_a_source_opens_without_a_copy(wan_folder, tmp_path, low):
    config = config_for(wan_folder, tmp_path / "high", "high", image_errors_from=low)
    error_source.export_banks(low, tmp_path / "low.safetensors")
    from_file = replace(config, bank=replace(config.bank, image_errors_from=str(tmp_path / "low.safetensors")))
    first, second = (windows(find_source(each, FakeDataset()).open().banks) for each in (config, from_file))
    assert first.keys() == second.keys() and len(first) >= 3
    for sigma, errors in first.items():
        assert all(map(torch.equal, errors, second[sigma]))
    assert not (tmp_path / "high").exists()


def test_a_run_of_before_resumes_with_equal_numbers(wan_folder, tmp_path):
    """Its settings lack bank.image_errors_from."""
    whole, parts = (config_for(wan_folder, tmp_path / name, "high", name="same") for name in ("a", "b"))
    train(whole)
    train(config_for(wan_folder, tmp_path / "b", "high", name="same", loop={"steps": 4}))
    table = config_table(parts)
    del table["bank"]["image_errors_from"]
    (tmp_path / "b" / "config.json").write_text(json.dumps(table))
    from training.run.run_folder import resumed_config

    train(resumed_config(tmp_path / "b"), resume=True)
    first, second = (load_file(tmp_path / name / "same.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_file_does_the_same_as_the_run(wan_folder, tmp_path, low, capsys):
    file = tmp_path / "low.safetensors"
    assert bank.main([str(low), str(file)]) == 0
    assert "errors of the low expert after step 12" in capsys.readouterr().out
    for name, source in (("a", low), ("b", file)):
        train(config_for(wan_folder, tmp_path / name, "high", image_errors_from=source, name="same"))
    assert not (tmp_path / "b" / error_source.COPY).exists()
    first, second = (load_file(tmp_path / name / "same.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert bank.main([str(tmp_path / "none"), str(file)]) == 2
    assert "has no checkpoint, and so no errors" in capsys.readouterr().err


def test_faults_are_found_before_the_model_is_loaded(wan_folder, tmp_path, low, monkeypatch):
    from training.run import assembly

    monkeypatch.setattr(assembly, "load_configured_backbone", lambda config: pytest.fail("the model was loaded"))

    def refused(message: str, data=None, **changes) -> None:
        config = config_for(wan_folder, tmp_path / "high", "high", **{"image_errors_from": low, **changes})
        with pytest.raises(ValueError, match=message):
            train(config, data=data)
        with pytest.raises(ValueError, match=message):
            find_source(config, data or FakeDataset())

    start = {"start_from": str(tmp_path / "gone.safetensors")}
    with pytest.raises(ValueError, match="lora.start_from is .*gone"):
        train(config_for(wan_folder, tmp_path / "high", "high", image_errors_from=low, lora=start))
    assert not (tmp_path / "high" / error_source.COPY).exists()
    refused("there is no such run or file: train that run first", image_errors_from=tmp_path / "nowhere")
    refused("is .*the run itself", image_errors_from=tmp_path / "high")
    refused("recycling.num_grids 8, not 6", recycling={"num_grids": 6})
    refused("holds no errors of latents 16x3x6x4, only of 16x3x4x6", data=FakeDataset(mixed=True))
    (tmp_path / "text.safetensors").write_text("no bank")
    refused("cannot be read as safetensors", image_errors_from=tmp_path / "text.safetensors")
    (next((low / "checkpoints").glob("step_00000012")) / "bank_0.safetensors").write_bytes(b"damaged")
    refused(r"step_00000012 cannot be used \(ValueError: bank_0.safetensors is damaged\): resume that run once")
