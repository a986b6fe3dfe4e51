"""Takes: which stored clip a schedule pins, and what is refused."""

import pytest
import torch

from svi_core.store.records import ClipRecord
from svi_core.store.run_store import RunStore, chain_key
from svi_core.store.takes import PinnedTakes, takes_by_index

KEYS = [chain_key(None, number) for number in range(3)]


@pytest.fixture
def folder(tmp_path):
    with RunStore(tmp_path / "run") as store:
        for number, key in enumerate(KEYS):
            record = ClipRecord(
                key, number // 2, f"prompt {number}", number, {}, plan_key=f"plan {number}", parent="", made=9.0 - number
            )
            store.save_latent(record, torch.zeros(1, 16, 3, 4, 6))
    return tmp_path / "run"


def test_the_beginning_of_a_key_names_a_take(folder):
    take = PinnedTakes(folder, (4, 6))(KEYS[1][:8])
    assert (take.key, take.num_slots, take.height, take.width) == (KEYS[1], 3, 4, 6)
    assert (take.plan_key, take.parent, take.record.prompt) == ("plan 1", "", "prompt 1")


def test_a_take_whose_record_is_gone_is_still_a_take(folder):
    (folder / "clips" / f"{KEYS[1]}.json").unlink()
    take = PinnedTakes(folder)(KEYS[1])
    assert (take.plan_key, take.parent, take.record) == (KEYS[1], None, None)


def test_a_take_that_is_removed_is_missed_at_once(folder):
    takes = PinnedTakes(folder)
    assert takes(KEYS[0][:12]).key == KEYS[0]
    (folder / "clips" / f"{KEYS[0]}.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"take {KEYS[0][:12]} is not among the stored clips of .*run: it was removed"):
        takes(KEYS[0][:12])
    with pytest.raises(ValueError, match="is not among the stored clips"):
        PinnedTakes(folder / "none")(KEYS[0])


def test_an_unclear_or_unfit_take_is_refused(folder):
    twin = KEYS[0][:10] + "f" * 54
    (folder / "clips" / f"{twin}.safetensors").write_bytes((folder / "clips" / f"{KEYS[0]}.safetensors").read_bytes())
    with pytest.raises(ValueError, match=f"take {KEYS[0][:10]} means 2 stored clips of .*: write more digits of its key"):
        PinnedTakes(folder)(KEYS[0][:10])
    with pytest.raises(ValueError, match=f"take {KEYS[1][:12]} is 48 x 32 pixels, but the video is 80 x 64"):
        PinnedTakes(folder, (8, 10))(KEYS[1][:12])
    (folder / "clips" / f"{KEYS[2]}.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=f"take {KEYS[2][:12]} cannot be read from"):
        PinnedTakes(folder)(KEYS[2][:12])


def test_takes_are_listed_by_place_in_the_order_they_were_made():
    records = [
        ClipRecord(str(n), place, "", 0, {}, made=made) for n, (place, made) in enumerate([(0, 2.0), (0, 1.0), (1, 0.0)])
    ]
    assert {place: [take.key for take in takes] for place, takes in takes_by_index(records).items()} == {
        1: ["2"],
        0: ["1", "0"],
    }
