"""Link packs and model files into ComfyUI's base directory: a symlink if possible, else a junction, hard link or copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from comfyui.client import ServerError

# Words in the names of model files, and their model folders. The first match counts.
MODEL_KINDS = (
    ("lora", "loras"),
    ("vae", "vae"),
    ("umt5", "text_encoders"),
    ("clip", "clip_vision"),
    ("wan", "diffusion_models"),
)
NOT_COPIED = shutil.ignore_patterns(".git", ".runtime", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis")


def link_folder(folder: Path, link: Path) -> None:
    """Link `folder` at `link`, or copy it where the system allows neither symlinks nor junctions.

    Replaces an earlier link or copy.
    """
    if not folder.is_dir():
        raise ServerError(f"{folder} is not a folder")
    _remove_link(link)
    try:
        link.symlink_to(folder, target_is_directory=True)
        return
    except OSError:
        if os.name != "nt":
            raise
    import _winapi

    try:
        _winapi.CreateJunction(str(folder), str(link))
    except OSError:  # another drive, or a file system without junctions
        shutil.copytree(folder, link, ignore=NOT_COPIED)


def link_file(file: Path, link: Path) -> None:
    """Link `file` at `link`: a symlink, else a hard link, else a copy. Replaces an earlier one."""
    link.unlink(missing_ok=True)
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(file, link)
            return
        except OSError:
            if make is shutil.copyfile:
                raise


def model_folder(file: Path) -> str:
    """Return the model folder of a file, by its name. Raises ServerError if no word of MODEL_KINDS matches."""
    for word, folder in MODEL_KINDS:
        if word in file.name.lower():
            return folder
    raise ServerError(f"{file} could be any kind of model: put one of {', '.join(w for w, _ in MODEL_KINDS)} in its name")


def _remove_link(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        if os.name != "nt":
            raise ServerError(f"{link} is not a link: move it away, it is in the place of a link")
        try:
            link.rmdir()  # removes a junction, never its target
        except OSError:
            shutil.rmtree(link)  # our own copy
