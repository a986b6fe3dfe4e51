import pytest

from svi_core.files.checked_file import SET_ASIDE, is_unchanged, set_aside, write_hash


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sound.m4a"
    path.write_bytes(b"sound")
    write_hash(path)
    return path


def aside(file):
    return [path.read_bytes() for path in (file.parent / SET_ASIDE).iterdir()]


def test_a_file_with_its_bytes_is_unchanged(file):
    assert is_unchanged(file) and not (file.parent / SET_ASIDE).exists()


@pytest.mark.parametrize("missing", [".m4a", ".json"])
def test_without_one_of_the_two_it_is_made_again_without_a_word(file, missing, caplog):
    file.with_suffix(missing).unlink()
    assert not is_unchanged(file) and not (file.parent / SET_ASIDE).exists() and not caplog.text


def test_a_changed_file_is_set_aside_and_named(file, caplog):
    file.write_bytes(b"sounD")
    assert not is_unchanged(file) and not file.exists() and aside(file) == [b"sounD"]
    assert f"{file} cannot be trusted" in caplog.text


def test_a_damaged_hash_is_set_aside_and_the_file_stays(file):
    file.with_suffix(".json").write_bytes(b"\xff")
    assert not is_unchanged(file) and file.read_bytes() == b"sound" and aside(file) == [b"\xff"]


def test_what_is_set_aside_is_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr("svi_core.files.checked_file.time.time_ns", lambda: 7)
    for content in (b"1", b"2"):
        (tmp_path / "a").write_bytes(content)
        set_aside(tmp_path / "a", "it is damaged")
    assert sorted(aside(tmp_path / "a")) == [b"1", b"2"]
