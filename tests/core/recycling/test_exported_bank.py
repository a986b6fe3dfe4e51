"""Banks in one file: what one run stored is what another draws, and damage is noticed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from svi_core.files.safetensors_file import write_tensors
from svi_core.flow.timestep_grid import TimestepGrid
from svi_core.recycling import exported_bank
from svi_core.recycling.bank_file import FileStorage
from svi_core.recycling.error_bank import ErrorBank
from svi_core.recycling.exported_bank import BankFacts, bank_of, read_banks, read_facts, stored_errors, write_banks

SHAPE = (2, 3, 2, 2)
GRID = TimestepGrid(num_grids=4)
FACTS = BankFacts(num_grids=4, shift=5.0, layout="2.0 Pro", model="abc", expert="low", step=7, window_slots=0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(folder=None, seeds=range(9)) -> ErrorBank:
    storage = FileStorage(folder, SHAPE, grid=GRID, capacity=3) if folder else None
    bank = ErrorBank(SHAPE, grid=GRID, capacity=3, storage=storage)
    for seed in seeds:
        bank.add(torch.randn(SHAPE, generator=seeded(seed)), GRID.sigmas[1 + seed % 3], seeded(seed))
    return bank


def contents(bank: ErrorBank) -> list:
    return [[(sigma, values.float().flatten().tolist()) for sigma, values in bank.contents(grid)] for grid in range(4)]


@pytest.mark.parametrize("on_disk", [False, True])
def test_another_run_draws_what_was_stored(tmp_path, on_disk):
    folder = tmp_path / "bank" if on_disk else None
    bank, path = filled(folder), tmp_path / "errors.safetensors"
    write_banks(path, {"2x3x2x2": stored_errors(bank.snapshot(), folder or tmp_path)}, FACTS)
    facts, _, banks = read_banks(path)
    assert facts == FACTS and contents(banks["2x3x2x2"]) == contents(bank)
    assert read_facts(path) == (FACTS, {"2x3x2x2": [0, 3, 3, 3]})
    for seed in range(20):
        ours, theirs = (source.sample_image_error(2, seeded(seed)) for source in (banks["2x3x2x2"], bank))
        assert ours is not None and theirs is not None and torch.equal(ours, theirs)
    bank.close()


def test_the_file_keeps_its_errors_while_the_bank_goes_on(tmp_path):
    bank, path = filled(tmp_path / "bank"), tmp_path / "errors.safetensors"
    write_banks(path, {"2x3x2x2": stored_errors(bank.snapshot(), tmp_path / "bank")}, FACTS)
    before = contents(bank)
    for seed in range(50, 80):
        bank.add(torch.randn(SHAPE, generator=seeded(seed)), GRID.sigmas[1 + seed % 3], seeded(seed))
    bank.snapshot()
    bank.close()
    assert contents(read_banks(path)[2]["2x3x2x2"]) == before


def test_errors_that_several_processes_share_count_once(tmp_path):
    errors = stored_errors(filled().snapshot(), tmp_path)
    others = stored_errors(filled(seeds=range(100, 103)).snapshot(), tmp_path)
    write_banks(tmp_path / "errors", {"2x3x2x2": [*errors, *errors, *others]}, FACTS)
    assert len(read_banks(tmp_path / "errors")[2]["2x3x2x2"]) == 12


def test_equal_banks_have_equal_hashes_and_others_do_not(tmp_path):
    errors = stored_errors(filled().snapshot(), tmp_path)
    for name, chosen, facts in (("a", errors, FACTS), ("b", errors, FACTS), ("c", errors[1:], FACTS)):
        write_banks(tmp_path / name, {"2x3x2x2": chosen}, facts)
    write_banks(tmp_path / "d", {"2x3x2x2": errors}, replace(FACTS, step=8))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len({read_banks(tmp_path / name)[1] for name in "abcd"}) == 3


def test_the_same_errors_are_drawn_without_a_file(tmp_path):
    bank = filled(tmp_path / "bank")
    errors = stored_errors(bank.snapshot(), tmp_path / "bank")
    assert contents(bank_of([*errors, *errors], FACTS)) == contents(bank)
    bank.close()


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(tmp_path, monkeypatch):
    errors = stored_errors(filled().snapshot(), tmp_path)
    monkeypatch.setattr(exported_bank.shutil, "disk_usage", lambda _: SimpleNamespace(free=700))
    with pytest.raises(OSError, match=r"the errors take 0.0 GiB in .*, but 0.0 GiB are free: free space, "):
        write_banks(tmp_path / "errors", {"2x3x2x2": errors}, FACTS)
    assert list(tmp_path.iterdir()) == []


def test_any_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "errors.safetensors"
    write_banks(path, {"2x3x2x2": stored_errors(filled().snapshot(), tmp_path)}, FACTS)
    sound = path.read_bytes()
    for place in range(0, len(sound), 17):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(ValueError, match=r"errors\.safetensors"):
            read_banks(path)
    path.write_bytes(sound[:-1])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_banks(path)


def test_other_files_are_refused_by_name(tmp_path):
    write_tensors(tmp_path / "lora.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(
        ValueError, match=r"lora\.safetensors is no file of error banks: make one with python -m training\.bank"
    ):
        read_facts(tmp_path / "lora.safetensors")


def test_an_error_overwritten_while_it_was_read_leaves_no_file(tmp_path):
    bank = filled(tmp_path / "bank")
    errors = stored_errors(bank.snapshot(), tmp_path / "bank")
    bank.close()
    entries = tmp_path / "bank" / "entries.bin"
    data = bytearray(entries.read_bytes())
    data[0] ^= 1
    entries.write_bytes(data)
    with pytest.raises(ValueError, match="an error was overwritten or damaged while it was read"):
        write_banks(tmp_path / "errors", {"2x3x2x2": errors}, FACTS)
    assert not (tmp_path / "errors").exists()


def test_a_bank_on_disk_without_its_files_is_refused(tmp_path):
    bank = filled(tmp_path / "bank")
    snapshot = bank.snapshot()
    bank.close()
    with pytest.raises(ValueError, match="moved cannot be read"):
        stored_errors(snapshot, tmp_path / "moved")
    (tmp_path / "bank" / "entries.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="is cut off"):
        stored_errors(snapshot, tmp_path / "bank")
    with pytest.raises(ValueError, match="index of an earlier version"):
        stored_errors({"journal": torch.tensor([1, 2])}, tmp_path / "bank")
