"""Whatever goes wrong, a file or folder is complete or absent."""

import errno
import os
import stat

import pytest
import torch

from svi_core.files.atomic_file import publish_folder, remove_stale_staging, staged, staging_folder, write_bytes
from svi_core.files.folder_lock import lock_folder
from svi_core.files.safetensors_file import read_tensors, write_tensors
from tests.small_disk import fill, small_disk


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "a.json", b"old")
    with pytest.raises(RuntimeError), staged(tmp_path / "a.json") as staging:
        staging.write_bytes(b"half")
        raise RuntimeError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_a_folder_appears_with_all_of_its_files_and_replaces_an_older_one(tmp_path):
    final = tmp_path / "step_1"
    for content in (b"old", b"new"):
        staging_folder(final).mkdir()
        write_bytes(staging_folder(final) / "state", content)
        publish_folder(final)
        assert [path.name for path in tmp_path.iterdir()] == ["step_1"] and (final / "state").read_bytes() == content


def test_what_a_killed_process_left_is_removed_files_and_folders(tmp_path):
    (tmp_path / "a.77.staging.json").touch()
    staging_folder(tmp_path / "step_1").mkdir()
    (staging_folder(tmp_path / "step_1") / "state").touch()
    (tmp_path / "b.json").touch()
    remove_stale_staging(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_mount_without_fsync_of_folders_is_written_all_the_same(tmp_path, monkeypatch, number):
    refuse_to_sync_folders(monkeypatch, number)
    staging_folder(tmp_path / "step_1").mkdir()
    write_bytes(staging_folder(tmp_path / "step_1") / "state", b"x")
    publish_folder(tmp_path / "step_1")
    assert (tmp_path / "step_1" / "state").read_bytes() == b"x"


def refuse_to_sync_folders(monkeypatch, number):
    real = os.fsync

    def refusing(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", refusing)


def test_a_full_disk_is_an_oserror_that_names_the_file_and_keeps_the_old_one(tmp_path):
    with small_disk(tmp_path / "disk", 16) as disk:
        write_tensors(disk / "a.safetensors", {"a": torch.ones(3)})
        fill(disk, 1)
        with pytest.raises(OSError, match="No space left on device: free space.*a.safetensors"):
            write_tensors(disk / "a.safetensors", {"a": torch.zeros(5000)})
        assert torch.equal(read_tensors(disk / "a.safetensors")[0]["a"], torch.ones(3))
        assert sorted(path.name for path in disk.iterdir()) == ["a.safetensors", "filler"]


def test_a_locked_folder_says_what_it_was_told_to(tmp_path):
    lock = lock_folder(tmp_path, "unused")
    with pytest.raises(ValueError, match="busy here"):
        lock_folder(tmp_path, "busy here")
    lock.release()
    lock_folder(tmp_path, "unused").release()
