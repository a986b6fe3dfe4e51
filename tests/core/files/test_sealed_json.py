"""No single changed byte of a sealed object goes unnoticed, and objects of earlier versions are still read."""

import json

import pytest

from svi_core.files.sealed_json import read_sealed, sealed, unsealed, write_sealed

FACTS = {"key": "ab" * 32, "step": 6, "rate": 0.1 + 0.2, "on": True, "none": None, "names": ["ü", {"x": 1e-300}]}


def test_round_trip(tmp_path):
    write_sealed(tmp_path / "a.json", FACTS)
    assert read_sealed(tmp_path / "a.json") == FACTS


def test_tuples_come_back_as_lists():
    assert unsealed(json.dumps(sealed({"pair": (1, 2)})).encode()) == {"pair": [1, 2]}


@pytest.mark.parametrize("bit", [1, 4, 0x20, 0x80])
def test_every_flipped_byte_is_noticed_or_changes_nothing(bit):
    data = json.dumps(sealed(FACTS)).encode()
    noticed = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= bit
        try:
            assert unsealed(bytes(damaged)) == FACTS, damaged
        except ValueError:
            noticed += 1
    assert noticed > 0.9 * len(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"\xff\xfe{}", b"\x00" * 9, b"[" * 100_000, b'{"checksum": 0}'])
def test_what_is_no_sealed_object_is_refused(data):
    with pytest.raises(ValueError):
        unsealed(data)


def test_an_object_of_an_earlier_version_has_no_checksum():
    assert unsealed(json.dumps(FACTS).encode()) == FACTS
