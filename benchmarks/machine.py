"""The conditions of a measurement: hardware, versions, commit, date."""

import datetime
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import imageio_ffmpeg
import psutil

from dev.environment import REPOSITORY

# code that figures depend on
CODE = ("svi_core", "nodes", "training", "dev", "demo", "benchmarks", ":!*.md", ":!benchmarks/results")
PACKAGES = ("torch", "numpy", "safetensors", "av", "imageio-ffmpeg", "pillow")


def machine_facts(comfyui: Path) -> dict[str, str]:
    """Return the facts to print under every table, in order."""
    memory = psutil.virtual_memory()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "processor": f"{_processor()}, {os.cpu_count()} logical cores",
        "memory": f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB of it free at the start",
        "load": f"{os.getloadavg()[0]:.2f} at the start (1 is one busy core)" if hasattr(os, "getloadavg") else "not known",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "ComfyUI": _comfyui_version(comfyui),
        "ffmpeg": imageio_ffmpeg.get_ffmpeg_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def commit() -> str:
    """Return the short hash of the checked-out commit, and whether its files have changed.

    SVI_COMMIT gives it for files that were copied without their history.
    """
    if told := os.environ.get("SVI_COMMIT"):
        return told
    done = _git("rev-parse", "--short", "HEAD")
    if done is None:
        return "not a git checkout"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return done + (" with uncommitted changes" if changed else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()


def _processor() -> str:
    """Return the processor's name, on Linux from /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _comfyui_version(comfyui: Path) -> str:
    path = comfyui / "comfyui_version.py"
    found = re.search(r'__version__ = "(.+?)"', path.read_text()) if path.exists() else None
    return found[1] if found else "not known"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
