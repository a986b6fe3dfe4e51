"""Find ComfyUI and make its model code importable in this process, without its server and without its `nodes`.

Importing this module changes nothing. Call :func:`start_comfy` before any import of `comfy.*`.
Source: docs/METHOD.md, 12.1 (headless start): flags count only if they are set before ComfyUI's modules are imported.
"""

import logging
import os
import sys
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_log = logging.getLogger(__name__)


def find_comfyui() -> Path:
    """Return the root folder of the ComfyUI to train with.

    That is `COMFYUI_PATH`, else the ComfyUI whose custom_nodes holds this pack (symlinked or not), else the one that
    `make demo` installed in `.runtime`.

    Raises:
        ValueError: none of them exists.
    """
    given = os.environ.get("COMFYUI_PATH")
    if given:
        if not _is_comfyui(Path(given)):
            raise ValueError(f"COMFYUI_PATH is {given!r}, which holds no ComfyUI: give the folder that holds its main.py.")
        return Path(given).resolve()
    packs = (REPOSITORY, Path(sys.path[0] or Path.cwd()).absolute())
    owners = [pack.parent.parent for pack in packs if pack.parent.name == "custom_nodes"]
    for root in (*owners, REPOSITORY / ".runtime" / "ComfyUI"):
        if _is_comfyui(root):
            return root.resolve()
    raise ValueError(
        "no ComfyUI found: set COMFYUI_PATH to the folder that holds its main.py, or clone this pack into its custom_nodes."
    )


def start_comfy() -> Path:
    """Make `comfy.*` importable, on the CPU where torch sees no accelerator, and return ComfyUI's root folder.

    ComfyUI goes to the end of `sys.path`, so that our packages win over its own. Calling it again does nothing.

    Raises:
        ValueError: there is no ComfyUI, or this Python lacks packages that ComfyUI needs.
    """
    root = find_comfyui()
    if str(root) not in sys.path:
        sys.path.append(str(root))
    try:  # importable only now; and ComfyUI reads its options while model_management is imported
        import comfy.options

        comfy.options.enable_args_parsing(False)
        from comfy.cli_args import args

        if not torch.accelerator.is_available():
            args.cpu = True
        args.use_pytorch_cross_attention = True  # ComfyUI's other kernels have no backward
        import comfy.model_management
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{sys.executable} has no {error.name!r}, which the ComfyUI in {root} needs: run it with ComfyUI's own Python."
        ) from error
    return root


def find_model(kind: str, given: str, setting: str) -> Path:
    """Return the file that `given` names: a path, or a name as ComfyUI's loader nodes list it.

    Args:
        kind: ComfyUI's folder of such files: "diffusion_models", "vae", "text_encoders", "clip_vision".
        given: the setting's value.
        setting: the setting's name, for the message.

    Raises:
        ValueError: the setting is empty, or there is no such file; the message lists the folders that were searched.
    """
    if not given:
        raise ValueError(f"{setting} is empty: give the path of the file, or its name in ComfyUI's models/{kind}.")
    if Path(given).is_file():
        return Path(given)
    root = start_comfy()  # makes the next two modules, ComfyUI's own, importable
    import folder_paths
    from utils.extra_config import load_extra_path_config

    if (root / "extra_model_paths.yaml").is_file():  # ComfyUI's main.py reads it, which never runs here
        load_extra_path_config(str(root / "extra_model_paths.yaml"))
    found = folder_paths.get_full_path(kind, given)
    if found is None:
        places = ", ".join(folder_paths.get_folder_paths(kind))
        raise ValueError(
            f"{setting} is {given!r}, but there is no such file, neither at that path nor in {places}: correct it."
        )
    return Path(found)


def _is_comfyui(root: Path) -> bool:
    return (root / "comfy" / "sd.py").is_file()
