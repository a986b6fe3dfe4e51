"""What gives no clips is named with the reason, and is no failure of a strict run."""

import json
import os

import pytest

from training.data.ignored import find_ignored


def ignored(folder):
    return {item.where: item.reason for item in find_ignored(folder, folder / "svi_cache")}


def test_folders_of_pictures_are_named(tmp_path):
    for name in (
        "frames/0001.png",
        "frames/0002.png",
        "with video/a.jpg",
        "with video/a.mp4",
        ".hidden/a.png",
        "svi_cache/a.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (reason,) = ignored(tmp_path).values()
    assert "holds pictures (2) and no video" in reason and "ffmpeg -framerate 16 -i %04d.png clip.mp4" in reason
    (tmp_path / "top.WEBP").touch()
    assert list(ignored(tmp_path)) == [".", "frames"]


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
def test_linked_folders_are_named(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "elsewhere"
    (data / "cats").mkdir(parents=True), outside.mkdir()
    (data / "same").symlink_to(data / "cats")
    (data / "loop").symlink_to(data / "loop")
    assert ignored(data) == {}
    (data / "more").symlink_to(outside)
    assert ignored(data) == {
        "more": f"is a link to {outside}, which is not followed: set data.folder to that folder, or move it here"
    }


def test_hidden_files_are_passed_over(tmp_path):
    """macOS writes ._a.json beside each a.json on other file systems."""
    for name in ("._a.json", "._a.png", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    assert ignored(tmp_path) == {}


def test_json_files_that_are_no_tables_are_named(tmp_path):
    for name, value in {"a": {"caption": "x"}, "notes": {"x": 1}, "rows": [{"file": "a.mp4", "text": "x"}]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "a.mp4").touch()
    (tmp_path / "broken.json").write_text('[{"file": \n}')
    reasons = ignored(tmp_path)
    assert list(reasons) == ["broken.json", "notes.json"]
    assert "is not JSON (Expecting value at line 2, column 1)" in reasons["broken.json"]
    assert 'is not a table: write [{"file": ..., "caption": ...}]' in reasons["notes.json"]
