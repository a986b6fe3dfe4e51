"""The set-up code, without network: what it refuses, what it recognises, and that it stays away from pip when all is there."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest

from dev import comfyui_tree, packages
from dev import environment as setup
from dev import setup_files as files
from dev.setup_files import Layout, LockBusy, SetupError

VERSION = '__version__ = "0.30.0"\n'


@pytest.fixture(autouse=True)
def _no_variables_of_the_user(monkeypatch: pytest.MonkeyPatch):
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON", "SVI_TORCH_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)


def make_comfyui(folder: Path, version: str = VERSION) -> Path:
    (folder / "comfy").mkdir(parents=True)
    for name in ("main.py", "nodes.py", "comfy/sd.py"):
        (folder / name).write_text("", encoding="utf-8")
    (folder / "comfyui_version.py").write_text(version, encoding="utf-8")
    (folder / "requirements.txt").write_text("torch\naiohttp>=3.11.8\n", encoding="utf-8")
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A repository whose environment looks set up and is stamped for the base only; its Python is an empty file."""
    layout = Layout(tmp_path / "répo with space", tmp_path / "répo with space" / ".runtime")
    make_comfyui(layout.comfyui)
    (layout.repository / "requirements.txt").write_text("imageio-ffmpeg\n", encoding="utf-8")
    layout.venv_python.parent.mkdir(parents=True)
    layout.venv_python.touch()
    files.write_stamp(layout.comfyui, {"sdist_sha256": comfyui_tree.COMFYUI_SDIST_SHA256})
    files.write_stamp(layout.venv, packages.wanted_stamp(layout, layout.comfyui, []))
    return layout


def test_a_stamped_environment_is_found_without_running_anything(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **options: object):
        raise AssertionError(f"ran {arguments}")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    found = setup.ensure_environment(layout=layout)
    assert found == setup.Environment(layout.venv_python, layout.comfyui)


def test_an_extra_that_is_not_stamped_makes_the_environment_incomplete(layout: Layout):
    assert setup.find_environment([], layout) is not None
    assert setup.find_environment(["test"], layout) is None


@pytest.mark.parametrize("changed", ["requirements.txt", ".runtime/ComfyUI/requirements.txt"])
def test_a_changed_requirement_file_makes_the_environment_incomplete(layout: Layout, changed: str):
    with (layout.repository / changed).open("a", encoding="utf-8") as handle:
        handle.write("another-package\n")
    assert setup.find_environment([], layout) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"base": "old"}'])
def test_a_damaged_or_old_stamp_matches_nothing(layout: Layout, content: str):
    (layout.venv / files.STAMP).write_text(content, encoding="utf-8")
    assert setup.find_environment([], layout) is None


def test_a_virtual_environment_whose_python_is_gone_is_not_found(layout: Layout):
    layout.venv_python.unlink()
    assert setup.find_environment([], layout) is None


def test_an_unknown_extra_is_refused_by_name(layout: Layout):
    with pytest.raises(SetupError, match="unknown extra 'tset'; there are: test"):
        setup.ensure_environment(["tset"], layout)


