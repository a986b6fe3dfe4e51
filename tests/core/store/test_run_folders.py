"""A run whose name holds the time goes on where it began; another run gets a folder of its own time."""

import json
import os
import time
from pathlib import Path

import pytest

from svi_core.store.run_folders import choose_run_folder, newest_run_folder

PREFIX = "svi/%date:yyyy-MM-dd%/story"
TODAY = time.struct_time((2026, 3, 9, 7, 5, 2, 0, 68, 0))
KEY, OTHER = "a" * 64, "b" * 64


def begun(root, name, plan_key, used=0, files=(".safetensors", ".json")):
    clips = root / name / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    for suffix in files:
        path = clips / f"{plan_key[::-1]}{suffix}"
        path.write_text(json.dumps({"key": path.stem, "plan_key": plan_key}))
    (root / name / "run.json").touch()
    os.utime(root / name / "run.json", (used, used))


def chosen(root, prefix=PREFIX, key=KEY):
    return choose_run_folder(root, prefix, key, TODAY).relative_to(root).as_posix()


def test_a_new_run_gets_the_folder_of_today(tmp_path):
    assert chosen(tmp_path) == "svi/2026-03-09/story"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_began_yesterday_goes_on_there(tmp_path):
    begun(tmp_path, "svi/2026-03-08/story", KEY, used=5)
    begun(tmp_path, "svi/2026-03-09/story", OTHER, used=9)
    assert chosen(tmp_path) == "svi/2026-03-08/story"
    assert chosen(tmp_path, key="c" * 64) == "svi/2026-03-09/story"
    assert chosen(tmp_path, key=OTHER) == "svi/2026-03-09/story"


def test_of_several_the_one_used_last_goes_on(tmp_path):
    begun(tmp_path, "svi/2025-01-01/story", KEY, used=9)
    begun(tmp_path, "svi/2026-03-08/story", KEY, used=5)
    assert chosen(tmp_path) == "svi/2025-01-01/story"


def test_a_run_that_was_stopped_before_its_first_video_counts_by_its_clips(tmp_path):
    begun(tmp_path, "svi/2026-03-08/story", KEY, used=5)
    begun(tmp_path, "svi/2026-03-07/story", KEY)
    (tmp_path / "svi/2026-03-07/story/run.json").unlink()
    assert chosen(tmp_path) == "svi/2026-03-07/story", "begun just now"


def test_older_folders_are_not_read_once_the_run_is_found(tmp_path, monkeypatch):
    for day in range(1, 10):
        begun(tmp_path, f"svi/2026-02-0{day}/story", KEY if day in (2, 8) else OTHER, used=day)
    read, read_bytes = [], Path.read_bytes

    def counted(path):
        read.append(path.parent.parent.parent.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert chosen(tmp_path) == "svi/2026-02-08/story"
    assert read == ["2026-02-09", "2026-02-08"]


def test_a_clip_whose_latent_or_record_is_gone_is_no_beginning(tmp_path):
    begun(tmp_path, "svi/2026-03-08/story", KEY, files=(".json",))
    begun(tmp_path, "svi/2026-03-07/story", KEY, files=(".safetensors",))
    assert chosen(tmp_path) == "svi/2026-03-09/story"


def test_a_name_without_time_is_that_folder(tmp_path):
    begun(tmp_path, "svi/story", OTHER)
    assert chosen(tmp_path, "svi/story") == "svi/story"


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
def test_a_link_that_leads_out_is_no_beginning(tmp_path):
    outside, output = tmp_path / "outside", tmp_path / "output"
    begun(outside, "story", KEY)
    (output / "svi").mkdir(parents=True)
    (output / "svi" / "2026-03-08").symlink_to(outside)
    assert chosen(output) == "svi/2026-03-09/story"


def test_the_newest_run_is_the_one_with_the_last_video(tmp_path):
    assert newest_run_folder(tmp_path, PREFIX, TODAY) == tmp_path / "svi/2026-03-09/story"
    for day, made in (("07", 9), ("08", 5)):
        folder = tmp_path / f"svi/2026-03-{day}/story"
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
        os.utime(folder / "run.json", (made, made))
    (tmp_path / "svi/2026-03-06/story").mkdir(parents=True)
    assert newest_run_folder(tmp_path, PREFIX, TODAY) == tmp_path / "svi/2026-03-07/story"
    assert newest_run_folder(tmp_path, "svi/story", TODAY) == tmp_path / "svi/story"
