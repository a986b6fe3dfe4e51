"""Refuse controls on a compiled model (ComfyUI's TorchCompileModel).

ComfyUI compiles the transformer without guards on transformer_options, so it silently reuses a graph that was traced without
a patch, or with the patch of another clip. This affects controls, but neither LoRAs, which change weights, nor the attention
kernel, which is one operator in every graph.

Source: https://github.com/comfyanonymous/ComfyUI, comfy_extras/nodes_torch_compile.py, skip_torch_compile_dict; measured,
tests/nodes/bridge/test_compiled.py.
"""

from collections.abc import Sequence

from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from .control import Control


def is_compiled(model) -> bool:
    """Whether the MODEL runs compiled."""
    return bool(model.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY))


def require_uncompiled(name: str, model, controls: Sequence[Control]) -> None:
    """Raise ValueError for a compiled model with a control."""
    if controls and is_compiled(model):
        followed = " and ".join(control.condition.value for control in controls)
        raise ValueError(
            f"{name} is compiled, but the clips follow a {followed}, which a compiled model can silently miss (ComfyUI "
            "compiles it without guards on patches): remove TorchCompileModel."
        )
