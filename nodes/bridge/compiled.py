"""What does not go together with a compiled model (ComfyUI's TorchCompileModel).

ComfyUI compiles the transformer without guards on transformer_options, so a graph that was made without a patch, or with that
of another clip, is used again with it, and nothing tells. LoRAs and the choice of an attention kernel are not affected: the
first change weights, the second is one operator in any graph. What a control adds is.

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
    """Refuse a compiled model where a control follows sound or poses.

    Raises:
        ValueError: naming the input and the node to take out.
    """
    if controls and is_compiled(model):
        followed = " and ".join(control.condition.value for control in controls)
        raise ValueError(
            f"{name} is compiled, but the clips follow a {followed}, which a compiled model can miss without saying so "
            "(ComfyUI compiles it without looking at patches): take out TorchCompileModel."
        )
