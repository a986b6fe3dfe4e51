"""Where ComfyUI is looked for, and that it never hides our own packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.model import comfy_runtime

ROOT = Path(__file__).resolve().parents[3]


def make_comfyui(root: Path) -> Path:
    (root / "comfy").mkdir(parents=True)
    (root / "comfy" / "sd.py").touch()
    return root


@pytest.fixture
def pack(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "pack"
    pack.mkdir(parents=True)
    monkeypatch.setattr(comfy_runtime, "REPOSITORY", pack)
    return pack


def test_the_variable_wins(pack, tmp_path, monkeypatch):
    make_comfyui(tmp_path / "ComfyUI")
    mine = make_comfyui(tmp_path / "mine")
    monkeypatch.setenv("COMFYUI_PATH", str(mine))
    assert comfy_runtime.find_comfyui() == mine
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ValueError, match="which holds no ComfyUI"):
        comfy_runtime.find_comfyui()


def test_then_the_comfyui_around_the_pack_then_the_sandbox(pack, tmp_path):
    with pytest.raises(ValueError, match="set COMFYUI_PATH"):
        comfy_runtime.find_comfyui()
    sandbox = make_comfyui(pack / ".runtime" / "ComfyUI")
    assert comfy_runtime.find_comfyui() == sandbox
    around = make_comfyui(tmp_path / "ComfyUI")
    assert comfy_runtime.find_comfyui() == around


def test_a_linked_pack_belongs_to_the_comfyui_it_is_linked_into(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(comfy_runtime, "REPOSITORY", tmp_path / "elsewhere")
    around = make_comfyui(tmp_path / "ComfyUI")
    monkeypatch.setattr(sys, "path", [str(pack), *sys.path])
    assert comfy_runtime.find_comfyui() == around


def test_comfyui_comes_last_and_shadows_nothing(comfyui_path):
    code = (
        "import training.model.comfy_runtime as runtime; root = runtime.start_comfy(); runtime.start_comfy()\n"
        "import sys, comfy.sd; from importlib.util import find_spec\n"
        "assert sys.path.count(str(root)) == 1 and sys.path[-1] == str(root)\n"
        "print(find_spec('nodes').origin)"
    )
    variables = {"COMFYUI_PATH": str(comfyui_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=variables)
    assert done.stdout.strip() == str(ROOT / "nodes" / "__init__.py"), done.stderr


def test_a_python_without_comfyuis_packages_is_named(pack, tmp_path, monkeypatch):
    root = make_comfyui(tmp_path / "ComfyUI")
    (root / "comfy" / "sd.py").write_text("")
    monkeypatch.setitem(sys.modules, "comfy", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ValueError, match="run it with ComfyUI's own Python"):
        comfy_runtime.start_comfy()


def test_a_model_is_a_path_or_a_name_in_comfyuis_folders(comfy, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(comfy_runtime, "start_comfy", lambda: tmp_path)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae", ([str(tmp_path / "models")], {".safetensors"}))
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "sub" / "a.safetensors").touch()
    assert comfy_runtime.find_model("vae", "sub/a.safetensors", "model.vae") == tmp_path / "models/sub/a.safetensors"
    direct = tmp_path / "b.safetensors"
    direct.touch()
    assert comfy_runtime.find_model("vae", str(direct), "model.vae") == direct
    with pytest.raises(ValueError, match="model.vae is 'gone.safetensors'.*models"):
        comfy_runtime.find_model("vae", "gone.safetensors", "model.vae")
    with pytest.raises(ValueError, match="model.vae is empty"):
        comfy_runtime.find_model("vae", "", "model.vae")


def test_extra_model_paths_count(comfy, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(comfy_runtime, "start_comfy", lambda: tmp_path)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae", ([], {".safetensors"}))
    (tmp_path / "extra_model_paths.yaml").write_text("mine:\n  base_path: shared\n  vae: wan\n")
    (tmp_path / "shared" / "wan").mkdir(parents=True)
    (tmp_path / "shared" / "wan" / "a.safetensors").touch()
    assert comfy_runtime.find_model("vae", "a.safetensors", "model.vae") == tmp_path / "shared/wan/a.safetensors"
