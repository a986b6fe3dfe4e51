"""Sync-C and Sync-D come from SyncNet's own programs; a stand-in prints what they print."""

from pathlib import Path

import pytest

from batch.scoring.lip_sync import NEEDED, confidence_and_distance, missing

SYNCNET = """import sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert arguments["--reference"] == "video" and open(arguments["--videofile"]).read() == "a video"
print("Compute time 0.1 sec.")
for distance, confidence in TRACKS:
    print("AV offset: \\t3 \\nMin dist: \\t%.3f\\nConfidence: \\t%.3f" % (distance, confidence))
"""


@pytest.fixture
def syncnet(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "syncnet"
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "run_syncnet.py").write_text(SYNCNET.replace("TRACKS", "((8, 6), (9, 7.5))"))
    monkeypatch.setenv("SYNCNET_DIR", str(folder))
    (tmp_path / "talk.mp4").write_text("a video")
    return folder


def test_values_are_means_over_face_tracks(syncnet, tmp_path):
    assert missing() is None
    assert confidence_and_distance(tmp_path / "talk.mp4") == (6.75, 8.5)


def test_no_name_reaches_the_shell_of_syncnet(syncnet, tmp_path):
    shell = "import subprocess, sys\narguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
    shell += "subprocess.run('cat %s' % arguments['--videofile'], shell=True, check=True)\n"
    (syncnet / "run_pipeline.py").write_text(shell)
    evil = tmp_path / "a talk $(touch owned).mp4"
    evil.write_text("a video")
    assert confidence_and_distance(evil) == (6.75, 8.5)
    assert not (syncnet / "owned").exists()


def test_a_temporary_folder_that_a_shell_would_change_is_refused(syncnet, tmp_path, monkeypatch):
    (tmp_path / "my temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "my temp"))
    with pytest.raises(ValueError, match="set TMPDIR to a plain path"):
        confidence_and_distance(tmp_path / "talk.mp4")


def test_no_face_and_a_failure_are_named(syncnet, tmp_path):
    (syncnet / "run_syncnet.py").write_text(SYNCNET.replace("TRACKS", "()"))
    with pytest.raises(ValueError, match="found no face in talk.mp4"):
        confidence_and_distance(tmp_path / "talk.mp4")
    (syncnet / "run_pipeline.py").write_text("raise SystemExit('no CUDA')")
    with pytest.raises(ValueError, match="run_pipeline.py of SyncNet ended with 1: no CUDA"):
        confidence_and_distance(tmp_path / "talk.mp4")


def test_what_is_missing_is_named(syncnet, monkeypatch):
    (syncnet / "data" / "syncnet_v2.model").unlink()
    assert missing() == f"data/syncnet_v2.model not in {syncnet}"
    monkeypatch.delenv("SYNCNET_DIR")
    assert missing() == "SyncNet's folder is not named in SYNCNET_DIR"
