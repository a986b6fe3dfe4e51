"""Find ComfyUI and make its model code importable in this process, without its server and without its `nodes`.

Import this module before any `comfy.*`: importing it changes nothing, calling :func:`start_comfy` does.
Source: COMFYUI_NOTES 4 (headless start): flags count only if they are set before ComfyUI's modules are imported.
"""

import logging
import os
import sys
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parent.parent
_log = logging.getLogger(__name__)


def find_comfyui() -> Path:
    """Return the root of the ComfyUI to train with.

    That is `COMFYUI_PATH`, else the ComfyUI in whose custom_nodes this pack lies (symlinked or not), else the one that
    `make demo` put into `.runtime`.

    Raises:
        ValueError: none of them is there.
    """
    given = os.environ.get("COMFYUI_PATH")
    if given:
        if not _is_comfyui(Path(given)):
            raise ValueError(f"COMFYUI_PATH is {given!r}, where no ComfyUI is: give the folder that holds its main.py.")
        return Path(given).resolve()
    packs = (REPOSITORY, Path(sys.path[0] or os.getcwd()).absolute())
    owners = [pack.parent.parent for pack in packs if pack.parent.name == "custom_nodes"]
    for root in (*owners, REPOSITORY / ".runtime" / "ComfyUI"):
        if _is_comfyui(root):
            return root.resolve()
    raise ValueError(
        "no ComfyUI found: set COMFYUI_PATH to the folder that holds its main.py, or clone this pack into its custom_nodes."
    )


def start_comfy() -> Path:
    """Make `comfy.*` importable, on the CPU where torch sees no accelerator, and return ComfyUI's root.

    ComfyUI goes to the end of `sys.path`: our packages keep their names. Calling it again does nothing.

    Raises:
        ValueError: there is no ComfyUI, or this Python lacks the packages that ComfyUI needs.
    """
    root = find_comfyui()
    if str(root) not in sys.path:
        sys.path.append(str(root))
    try:
        import comfy.options

        comfy.options.enable_args_parsing(False)
        from comfy.cli_args import args

        if not torch.accelerator.is_available():
            args.cpu = True
        args.use_pytorch_cross_attention = True  # the other kernels that ComfyUI may pick have no backward
        import comfy.model_management
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{sys.executable} has no {error.name!r}, which the ComfyUI in {root} needs: run this with ComfyUI's own Python."
        ) from error
    return root


def _is_comfyui(root: Path) -> bool:
    return (root / "comfy" / "sd.py").is_file()
