"""The registry's archive: whole for users, without anything of the developers, and small."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from dev import archive
from dev.setup_files import REPOSITORY

FOR_USERS = (
    *("__init__.py", "nodes/", "svi_core/", "training/", "batch/", "comfyui/", "web/", "locales/"),
    *("workflows/", "subgraphs/", "docs/"),
)
# Looks for the demo's environment, and says what to do where it is not.
MAY_LACK = {("batch/demo_environment.py", "dev/environment.py")}
NOT_FOR_USERS = re.compile(r"training/configs/tiny\.toml|docs/DECISIONS\.md")  # one needs demo/models


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the archive."""
    path = tmp_path_factory.mktemp("archive") / "node.zip"
    archive.build_archive(path)
    assert archive.archive_complaints(path) == []
    return set(ZipFile(path).namelist())


def test_the_archive_holds_all_that_users_need(names: set[str]):
    """A pattern without a leading slash once took the help pages out with docs/."""
    wanted = {name for name in tracked() if name.startswith(FOR_USERS) and not NOT_FOR_USERS.fullmatch(name)}
    assert {"web/docs/SVIGenerate.md", "training/erft.py", "docs/METHOD.md", "locales/en/nodeDefs.json"} <= wanted
    assert {"workflows/1 Long video from one image.json", "subgraphs/SVI 2.0 Pro (Wan 2.2).json"} <= wanted
    assert wanted <= names
    assert not any(NOT_FOR_USERS.fullmatch(name) for name in names)


def test_nothing_in_the_archive_imports_what_it_lacks(names: set[str]):
    modules = [name for name in names if name.endswith(".py")]
    lacking = {(name, wanted) for name in modules for wanted in imported_files(name) if wanted not in names}
    assert len(modules) > 200 and lacking == MAY_LACK


def imported_files(name: str) -> Iterator[str]:
    """Yield the files of this repository that a module imports, relatively or from its root."""
    for node in ast.walk(ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [Path(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = Path(name).parents[node.level - 1] if node.level else Path()
            module = base.joinpath(*(node.module or "").split("."))
            wanted = [module, *(module / alias.name for alias in node.names)]
        else:
            continue
        for path in wanted:
            candidates = (path.with_suffix(".py"), path / "__init__.py") if path.name else ()
            yield from (file.as_posix() for file in candidates if (REPOSITORY / file).is_file())


def test_the_files_that_help_pages_and_commands_name_are_there(names: set[str]):
    """A path may end in a colon or a bracket, but it has a folder and an ending."""
    named = re.compile(r"(?<![\w/])(?:docs|benchmarks|dev|training|workflows)(?:/[\w.]+)+\.\w+")
    texts = [name for name in names if name.startswith(("web/", "training/", "nodes/", "svi_core/", "locales/"))]
    texts = [name for name in texts if name.endswith((".md", ".py", ".toml", ".json"))]
    found = {(name, path) for name in texts for path in named.findall((REPOSITORY / name).read_text(encoding="utf-8"))}
    assert ("web/docs/SVIGenerate.md", "docs/IMPORTING.md") in found
    assert {(name, path) for name, path in found if (REPOSITORY / path).is_file() and path not in names} == set()


def test_a_folder_without_git_gives_the_same_archive(names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So does what running the pack leaves in it."""
    copy = tmp_path / "a copy ü"
    leftovers = (
        "nodes/__pycache__/generate.cpython-311.pyc",
        ".runtime/venv/pyvenv.cfg",
        "runs/a/config.json",
        "datasets/a.mp4",
    )
    for name in (*tracked(), *leftovers):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".safetensors", ".mp4")) or name in leftovers:
            (copy / name).touch()
        else:
            shutil.copyfile(REPOSITORY / name, copy / name)
    monkeypatch.setattr(archive, "REPOSITORY", copy)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    archive.build_archive(tmp_path / "node.zip")
    assert set(ZipFile(tmp_path / "node.zip").namelist()) == names


def test_a_large_archive_and_foreign_files_are_complaints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "node.zip"
    with ZipFile(path, "w") as made:
        for name in (
            "nodes/generate.py",
            "docs/METHOD.md",
            "tests/test_x.py",
            "benchmarks/README.md",
            "docs/DECISIONS.md",
            "NOTE.txt",
        ):
            made.writestr(name, "")
    foreign = [complaint.split()[3].rstrip(":") for complaint in archive.archive_complaints(path)]
    assert foreign == ["tests/test_x.py", "benchmarks/README.md", "docs/DECISIONS.md", "NOTE.txt"]
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    assert "0 MB are too many" in archive.archive_complaints(path)[-1]


@pytest.mark.parametrize(
    ("line", "damaged", "code", "complaint"),
    [
        (r'version = "[\d.]+"', "", "", "version is empty"),
        (r'requires-comfyui = ".+"', 'requires-comfyui = "new"', "", "Invalid requires-comfyui"),
        (r'"Operating System :: OS Independent"', '"Operating System :: Mine"', "", "Invalid Operating System classifier"),
        (None, None, "exec('1')", "S102"),
    ],
)
def test_what_the_registry_warns_of_is_a_complaint(tmp_path: Path, monkeypatch, line, damaged, code: str, complaint: str):
    settings = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    monkeypatch.setattr(archive, "REPOSITORY", tmp_path)
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    (tmp_path / "__init__.py").touch()
    assert archive.registry_complaints() == ""
    if line is not None:
        changed, count = re.subn(f"(?m)^( *){line}", rf"\1{damaged}", settings)
        assert count == 1
        (tmp_path / "pyproject.toml").write_text(changed, encoding="utf-8")
    (tmp_path / "__init__.py").write_text(code, encoding="utf-8")
    assert complaint in archive.registry_complaints()


def test_pyproject_follows_the_rules_of_the_registry():
    """Source: https://docs.comfy.org/registry/specifications; comfy-cli does not check them."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = settings["project"], settings["tool"]["comfy"]
    assert (
        re.fullmatch(r"(?=.{1,99}$)[A-Za-z]+([-_.]?[A-Za-z0-9]+)*", project["name"])
        and "comfyui" not in project["name"].lower()
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert comfy["PublisherId"] and comfy["DisplayName"] and project["urls"]["Repository"].startswith("https://")
    # ComfyUI-Manager installs requirements.txt, the registry shows pyproject's dependencies.
    assert project["dependencies"] == (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split()


def test_the_command_builds_the_archive_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(archive, "registry_complaints", lambda: "")
    assert archive.main([str(tmp_path / "node.zip")]) == 0 and ZipFile(tmp_path / "node.zip").testzip() is None
    monkeypatch.setattr(archive, "archive_complaints", lambda path: ["too large"])
    assert archive.main([]) == 1 and "error: too large" in capsys.readouterr().err
    monkeypatch.setattr(archive, "registry_complaints", lambda: "no version")
    assert archive.main([]) == 1 and "complains:\nno version" in capsys.readouterr().err
