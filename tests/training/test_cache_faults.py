"""A cache that is damaged, locked, out of room or killed: named, encoded again, nothing finished lost."""

import errno
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svi_core.files import atomic_file
from tests.training.fake_encoders import FakeEncoders
from tests.training.small_cache import entries, settings
from tests.training.synthetic_clips import write_numbered
from training.data import build_cache as cache_module
from training.data.build_cache import build_cache
from training.data.dataset import CachedDataset
from training.data.store import CacheFolder
from training.settings.data import DataConfig


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 4  # in the tensors, where safetensors notices nothing
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another(path: Path) -> None:
    others = [other for other in sorted(path.parent.iterdir()) if other != path]
    shutil.copy(others[0], path)


def pickled(path: Path) -> None:
    torch.save({"latent": torch.zeros(1)}, path)


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, empty, of_another, pickled])
@pytest.mark.parametrize("kind", ["windows", "texts"])
def test_a_damaged_entry_is_named_refused_and_made_again(clips, damage, kind):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    before = {path: path.read_bytes() for path in entries(config, kind)}
    damage(entries(config, kind)[1])
    dataset = CachedDataset(config.cache_folder, config)
    with pytest.raises(ValueError, match=entries(config, kind)[1].name):
        [dataset.example(0, step) for step in range(3)]
    report = build_cache(config, FakeEncoders())
    assert len(report.repaired) == 1 and entries(config, kind)[1].name in report.repaired[0].reason
    assert report.repaired[0].where in report.summary()
    assert {path: path.read_bytes() for path in entries(config, kind)} == before


def test_a_missing_entry_is_named(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    entries(config)[0].unlink()
    dataset = CachedDataset(config.cache_folder, config)
    with pytest.raises(ValueError, match="is missing: run python -m training.cache"):
        [dataset.example(0, step) for step in range(3)]
    assert build_cache(config, FakeEncoders()).num_encoded == 1


def test_a_damaged_scan_or_index_is_made_again(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    for path in [*config.cache_folder.glob("clips/*.json"), *config.cache_folder.glob("index-*.json")]:
        path.write_text(path.read_text().replace("9", "8"))
    with pytest.raises(ValueError, match="no finished cache"):
        CachedDataset(config.cache_folder, config)
    report = build_cache(config, FakeEncoders())
    assert report.num_reused == 3 and len(CachedDataset(config.cache_folder, config)) == 3


def test_two_processes_cannot_write_one_cache(clips):
    config = settings(clips)
    with CacheFolder(config.cache_folder), pytest.raises(ValueError, match="in use by another process"):
        build_cache(config, FakeEncoders())
    build_cache(config, FakeEncoders())


def test_a_cache_that_cannot_be_written_says_what_to_do(clips, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="set data.cache to a folder that can be written.*file"):
        build_cache(settings(clips, cache=str(tmp_path / "file")), FakeEncoders())


def test_a_disk_that_is_too_small_stops_the_run_before_it_begins(clips, monkeypatch):
    usage = shutil.disk_usage(clips)._replace(free=1_000_000)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    encoders = FakeEncoders()
    with pytest.raises(ValueError, match=r"0.0 GB free, 3 more examples need 0.0 GB: free space"):
        build_cache(settings(clips), encoders)
    assert encoders.num_texts == 0


def test_a_disk_that_fills_up_keeps_what_is_finished(clips, monkeypatch):
    config = settings(clips)
    real, finals = os.replace, []

    def full(staging: Path, final: Path) -> None:
        finals.append(final)
        if sum("windows" in str(path) for path in finals) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(staging, final)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left.*free space.*windows"):
            build_cache(config, FakeEncoders())
    assert len(entries(config)) == 1
    report = build_cache(config, FakeEncoders())
    assert (report.num_reused, report.num_encoded) == (1, 2)


def test_prune_removes_what_no_configuration_uses(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    film = replace(config, layout="Film")
    assert build_cache(film, FakeEncoders()).num_unused == 0  # the first configuration still counts
    report = build_cache(film, FakeEncoders(vae="vae B"))
    assert report.num_unused == 3 and "--prune" in report.summary()
    assert build_cache(film, FakeEncoders(vae="vae B"), prune=True).num_unused == 0
    assert len(entries(config)) == 6
    assert len(CachedDataset(config.cache_folder, config)) == 3


def run_and_die(config: DataConfig, commits: int) -> None:
    """Build the cache, and be killed at the commit number `commits`, before or after the rename in turn."""
    real, seen = os.replace, []

    def replace_or_die(source, destination):
        seen.append(destination)
        if len(seen) == commits // 2 + 1 and commits % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, destination)
        if len(seen) == commits // 2 + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    atomic_file.os.replace = replace_or_die
    build_cache(config, FakeEncoders())
    os._exit(0)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a cache but the report, whose counts differ, and the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("report.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_at_every_commit_it_goes_on_to_the_same_files(tmp_path):
    clips = tmp_path / "clips"
    write_numbered(clips / "a.mp4", 12)
    (clips / "a.txt").write_text("A clip")
    whole = settings(clips, cache=str(tmp_path / "whole"), variants=2)
    build_cache(whole, FakeEncoders())
    expected = content(whole.cache_folder)
    fork = multiprocessing.get_context("fork")
    num_commits = len(expected) + 1  # and the report
    for commits in range(2 * num_commits + 1):
        config = settings(clips, cache=str(tmp_path / "killed" / str(commits)), variants=2)
        process = fork.Process(target=run_and_die, args=(config, commits))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if commits < 2 * num_commits else 0)
        finished = sum(atomic_file.STAGING_MARK not in path.name for path in entries(config))
        report = build_cache(config, FakeEncoders())
        assert report.num_reused == finished and not report.repaired
        assert content(config.cache_folder) == expected
