import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svi_core.files.safetensors_file import read_tensors, write_tensors
from svi_core.flow.timestep_grid import TimestepGrid
from svi_core.recycling import bank_file
from svi_core.recycling.bank_file import ENTRY_ALIGNMENT, FileStorage
from svi_core.recycling.error_bank import ErrorBank, Replacement

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (2, 3, 2, 2)
ENTRY_BYTES = 2 * 2 * 3 * 2 * 2
GRID = TimestepGrid(num_grids=2)
SIGMAS = (1.0, GRID.sigmas[1])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def residual(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).bfloat16()


def open_bank(folder, capacity=2, replacement=Replacement.MOST_SIMILAR, **options):
    storage = FileStorage(folder, SHAPE, grid=GRID, capacity=capacity, **options)
    return ErrorBank(SHAPE, grid=GRID, capacity=capacity, replacement=replacement, storage=storage)


def in_memory(capacity=2, replacement=Replacement.MOST_SIMILAR):
    return ErrorBank(SHAPE, grid=GRID, capacity=capacity, replacement=replacement)


def add(bank, seeds):
    for seed in seeds:
        bank.add(residual(seed), SIGMAS[seed % 2], torch.Generator().manual_seed(seed))


def contents(bank):
    return [[(sigma, values.float().flatten().tolist()) for sigma, values in bank.contents(grid)] for grid in range(2)]


@pytest.mark.parametrize("replacement", Replacement)
def test_disk_and_ram_hold_the_same(tmp_path, replacement):
    """Also after closing, opening and restoring, in the middle of it all."""
    other, snapshot = in_memory(3, replacement), None
    for begin in range(0, 40, 10):
        bank = open_bank(tmp_path / "bänk", 3, replacement)
        assert len(bank) == 0
        if snapshot:
            bank.restore(snapshot)
        add(bank, range(begin, begin + 10))
        add(other, range(begin, begin + 10))
        assert contents(bank) == contents(other) and bank.statistics() == other.statistics()
        numbers = [torch.Generator().manual_seed(begin) for _ in range(2)]
        for sigma in SIGMAS:
            assert torch.equal(bank.sample_noise_error(sigma, numbers[0]), other.sample_noise_error(sigma, numbers[1]))
            assert torch.equal(bank.sample_image_error(2, numbers[0]), other.sample_image_error(2, numbers[1]))
        snapshot = bank.snapshot()
        bank.close()


def test_a_window_is_read_without_the_rest_of_the_entry(tmp_path, monkeypatch):
    """An entry of 24 MB is mapped; of its slots only those that are asked for become resident memory."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("no /proc/self/smaps to count resident pages in")
    shape = (16, 24, 256, 128)
    storage = FileStorage(tmp_path, shape, grid=GRID, capacity=2)
    bank = ErrorBank(shape, grid=GRID, capacity=2, storage=storage)
    bank.add(torch.ones(shape), 1.0, torch.Generator())
    maps, read = [], storage.read
    monkeypatch.setattr(storage, "read", lambda entry: maps.append(read(entry)) or maps[-1])
    window = bank.sample_image_error(1, torch.Generator().manual_seed(2))
    assert window.shape == (16, 1, 256, 128) and torch.equal(window, -torch.ones_like(window))
    sizes, entry = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            entry = line.endswith("entries.bin")
        elif entry and line.startswith("Rss:"):
            sizes.append(int(line.split()[1]) * 1024)
    slot_bytes = 16 * 256 * 128 * 2
    assert len(sizes) == 1 and slot_bytes <= sizes[0] <= 2 * slot_bytes, (sizes, slot_bytes)
    storage.close()


def test_the_file_grows_with_the_bank_only(tmp_path):
    bank = open_bank(tmp_path, capacity=500)
    add(bank, range(4))
    assert (tmp_path / "entries.bin").stat().st_size == 3 * ENTRY_ALIGNMENT + ENTRY_BYTES
    bank.close()


@pytest.mark.parametrize(
    "length", [0, 1, ENTRY_BYTES - 1, ENTRY_ALIGNMENT + ENTRY_BYTES, 2 * ENTRY_ALIGNMENT + ENTRY_BYTES - 1]
)
def test_entries_cut_short_are_refused(tmp_path, length):
    bank = open_bank(tmp_path, 8)
    add(bank, range(3))
    snapshot = bank.snapshot()
    bank.close()
    entries = (tmp_path / "entries.bin").read_bytes()
    (tmp_path / "entries.bin").write_bytes(entries[:length])
    num_whole = sum(length >= place * ENTRY_ALIGNMENT + ENTRY_BYTES for place in range(3))
    bank = open_bank(tmp_path, 8)
    with pytest.raises(ValueError, match=f"{3 - num_whole} of 3 entries of this snapshot were overwritten or damaged"):
        bank.restore(snapshot)
    bank.close()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2), byte=st.integers(0, ENTRY_BYTES - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_an_entry_is_found(tmp_path, place, byte, bit):
    folder = tmp_path / f"{place} {byte} {bit}"
    bank = open_bank(folder, 8)
    add(bank, range(3))
    snapshot = bank.snapshot()
    bank.close()
    data = bytearray((folder / "entries.bin").read_bytes())
    data[place * ENTRY_ALIGNMENT + byte] ^= 1 << bit
    (folder / "entries.bin").write_bytes(data)
    bank = open_bank(folder, 8)
    with pytest.raises(ValueError, match="1 of 3 entries of this snapshot"):
        bank.restore(snapshot)
    bank.close()
    shutil.rmtree(folder)


def add_and_save_without_end(folder):
    """Add 3 entries, save the snapshot, keep the last two, and so on."""
    bank = open_bank(folder, 2, num_snapshots=3)
    for step in count():
        add(bank, range(3 * step, 3 * step + 3))
        write_tensors(folder / f"{step}.snapshot", bank.snapshot())
        (folder / f"{step - 2}.snapshot").unlink(missing_ok=True)
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()


def test_a_killed_process_leaves_every_retained_snapshot_whole(tmp_path):
    """kill -9 between any two instructions of a process that adds and saves without end."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_bank_file as t