def test_packages_are_installed_once_and_later_extras_keep_the_base_stamp(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    commands: list[list[str]] = []

    def pretend(command: list[str], **options: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pretend)
    (layout.venv / files.STAMP).unlink()
    setup.ensure_environment([], layout)
    setup.ensure_environment(["test"], layout)
    num_commands = len(commands)
    setup.ensure_environment(["test"], layout)
    setup.ensure_environment([], layout)
    assert len(commands) == num_commands
    installed = [command for command in commands if "install" in command]
    assert any(set(packages.TORCH_PINS) <= set(command) for command in installed)
    assert any(str(layout.repository / "requirements.txt") in command for command in installed)


def test_a_failed_installation_leaves_no_stamp(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    def fail_to_install(command: list[str], **options: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1 if "install" in command else 0)

    monkeypatch.setattr(subprocess, "run", fail_to_install)
    (layout.venv / files.STAMP).unlink()
    with pytest.raises(SetupError, match="pip install torch=="):
        setup.ensure_environment([], layout)
    assert files.read_stamp(layout.venv) == {}


def test_a_package_that_was_installed_in_part_is_taken_out_so_that_pip_installs_it_again(layout: Layout):
    library = layout.venv / ("Lib" if os.name == "nt" else "lib/python3.11") / "site-packages"
    whole, part = library / "whole-1.dist-info", library / "part-1.dist-info"
    for folder in (whole, part):
        folder.mkdir(parents=True)
        (folder / "METADATA").touch()
    (whole / "RECORD").touch()
    packages._drop_half_installed(layout)
    assert whole.is_dir() and not part.exists()


# --------------------------------------------------------------------------------------------------- COMFYUI_PATH


def test_the_users_own_comfyui_is_used_and_not_written_into(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = make_comfyui(tmp_path / "own")
    before = sorted(own.rglob("*"))
    monkeypatch.setenv("COMFYUI_PATH", str(own))
    files.write_stamp(layout.venv, packages.wanted_stamp(layout, own, []))
    assert setup.ensure_environment([], layout).comfyui == own
    assert sorted(own.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: tree.rename(tree.with_name("gone")), "is not a folder"),
        (lambda tree: (tree / "main.py").unlink(), "has no main.py"),
        (lambda tree: (tree / "comfy/sd.py").unlink(), "has no comfy/sd.py"),
        (lambda tree: (tree / "comfyui_version.py").write_text('__version__ = "0.3.75"'), "0.3.75; 0.30.0 or newer"),
        (lambda tree: (tree / "comfyui_version.py").write_text(""), "names no version"),
    ],
)
def test_a_bad_comfyui_path_is_refused_with_the_reason(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage, message: str
):
    own = make_comfyui(tmp_path / "own")
    damage(own)
    monkeypatch.setenv("COMFYUI_PATH", str(own))
    with pytest.raises(SetupError, match=message) as caught:
        setup.ensure_environment([], layout)
    assert str(own) in str(caught.value)


def test_the_users_own_python_must_have_the_packages(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = make_comfyui(tmp_path / "own")
    (own / "requirements.txt").write_text("# comment\npip\nno-such-package-svi>=3\n", encoding="utf-8")
    monkeypatch.setenv("COMFYUI_PATH", str(own))
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    with pytest.raises(SetupError, match=r"lacks packages: .*no-such-package-svi"):
        setup.ensure_environment([], layout)
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "no-python"))
    with pytest.raises(SetupError, match="does not run as a Python interpreter"):
        setup.ensure_environment([], layout)
    monkeypatch.delenv("COMFYUI_PATH")
    (layout.comfyui / files.STAMP).unlink()
    with pytest.raises(SetupError, match="COMFYUI_PATH is not"):
        setup.ensure_environment([], layout)


# ------------------------------------------------------------------------------------------------------- archives


