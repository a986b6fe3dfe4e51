"""The pack imported as ComfyUI imports it, and tiny models loaded by ComfyUI's own code, in this process on CPU."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACK = "stable_video_infinity_pack"


@pytest.fixture(scope="session")
def pack(comfy) -> ModuleType:
    """The pack's root module under a name that is not its folder's, as in custom_nodes."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return sys.modules[PACK]


@pytest.fixture(scope="session")
def bridge(pack):
    return sys.modules[f"{PACK}.nodes.bridge"]


@pytest.fixture(scope="session")
def vae(comfy, tiny_models):
    import comfy.sd
    import comfy.utils

    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tiny_models / "vae" / "wan_2.1_vae.safetensors")))


def load_diffusion_model(tiny_models: Path, name: str):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(tiny_models / "diffusion_models" / name))


@pytest.fixture(scope="session")
def model(comfy, tiny_models):
    return load_diffusion_model(tiny_models, "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors")


@pytest.fixture
def loras(tmp_path, comfy):
    """A loras folder that ComfyUI searches."""
    import folder_paths

    saved = folder_paths.folder_names_and_paths["loras"]
    folder_paths.folder_names_and_paths["loras"] = ([str(tmp_path)], saved[1])
    folder_paths.filename_list_cache.pop("loras", None)
    yield tmp_path
    folder_paths.folder_names_and_paths["loras"] = saved
    folder_paths.filename_list_cache.pop("loras", None)
