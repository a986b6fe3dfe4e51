"""Make ComfyUI's own model code importable, on the CPU and without its server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEFAULT_COMFYUI = REPOSITORY / ".runtime" / "ComfyUI"


def import_comfy(comfyui: str | Path | None = None) -> Path:
    """Put ComfyUI on the path and set its CPU flags; call before the first `import comfy.*` of a process.

    Args:
        comfyui: root of the ComfyUI tree; default: `COMFYUI_PATH`, else `.runtime/ComfyUI` in this repository.

    Raises:
        ValueError: there is no ComfyUI at that path.
    """
    root = Path(comfyui or os.environ.get("COMFYUI_PATH") or DEFAULT_COMFYUI).resolve()
    if not (root / "comfy" / "sd.py").is_file():
        raise ValueError(f"no ComfyUI at {root}; set COMFYUI_PATH or pass --comfyui")
    if str(root) not in sys.path:
        sys.path.append(str(root))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    return root