t.add_and_save_without_end(Path(sys.argv[1]))
"""
    for trial in range(3):
        folder = tmp_path / str(trial)
        with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as process:
            [process.stdout.readline() for _ in range(10 + 7 * trial)]
            process.send_signal(signal.SIGKILL)
        saved = sorted((int(path.stem), path) for path in folder.glob("[0-9]*.snapshot") if "staging" not in path.name)
        assert len(saved) >= 2 and saved[-1][0] >= 9
        for step, path in saved:
            bank, other = open_bank(folder, 2, num_snapshots=3), in_memory()
            bank.restore(read_tensors(path)[0])
            add(other, range(3 * step + 3))
            assert contents(bank) == contents(other)
            bank.close()


@pytest.mark.parametrize("replacement", Replacement)
def test_going_back_to_a_snapshot_replays_bit_for_bit(tmp_path, replacement):
    whole = open_bank(tmp_path / "whole", 2, replacement)
    add(whole, range(15))
    snapshot = whole.snapshot()
    at_snapshot = contents(whole)
    add(whole, range(15, 30))
    whole.snapshot()
    whole.close()
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    bank = open_bank(tmp_path / "resumed", 2, replacement)
    bank.restore(snapshot)
    assert contents(bank) == at_snapshot
    add(bank, range(15, 30))
    bank.snapshot()
    bank.close()
    for name in ("entries.bin", "bank.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name


def test_the_last_snapshots_can_be_gone_back_to_in_any_order(tmp_path):
    bank = open_bank(tmp_path, 2, num_snapshots=3)
    taken = []
    for step in range(6):
        add(bank, range(10 * step, 10 * step + 10))
        taken.append((bank.snapshot(), contents(bank)))
    bank.close()
    for snapshot, wanted in (taken[5], taken[3], taken[4], taken[5]):
        bank = open_bank(tmp_path, 2, num_snapshots=3)
        bank.restore(snapshot)
        assert contents(bank) == wanted
        bank.close()
    bank = open_bank(tmp_path, 2, num_snapshots=3)
    with pytest.raises(ValueError, match="entries of this snapshot were overwritten"):
        bank.restore(taken[0][0])
    assert len(bank) == 0  # refused, and nothing changed
    bank.close()


def test_places_are_used_again(tmp_path):
    """However long the training, the file holds the bank, the snapshots' entries, and what one interval adds."""
    bank = open_bank(tmp_path, 2, num_snapshots=2)
    sizes = []
    for step in range(40):
        add(bank, range(5 * step, 5 * step + 5))
        bank.snapshot()
        sizes.append((tmp_path / "entries.bin").stat().st_size)
    bank.close()
    assert max(sizes) <= (4 + 2 * 4 + 5) * ENTRY_ALIGNMENT  # 200 entries came and went


def test_going_back_and_on_overwrites_what_came_after(tmp_path):
    bank = open_bank(tmp_path, 2)
    add(bank, range(6))
    first = bank.snapshot()
    wanted = contents(bank)
    add(bank, range(6, 12))
    second = bank.snapshot()
    bank.restore(first)
    add(bank, range(20, 26))
    with pytest.raises(ValueError, match="entries of this snapshot were overwritten"):
        bank.restore(second)
    bank.restore(first)
    assert contents(bank) == wanted
    bank.close()


def test_a_cleared_bank_begins_anew_and_its_snapshots_wait(tmp_path):
    bank = open_bank(tmp_path, 2)
    add(bank, range(6))
    snapshot, wanted = bank.snapshot(), contents(bank)
    bank.clear()
    assert len(bank) == 0 and bank.sample_image_error(1, torch.Generator()) is None
    bank.restore(snapshot)
    assert contents(bank) == wanted
    bank.clear()
    add(bank, [1])
    assert [cell.fill for cell in bank.statistics()] == [0, 1]
    with pytest.raises(ValueError, match="entries of this snapshot were overwritten"):
        bank.restore(snapshot)
    bank.close()


