"""What `python -m batch` imports, and when: a process starts for each command, and PyTorch alone takes seconds to import."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.fake_comfyui import FakeComfyUI, workflow
from tests.conftest import REPOSITORY, draw_reference
from tests.test_architecture import COMFYUI

COSTLY = {
    "torch",
    "numpy",
    "einops",
    "safetensors",
    "av",
    "PIL",
    "aiohttp",
    "ray",
    "vbench",
    "torchmetrics",
    "comfy_api",
    *COMFYUI,
}


def imported(*arguments: object) -> set[str]:
    """Run a command in a process of its own; return the costly packages that it imported."""
    line = [sys.executable, "-X", "importtime", "-m", "batch", *map(str, arguments)]
    ended = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    modules = re.findall(r"^import time:.*\| +(\w+)", ended.stderr, re.MULTILINE)
    assert "argparse" in modules, "this Python does not tell what it imports"
    return COSTLY & set(modules)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workflow.json").write_text(json.dumps(workflow()))
    draw_reference(tmp_path / "cat.png")
    (tmp_path / "texts.csv").write_text("name,prompts,seed\none,a cat,1\n")
    (tmp_path / "images.csv").write_text("name,image,prompts\none,cat.png,a cat\n")
    return tmp_path


def test_a_command_imports_what_its_stories_need_and_neither_pytorch_nor_comfyui(folder: Path):
    """It reads tables and talks to servers: no texts need a package, images one, a story that is made the websocket's."""
    with FakeComfyUI() as server:
        places = ["--workflow", folder / "workflow.json", "--output", folder / "videos", "--server", server.url]
        assert imported("run", folder / "texts.csv", *places, "--check") == set()
        assert imported("run", folder / "images.csv", *places, "--check") == {"PIL"}
        assert imported("run", folder / "images.csv", *places) == {"PIL", "aiohttp"}
        assert imported("run", folder / "images.csv", *places) == {"PIL"}, "the story is ready"
        assert len(server.queued) == 1


def test_a_table_of_sounds_says_what_reads_them(folder: Path):
    (folder / "cat.txt").write_text("a cat speaks")
    (folder / "cat.wav").write_bytes(b"RIFF")
    line = [sys.executable, "-S", "-m", "batch", "table", "talk-300s", str(folder), "--output", str(folder / "stories.jsonl")]
    ended = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    assert f"this Python lacks av, which reads {folder / 'cat.wav'}: run it with that of your ComfyUI" in ended.stderr


@pytest.mark.parametrize(
    ("command", "lacking"), [("run", "aiohttp, av, filelock, PIL"), ("score", "torch, av, filelock, PIL"), ("table", "")]
)
def test_a_python_without_packages_is_told_what_the_command_lacks(folder: Path, command: str, lacking: str):
    arguments = {
        "run": [
            folder / "texts.csv",
            "--workflow",
            folder / "workflow.json",
            "--output",
            folder,
            "--server",
            "http://127.0.0.1:9",
        ],
        "table": ["consistent-50s", folder, "--output", folder / "stories.jsonl"],
        "score": [folder],
    }
    line = [sys.executable, "-S", "-m", "batch", command, *map(str, arguments[command])]  # -S: without installed packages
    ended = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    refusal = f"[svi] error: this Python lacks {lacking}: run it with that of your ComfyUI\n"
    assert (ended.returncode, ended.stderr) == (2, refusal) if lacking else ended.returncode == 0


def test_a_table_is_made_without_pytorch(folder: Path):
    assert imported("table", "consistent-50s", folder, "--output", folder / "stories.jsonl") == set()
