"""The conditions of a measurement: hardware, versions, commit, date."""

import datetime
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import imageio_ffmpeg
import psutil

from dev.commit import commit_of

# code that figures depend on
CODE = ("svi_core", "nodes", "training", "batch", "comfyui", "dev", "demo", "benchmarks", ":!*.md", ":!benchmarks/results")
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
        "packages": ", ".join(f"{name} {release(name)}" for name in PACKAGES),
    }


def commit() -> str:
    """Return the short hash of the checked-out commit, and whether the code that figures depend on has changed."""
    return commit_of(CODE)


def _processor() -> str:
    """Return the processor's name, on Linux from /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _comfyui_version(comfyui: Path) -> str:
    path = comfyui / "comfyui_version.py"
    found = re.search(r'__version__ = "(.+?)"', path.read_text()) if path.exists() else None
    return found[1] if found else "not known"


def release(package: str) -> str:
    """Return the version of an installed package, or "absent"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
