"""Install versions of ComfyUI's front end next to each other, to serve them with any ComfyUI."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.packages import pip
from dev.setup_files import Layout, SetupError

PACKAGE = "comfyui-frontend-package"
NEWEST = "newest"


def installed_front_end(wanted: str, layout: Layout, python: Path) -> tuple[str, Path]:
    """Return the version and the folder of a front end, after installing it if it is missing.

    Args:
        wanted: a version of comfyui-frontend-package, or "newest": the newest one that the package index has today.
        python: the interpreter whose pip installs it.

    Raises:
        SetupError: pip failed, or the package is not built as known.
    """
    folders = layout.runtime / "front_ends"
    if wanted == NEWEST or not _static(folders / wanted).is_dir():
        wanted = _install(PACKAGE if wanted == NEWEST else f"{PACKAGE}=={wanted}", folders, layout, python)
    return wanted, _static(folders / wanted)


def _install(requirement: str, folders: Path, layout: Layout, python: Path) -> str:
    """Install one front end below `folders`, under its version, and return the version."""
    staging = folders / "partial"
    shutil.rmtree(staging, ignore_errors=True)
    folders.mkdir(parents=True, exist_ok=True)
    pip(layout, ["install", "--no-deps", "--target", str(staging), requirement], python)
    if not (_static(staging) / "index.html").is_file():
        raise SetupError(f"{requirement} holds no comfyui_frontend_package/static/index.html: its layout has changed")
    metadata = next(staging.glob("comfyui_frontend_package-*.dist-info"))
    version = metadata.name.removesuffix(".dist-info").partition("-")[2]
    if (folders / version).exists():
        shutil.rmtree(staging)
    else:
        staging.rename(folders / version)
    return version


def _static(package: Path) -> Path:
    return package / "comfyui_frontend_package" / "static"