def test_what_is_refused(tmp_path):
    bank = open_bank(tmp_path / "a", 2)
    add(bank, range(3))
    snapshot = bank.snapshot()
    with pytest.raises(ValueError, match="in use"):
        open_bank(tmp_path / "a", 2)
    with pytest.raises(ValueError, match="belongs to an error bank in RAM"):
        bank.restore(in_memory().snapshot())
    bank.close()
    with pytest.raises(ValueError, match="capacity 2 instead of 3"):
        open_bank(tmp_path / "a", 3)
    with pytest.raises(ValueError, match=r"entry_shape \[2, 3, 2, 2\] instead of \[2, 4, 2, 2\]"):
        FileStorage(tmp_path / "a", (2, 4, 2, 2), grid=GRID, capacity=2)
    with pytest.raises(ValueError, match="num_snapshots is 0"):
        open_bank(tmp_path / "a", 2, num_snapshots=0)
    other = open_bank(tmp_path / "b", 2)
    with pytest.raises(ValueError, match="or it is the snapshot of another folder"):
        other.restore(snapshot)
    with pytest.raises(ValueError, match="belongs to an error bank on disk"):
        in_memory().restore(snapshot)
    with pytest.raises(ValueError, match="b is not the error bank of this snapshot"):
        other.restore({"journal": torch.tensor([2, 77])})
    other.close()


@pytest.mark.parametrize("damage", [b"{half", b"\xff\xfe", b"", None])
def test_damaged_settings_of_entries_are_refused(tmp_path, damage):
    bank = open_bank(tmp_path, 2)
    add(bank, range(4))
    snapshot, path = bank.snapshot(), tmp_path / "bank.json"
    written = path.read_bytes()
    bank.close()
    damage = damage if damage is not None else written.replace(b'"capacity": 2', b'"capacity": 3')
    assert damage != written
    path.write_bytes(damage)
    for capacity in (2, 3):
        with pytest.raises(
            ValueError, match=r"bank\.json is damaged \(it.*bring it back from a copy.*you can also delete this file"
        ):
            open_bank(tmp_path, capacity)
    assert path.read_bytes() == damage and not (tmp_path / "set_aside").exists()
    path.unlink()
    again = open_bank(tmp_path, 2)
    again.restore(snapshot)
    assert len(again) == len(snapshot["places"]) and path.read_bytes() == written
    again.close()


def test_damaged_settings_of_an_empty_bank_are_set_aside(tmp_path, caplog):
    open_bank(tmp_path, 2).close()
    path = tmp_path / "bank.json"
    written = path.read_bytes()
    path.write_bytes(b"{half")
    open_bank(tmp_path, 2).close()
    assert path.read_bytes() == written and "bank.json cannot be trusted" in caplog.text
    assert [file.read_bytes() for file in (tmp_path / "set_aside").iterdir()] == [b"{half"]


def test_a_small_disk_is_refused_before_training(tmp_path, monkeypatch):
    free = SimpleNamespace(free=bank_file.RESERVED_DISK_BYTES + 3 * ENTRY_ALIGNMENT)
    monkeypatch.setattr(bank_file.shutil, "disk_usage", lambda _: free)
    with pytest.raises(ValueError, match="error bank may grow by"):
        open_bank(tmp_path / "too large", 2)
    bank = open_bank(tmp_path / "fits", 2, expected_entries=3)
    add(bank, range(3))
    snapshot = bank.snapshot()
    bank.close()
    bank = open_bank(tmp_path / "fits", 2)  # 3 of 4 entries are there already
    bank.restore(snapshot)
    free.free = bank_file.RESERVED_DISK_BYTES
    with pytest.raises(OSError, match="no room for another error"):
        add(bank, [3])
    assert len(bank) == 3
    bank.close()


def half_a_write(file, offset, data):
    file.seek(offset)
    file.write(memoryview(data)[: len(data) // 2])
    raise OSError(28, "No space left on device")


def test_half_an_entry_over_an_old_snapshots_is_found(tmp_path, monkeypatch):
    bank = open_bank(tmp_path, 1, Replacement.FIFO, num_snapshots=1)
    add(bank, [0])
    old = bank.snapshot()
    add(bank, [2])
    bank.snapshot()  # the place of entry 0 is free now
    with monkeypatch.context() as patch:
        patch.setattr("svi_core.recycling.bank_file._write_at", half_a_write)
        with pytest.raises(OSError, match="No space left"):
            add(bank, [4])
    with pytest.raises(ValueError, match="1 of 1 entries of this snapshot were overwritten"):
        bank.restore(old)
    bank.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_write_leaves_the_bank_as_it_was(tmp_path, monkeypatch):
    bank = open_bank(tmp_path, 2)
    add(bank, range(3))
    before = contents(bank)

    with monkeypatch.context() as patch:
        patch.setattr("svi_core.recycling.bank_file._write_at", half_a_write)
        with pytest.raises(OSError, match="No space left.*entries.bin"):
            add(bank, [3])
    assert contents(bank) == before
    add(bank, [3])
    after, snapshot = contents(bank), bank.snapshot()
    bank.close()
    bank = open_bank(tmp_path, 2)
    bank.restore(snapshot)
    assert contents(bank) == after and len(bank) == 4
    bank.close()