def make_archive(path: Path, members: Iterable[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                information = tarfile.TarInfo(member[0])
                information.size = len(member[1])
                tar.addfile(information, io.BytesIO(member[1]))
    return path


def test_only_the_wanted_folder_of_an_archive_is_extracted_and_stamped(tmp_path: Path):
    archive = make_archive(tmp_path / "a.tar.gz", [("p/tree/main.py", b"x"), ("p/tree/comfy/sd.py", b"y"), ("p/other", b"z")])
    leftover = tmp_path / "ComfyUI.partial"  # of an extraction that was killed
    leftover.mkdir()
    (leftover / "stale.py").touch()
    files.extract_folder(archive, "p/tree", tmp_path / "ComfyUI", {"sdist_sha256": "s"})
    found = {path.relative_to(tmp_path / "ComfyUI").as_posix() for path in (tmp_path / "ComfyUI").rglob("*") if path.is_file()}
    assert found == {"main.py", "comfy/sd.py", files.STAMP}
    assert files.read_stamp(tmp_path / "ComfyUI") == {"sdist_sha256": "s"}
    assert not leftover.exists()


def link_member(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        ("p/tree/../../../escaped", b"x"),
        ("p/tree//escaped/../../../escaped", b"x"),
        link_member("p/tree/link", "../../outside", tarfile.SYMTYPE),
        link_member("p/tree/link", "p/tree/main.py", tarfile.LNKTYPE),
        link_member("p/tree/device", "", tarfile.CHRTYPE),
    ],
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, member):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    archive = make_archive(tmp_path / "a.tar.gz", [("p/tree/main.py", b"x"), member])
    with pytest.raises(SetupError):
        files.extract_folder(archive, "p/tree", folder / "ComfyUI", {})
    assert not (folder / "ComfyUI").exists()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\x1f\x8b\x08\x00 cut"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(SetupError, match="a.tar.gz cannot be extracted"):
        files.extract_folder(tmp_path / "a.tar.gz", "p/tree", tmp_path / "ComfyUI", {})


def test_a_download_with_another_sha256_is_refused_and_deleted(tmp_path: Path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"content")
    files.check_sha256(path, hashlib.sha256(b"content").hexdigest())
    with pytest.raises(SetupError, match="not the pinned de5d0c32"):
        files.check_sha256(path, comfyui_tree.COMFYUI_SDIST_SHA256)
    assert not path.exists()


def test_an_unstamped_tree_is_adopted_only_if_its_content_is_the_pinned_one(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    (layout.comfyui / files.STAMP).unlink()
    (layout.comfyui / "models").mkdir()
    (layout.comfyui / "models" / "mine.safetensors").touch()  # what users put in does not count
    monkeypatch.setattr(comfyui_tree, "COMFYUI_TREE_SHA256", files.comfyui_tree_digest(layout.comfyui))
    assert comfyui_tree.ensure_pinned_comfyui(layout) == layout.comfyui
    assert setup.find_environment([], layout) is not None


def test_a_tree_with_another_content_is_moved_aside_and_made_anew(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    archive = make_archive(layout.repository / "a.tar.gz", [(f"{comfyui_tree.COMFYUI_SDIST_FOLDER}/main.py", b"new")])
    monkeypatch.setattr(comfyui_tree, "_download_comfyui", lambda layout: archive)
    (layout.comfyui / files.STAMP).unlink()
    comfyui_tree.ensure_pinned_comfyui(layout)
    assert (layout.comfyui / "main.py").read_bytes() == b"new"
    assert len(list(layout.runtime.glob("ComfyUI.replaced-*/nodes.py"))) == 1


# ----------------------------------------------------------------------------------------------------------- lock


def test_a_lock_is_exclusive_between_processes_and_free_after_a_kill(tmp_path: Path):
    path = tmp_path / "setup.lock"
    program = f"""
        import sys, time
        from pathlib import Path
        from dev.setup_files import file_lock
        with file_lock(Path({str(path)!r}), waiting=None):
            sys.stdout.write("held\\n"); sys.stdout.flush()
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=setup.REPOSITORY) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(LockBusy), files.file_lock(path, waiting=None):
            pass
        holder.kill()
    with files.file_lock(path, waiting=None):
        pass


def test_the_command_reports_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COMFYUI_PATH", "/nowhere/ComfyUI")
    assert setup.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("[svi] error: COMFYUI_PATH=") and captured.err.count("\n") == 1


def test_the_module_needs_nothing_but_the_standard_library():
    program = "import sys, json, dev.environment; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    command = [sys.executable, "-S", "-c", program]
    modules = json.loads(subprocess.run(command, cwd=setup.REPOSITORY, capture_output=True, text=True, check=True).stdout)
    foreign = {name for name in modules if name not in sys.stdlib_module_names and not name.startswith(("_", "dev", "comfyui"))}
    assert foreign == set()
