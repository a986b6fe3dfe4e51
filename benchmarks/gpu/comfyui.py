"""ComfyUI's model code and this pack in the process of a benchmark, without ComfyUI's server.

ComfyUI's dynamic memory management, which its main.py starts, is off unless :func:`start_dynamic_memory` is called first: the
plain ModelPatcher holds the models then, for "stock" and "ours" alike.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

from dev.environment import REPOSITORY
from training.model.comfy_runtime import start_comfy

PACK = "svi_benchmarked_pack"


class _Anything(type):
    """A class that has every public name: each is the class itself."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Unused(metaclass=_Anything):
    """Every attribute of :class:`StandInForAv`'s modules."""


class StandInForAv:
    """Import an empty `av` where PyAV is not installed.

    ComfyUI's node interface and the trainer's reader import PyAV for video files, but these benchmarks use none. Every
    attribute of the empty module is :class:`Unused`.
    """

    def find_spec(self, name: str, path=None, target=None):
        """Return a spec for `av` and its submodules only."""
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "av" else None

    def create_module(self, spec) -> ModuleType:
        """Return a module that has every public name."""
        module = ModuleType(spec.name)

        def anything(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return Unused

        module.__getattr__ = anything
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing."""


def provide_av() -> None:
    """Let `import av` succeed where PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        sys.meta_path.append(StandInForAv())


def load_pack() -> ModuleType:
    """Return this pack, loaded as ComfyUI loads it: under a name of its own, with ComfyUI's modules beside it.

    Its choice of attention kernels is neither read from ComfyUI's user folder nor written there: each process chooses anew.

    Raises:
        ValueError: there is no ComfyUI, or this Python lacks the packages that it needs.
    """
    start_comfy()
    provide_av()
    if PACK not in sys.modules:
        place = {"submodule_search_locations": [str(REPOSITORY)]}
        spec = importlib.util.spec_from_file_location(PACK, REPOSITORY / "__init__.py", **place)
        sys.modules[PACK] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACK])
        importlib.import_module(f"{PACK}.nodes.bridge.attention").FASTEST.stored = None
    return sys.modules[PACK]


def start_dynamic_memory() -> str:
    """Let ComfyUI manage the card's memory as its main.py does, before anything is loaded; return "on", or why it is off.

    Call it in a process of :mod:`.dynamic_process`. Where comfy-aimdo does not start, ComfyUI runs without it too.
    Source: https://github.com/comfyanonymous/ComfyUI, main.py.
    """
    load_pack()
    if not torch.cuda.is_available():
        return "off: it needs an NVIDIA GPU"
    if importlib.util.find_spec("comfy_aimdo") is None:
        return "off: comfy-aimdo is not installed"
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher
    import comfy_aimdo.control

    devices = [device.index for device in comfy.model_management.get_all_torch_devices()]
    try:
        has_started = comfy_aimdo.control.init_devices((index, 0) for index in devices)
    except Exception as error:  # of a library that does not fit this driver
        return f"off: comfy-aimdo failed ({error})"
    if not has_started:
        return "off: comfy-aimdo does not start on this GPU"
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    return "on"


def pack_module(name: str) -> ModuleType:
    """Return a module of the loaded pack, such as "nodes.bridge.sampling"; the benchmark's own svi_core is another copy."""
    load_pack()
    return importlib.import_module(f"{PACK}.{name}")
