"""The Python packages of the environment: pins, installation, and when they are up to date."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from comfyui.environment import clean_python_variables
from dev.setup_files import Layout, SetupError, read_stamp, say, write_stamp

TORCH_PINS = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
DEMO_PACKAGES = ("imageio-ffmpeg>=0.6",)
EXTRA_PACKAGES: dict[str, tuple[str, ...]] = {
    "test": (
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "hypothesis>=6.150,<7",
        "ruff>=0.17,<0.18",
        "basedpyright==1.40.2",  # pyright with its Node.js as a wheel: nothing is downloaded at run time
        "playwright>=1.60,<2",
        "comfy-cli>=1.23,<2",
    ),
    "ray": ("ray>=2.40,<3",),  # for `python -m batch run --ray`, and its tests
}
# These imports prove that the compiled packages are complete; the others are plain Python.
PROOF_IMPORTS = "import torch, torchvision, torchaudio, aiohttp, av, safetensors, sentencepiece, imageio_ffmpeg"

NEEDED_FREE_GB = 12


def wanted_stamp(layout: Layout, comfyui: Path, extras: Sequence[str]) -> dict[str, str]:
    """Return, for the base and for each of `extras`, a digest of its requirements."""
    base = [*TORCH_PINS, *DEMO_PACKAGES]
    base += [_requirements_text(path) for path in _requirement_files(layout, comfyui)]
    stamp = {"base": _digest(base)}
    stamp.update({extra: _digest([*base, *EXTRA_PACKAGES[extra]]) for extra in extras})
    return stamp


def check_python() -> None:
    """Raise SetupError if this Python is too old."""
    if sys.version_info < (3, 11):  # noqa: UP036 - a newcomer's Python may be older
        raise SetupError(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} at {sys.executable}")


def make_venv(layout: Layout) -> None:
    """Make the virtual environment unless a working one exists. Raises SetupError if that fails."""
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


def install_packages(layout: Layout, comfyui: Path, extras: Sequence[str]) -> None:
    """Install all requirements and stamp the environment.

    Raises:
        SetupError: pip failed, or the packages do not import.
    """
    wanted = wanted_stamp(layout, comfyui, extras)
    _drop_half_installed(layout)
    say(f"installing {', '.join(TORCH_PINS)} (several GB on Linux, whose default builds bring CUDA)")
    index = os.environ.get("SVI_TORCH_INDEX_URL")
    pip(layout, ["install", *(["--index-url", index] if index else []), *TORCH_PINS])
    say(f"installing ComfyUI's and this pack's requirements{''.join(f', and those of: {extra}' for extra in extras)}")
    files = [argument for path in _requirement_files(layout, comfyui) for argument in ("-r", str(path))]
    packages = [*TORCH_PINS, *DEMO_PACKAGES, *(name for extra in extras for name in EXTRA_PACKAGES[extra])]
    pip(layout, ["install", *files, *packages])
    say("checking that the packages import")
    if not _runs([layout.venv_python, "-c", PROOF_IMPORTS], show_errors=True):
        raise SetupError(f"the packages in {layout.venv} do not import; delete that folder and run this again")
    kept = {} if read_stamp(layout.venv).get("base") != wanted["base"] else read_stamp(layout.venv)
    write_stamp(layout.venv, {**kept, **wanted})


def checked_own_python(python: Path, comfyui: Path, layout: Layout, extras: Sequence[str]) -> Path:
    """Return the user's interpreter. Raises SetupError if it does not run, or lacks a package (of any version)."""
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


def _drop_half_installed(layout: Layout) -> None:
    """Remove the metadata of half-installed packages, so that pip installs them again.

    pip writes RECORD last: without it a package is incomplete, but pip counts it as installed.
    """
    library = layout.venv / "Lib" if os.name == "nt" else layout.venv / "lib"
    for metadata in library.glob("**/site-packages/*.dist-info"):
        if not (metadata / "RECORD").is_file():
            say(f"{metadata.name} was installed only in part; installing it again")
            shutil.rmtree(metadata)


def pip(layout: Layout, arguments: Sequence[str], python: Path | None = None) -> None:
    """Run pip in the virtual environment, or that of another `python`. Raises SetupError if it fails."""
    # `--user` in a pip.conf cannot work in a virtual environment; the user's other settings apply.
    settings = {**clean_python_variables(), "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    quiet = [] if sys.stderr.isatty() else ["-qq"]  # pip still shows errors
    command = [str(python or layout.venv_python), "-m", "pip", *arguments, *quiet]
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


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _requirement_files(layout: Layout, comfyui: Path) -> tuple[Path, Path]:
    return comfyui / "requirements.txt", layout.repository / "requirements.txt"


def _requirements_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetupError(f"{path} is missing: is this a complete checkout?") from None
