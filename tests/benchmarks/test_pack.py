"""The archive for a bare machine: what is in it, what is refused, and that a broken one does not pass its trial."""

import stat
import sys
import tarfile
import zipfile

import pytest

from benchmarks.gpu import pack, unpacked_trial
from dev.setup_files import Layout, SetupError

CODE = "comfy/ldm/cosmos/cosmos_tokenizer/utils.py"  # code in a folder that is called like a tokenizer's files


@pytest.fixture
def entries(tmp_path):
    """The entries of a small tree and of a small wheel."""
    tree = tmp_path / "tree"
    for name in pack.TREE:
        path = tree / name if name.endswith(".py") else tree / name / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    odd = ("comfy/sd1_tokenizer/vocab.json", "comfy/text_encoders/t5_tokenizer/x.json", "comfy/__pycache__/a.pyc", CODE)
    for name in odd:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    (tree / "server.py").write_text("")
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("imageio_ffmpeg/binaries/ffmpeg-linux", "comfy_kitchen/backends/cuda/_C.abi3.so"):
            archive.writestr(name, b"x" * 1000)
        archive.writestr("comfy_kitchen/backends/hip/_C.abi3.so", b"y")
    return [*pack.tree_entries(tree), *pack.wheel_entries(wheel)]


@pytest.fixture
def archive(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "SEGMENT", 10_000)  # the tar file is several of them
    path = tmp_path / "carry.tar.xz"
    pack.write_archive(path, entries)
    return path


def test_the_archive_holds_what_is_needed_and_ffmpeg_can_run(archive, tmp_path):
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    assert {"ComfyUI/comfy/__init__.py", "ComfyUI/main.py", "site/comfy_kitchen/backends/cuda/_C.abi3.so"} <= names
    assert f"ComfyUI/{CODE}" in names
    assert not [name for name in names if any(part in name for part in ("sd1_", "t5_", "pycache", "hip", "server.py"))]
    pack.unpack(archive, tmp_path / "unpacked")
    ffmpeg = tmp_path / "unpacked" / "site" / "imageio_ffmpeg" / "binaries" / "ffmpeg-linux"
    assert ffmpeg.stat().st_mode & stat.S_IXUSR


def test_equal_entries_are_equal_bytes(archive, entries, tmp_path):
    pack.write_archive(tmp_path / "again.tar.xz", list(reversed(entries)))
    assert (tmp_path / "again.tar.xz").read_bytes() == archive.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_tree_of_another_kind_is_refused(tmp_path):
    with pytest.raises(SetupError, match="has no comfy: this script knows"):
        list(pack.tree_entries(tmp_path))


def test_an_archive_that_cannot_travel_is_refused(tmp_path):
    path = tmp_path / "carry.tar.xz"
    with path.open("wb") as file:
        file.truncate(52 * pack.MIB)
    assert pack.size_complaints(path, 8 * pack.MIB) == []
    assert ["60.1 MiB would travel" in told for told in pack.size_complaints(path, 8 * pack.MIB + 100_000)] == [True]
    with path.open("wb") as file:
        file.truncate(52 * pack.MIB + 100_000)
    assert "the archive has 52.1 MiB, 52 are allowed" in pack.size_complaints(path, 0)[0]


def test_the_tracked_files_leave_room_for_the_archive():
    assert pack.tracked_bytes() + pack.MAX_ARCHIVE < pack.MAX_TOGETHER


def test_a_wheel_of_another_content_is_deleted_and_refused(tmp_path):
    layout = Layout(runtime=tmp_path)
    folder = layout.downloads / "gpu"
    folder.mkdir(parents=True)
    names = [f"{wheel.requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl" for wheel in pack.WHEELS]
    for name in names:
        (folder / name).write_text("another")
    with pytest.raises(SetupError, match="not the pinned"):
        pack.download_wheels(layout)
    assert not (folder / names[0]).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the archive is for Linux")
def test_a_trial_names_what_does_not_import(archive, tmp_path):
    pack.unpack(archive, tmp_path / "unpacked")
    for trial in unpacked_trial.trials():
        (complaint,) = trial.complaints(tmp_path / "unpacked")
        assert complaint.startswith(f"Python {trial.version} (") and "Error" in complaint
