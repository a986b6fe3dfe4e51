"""What the pack needs: checked at load, complete, and no more than ComfyUI and requirements.txt bring."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "node_helpers"}
# Packages that every ComfyUI's requirements.txt brings, by the names of their modules. torchaudio is about to leave it.
BROUGHT_BY_COMFYUI = {"torch", "numpy", "PIL", "av", "safetensors", "filelock", "aiohttp"}
PACKAGES = {"PIL": "Pillow"}  # where a package has another name than its module
BROUGHT_BY_US = {"imageio_ffmpeg"}


def imports_of(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield (module, names taken from it, none for the module itself) of every absolute import."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            yield from ((alias.name, []) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            yield statement.module, [alias.name for alias in statement.names]


def names_of_comfyui(path: Path) -> set[str]:
    """Return every name of ComfyUI's modules that the file `path` uses, as module.name."""
    tree, modules, found = ast.parse(path.read_text(encoding="utf-8")), set(), set()
    for module, names in imports_of(tree):
        if module.split(".")[0] in COMFYUI:
            found |= {f"{module}.{name}" for name in names}
            modules |= set() if names else {module}
    dotted = {ast.unparse(entry) for entry in ast.walk(tree) if isinstance(entry, ast.Attribute)}
    return found | {name for name in dotted if name.rpartition(".")[0] in modules and name not in modules}


@pytest.fixture
def requirements(bridge):
    return bridge.requirements


def test_every_name_of_comfyui_that_a_node_uses_is_checked_at_load(requirements):
    used = {name for path in (ROOT / "nodes").rglob("*.py") for name in names_of_comfyui(path)}
    modules = {module for path in (ROOT / "nodes").rglob("*.py") for module, _ in imports_of(ast.parse(path.read_text()))}
    assert used - modules == set(requirements.NAMES)


@pytest.mark.parametrize(
    ("name", "of_others"),
    [
        ("comfy.clip_vision.ClipVisionModel", set()),
        ("comfy.model_patcher.ModelPatcher", {"calculate_weight", "detach"}),  # of comfy.lora, of tensors and models
        ("comfy.sd.CLIP", {"add_patches", "clone", "encode"}),  # of ModelPatcher and VAE
        ("comfy.sd.VAE", set()),
    ],
)
def test_every_method_of_comfyuis_objects_that_a_node_uses_is_checked_at_load(requirements, comfy, name, of_others):
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "nodes").rglob("*.py")]
    used = {entry.attr for tree in trees for entry in ast.walk(tree) if isinstance(entry, ast.Attribute)}
    methods = {key for key, _ in inspect.getmembers(pkgutil.resolve_name(name), inspect.isfunction) if not key.startswith("__")}
    assert methods & used - of_others == set(requirements.MEMBERS[name])


def test_the_tested_comfyui_has_everything(requirements):
    requirements.require_surroundings()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("comfy.ldm.wan.vae", "count_cache_layers"),
        ("comfy.model_management", "cuda_device_context"),
        ("comfy.sd.VAE", "vae_output_dtype"),
    ],
)
def test_an_older_comfyui_is_refused_at_load_with_its_version(requirements, monkeypatch, place, name):
    """It sampled a whole clip and then failed with an AttributeError."""
    monkeypatch.setattr(importlib.import_module("comfyui_version"), "__version__", "0.22.0")
    monkeypatch.delattr(f"{place}.{name}")
    with pytest.raises(ImportError, match=f"tested with ComfyUI 0.30.0; this is ComfyUI 0.22.0, which lacks {place}.{name}"):
        requirements.require_surroundings()


def test_a_pack_that_replaces_how_an_object_is_made_does_not_disable_ours(requirements, monkeypatch):
    """ComfyUI-MultiGPU wraps ModelPatcher.__init__ in a plain function."""
    for kind in ("comfy.sd.VAE", "comfy.model_patcher.ModelPatcher"):
        monkeypatch.setattr(f"{kind}.__init__", lambda self: None)
    requirements.require_surroundings()


def test_a_comfyui_without_a_version_is_refused_as_such(requirements, monkeypatch):
    monkeypatch.setitem(sys.modules, "comfyui_version", None)
    monkeypatch.delattr("comfy.ldm.wan.vae.count_cache_layers")
    with pytest.raises(ImportError, match="this is ComfyUI of an unknown version"):
        requirements.require_surroundings()


def test_the_tested_version_is_the_one_that_the_registry_is_told(requirements):
    assert f'requires-comfyui = ">={requirements.TESTED_VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_a_python_without_our_requirements_is_told_the_command(requirements, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"needs imageio-ffmpeg: run .* -m pip install -r .*requirements.txt"):
        requirements.require_surroundings()


def test_modules_import_nothing_that_comfyui_and_our_requirements_do_not_bring(comfyui_path):
    roots = set()
    for path in (path for room in ("nodes", "svi_core") for path in (ROOT / room).rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        top = ast.Module([entry for entry in module.body if isinstance(entry, ast.Import | ast.ImportFrom)], [])
        roots |= {name.split(".")[0] for name, _ in imports_of(top)}
    assert roots - COMFYUI - sys.stdlib_module_names == BROUGHT_BY_COMFYUI | BROUGHT_BY_US
    listed = (comfyui_path / "requirements.txt").read_text()
    assert all(re.search(rf"^{PACKAGES.get(name, name)}\b", listed, re.MULTILINE) for name in BROUGHT_BY_COMFYUI)
    assert "imageio-ffmpeg" in (ROOT / "requirements.txt").read_text()


def test_without_torchaudio_all_nodes_load_and_only_talk_says_what_it_lacks(comfyui_path):
    """ComfyUI's own modules are loaded before: those of 0.30 still import it."""
    script = f"""
import asyncio, importlib.util, sys, torch
sys.path.append({str(comfyui_path)!r})
import comfy.options
comfy.options.enable_args_parsing(False)
import comfy.cli_args
comfy.cli_args.args.cpu = True
import comfy.sd, comfy.audio_encoders.audio_encoders
for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
    sys.modules[name] = None
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r}, submodule_search_locations=[{str(ROOT)!r}])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
extension = asyncio.run(sys.modules["pack"].comfy_entrypoint())
print(len(asyncio.run(extension.get_node_list())), "nodes")
talk = sys.modules["pack.svi_core.conditioning.talk"]
assert talk.prepared_speech(torch.randn(16000), 16000).shape == (16000,)
try:
    talk.prepared_speech(torch.randn(44100), 44100)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=comfyui_path)
    assert done.returncode == 0, done.stderr
    nodes, message = done.stdout.strip().splitlines()[-2:]
    assert nodes == "29 nodes"
    assert message.startswith("SVI Talk needs torchaudio to bring a sound of 44100 Hz to 16000 Hz, but it cannot be imported")


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_torchaudio_of_another_pytorch_is_told(pack, monkeypatch, kind):
    class Broken:
        def find_spec(self, name, *_):
            if name.split(".")[0] == "torchaudio":
                raise kind("undefined symbol")

    talk = sys.modules[f"{pack.__name__}.svi_core.conditioning.talk"]
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ValueError, match=r"cannot be imported \(undefined symbol\): install the torchaudio of your PyTorch"):
        talk.prepared_speech(torch.randn(44100), 44100)
