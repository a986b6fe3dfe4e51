"""Numbers are measured once for the same bytes, and again if their file is damaged."""

import numpy as np

from batch.scoring.kept import KeptNumbers, kept_array


def test_numbers_are_measured_once(tmp_path):
    asked = []

    def measure() -> tuple[float, int]:
        asked.append(1)
        return 0.5, 3

    file = tmp_path / "new" / "pairs.json"
    for _ in range(2):
        assert KeptNumbers(file).get("a", measure) == [0.5, 3]
    assert KeptNumbers(file).get("b", measure) == [0.5, 3] and len(asked) == 2
    file.write_bytes(file.read_bytes()[:-3])
    assert KeptNumbers(file).get("a", measure) == [0.5, 3] and len(asked) == 3


def test_a_failure_keeps_nothing(tmp_path):
    def fails() -> list[float]:
        raise ValueError("no face")

    kept = KeptNumbers(tmp_path / "sync.json")
    for _ in range(2):
        try:
            kept.get("a", fails)
        except ValueError as error:
            assert str(error) == "no face"
    assert kept.get("a", lambda: [1.0]) == [1.0]


def test_an_array_is_measured_once(tmp_path):
    asked = []

    def measure() -> np.ndarray:
        asked.append(1)
        return np.arange(6.0).reshape(2, 3)

    for _ in range(2):
        assert np.array_equal(kept_array(tmp_path / "a.npy", measure), measure())
    assert len(asked) == 3, "two of them by the test itself"
    (tmp_path / "a.npy").write_bytes(b"")
    assert kept_array(tmp_path / "a.npy", measure).shape == (2, 3) and len(asked) == 4
