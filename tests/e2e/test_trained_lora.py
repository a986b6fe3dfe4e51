"""README's path of three commands on CPU: make clips, cache, train; then the LoRA in a workflow of a real ComfyUI."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfyui.client import ExecutionFailed
from comfyui.environment import process_variables
from dev.environment import Environment
from tests.conftest import REPOSITORY
from tests.e2e.graphs import loop_graph, node

pytestmark = pytest.mark.e2e

HIGH, LOW = "tiny_wan22_i2v_high.safetensors", "tiny_wan22_i2v_low.safetensors"
SMALL = [
    "data.num_frames=9", "data.width=64", "data.height=64", "data.variants=1", "loop.steps=3", "loop.checkpoint_every=3",
    "samples.every=0", "validation.every=0", "optimizer.learning_rate=0.01",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(environment: Environment, tmp_path_factory) -> Path:
    """A LoRA trained for three steps by the commands of README, with the settings of SMALL."""
    folder = tmp_path_factory.mktemp("training")
    words = [f"run={folder / 'run'}", f"data.folder={folder / 'clips'}", f"data.cache={folder / 'cache'}", *SMALL]
    config = ["--config", "training/configs/tiny.toml", *words]
    commands = [
        ["-m", "demo.make_clips", str(folder / "clips"), "--clips", "3"],
        ["-m", "training.cache", *config],
        ["-m", "training.erft", *config],
    ]
    for command in commands:
        variables = {**process_variables(environment), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(environment.python), *command], cwd=REPOSITORY, capture_output=True, text=True, env=variables
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "run" / "run.safetensors"


def graph_with(server, image: Path, lora: Path, variant: str) -> dict:
    """Return the loop on the demo's models with the trained LoRA on the high-noise expert."""
    (server.base_directory / "models" / "loras").mkdir(parents=True, exist_ok=True)
    (server.base_directory / "models" / "loras" / "mine.safetensors").write_bytes(lora.read_bytes())
    graph = loop_graph(server.add_input(image), clips=2, model=HIGH, low=LOW, variant=variant, filename_prefix="svi/mine")
    graph["clip"]["inputs"]["clip_name"], graph["vae"]["inputs"]["vae_name"] = (
        "tiny_umt5.safetensors",
        "tiny_wan_vae.safetensors",
    )
    graph["row"] = node("SVILora", lora="mine.safetensors", strength=1.0, lora_low_noise="none", strength_low_noise=1.0)
    graph["stack"] = node("SVILoraStack", model=["model", 0], model_low_noise=["low", 0], loras=["row", 0])
    graph["generate"]["inputs"] |= {"model": ["stack", 0], "model_low_noise": ["stack", 1]}
    graph["report"] = node("PreviewAny", source=["stack", 2])
    return graph


def test_the_trained_lora_works_in_a_workflow_with_every_key_matched(comfy_server, reference_image, trained):
    outputs = comfy_server.run(graph_with(comfy_server, reference_image, trained, "2.0 Pro"))
    report = outputs["report"]["text"][0]
    assert "60 of 60 modules matched" in report and "not matched" not in report and "SVI 2.0 Pro" in report, report
    with_lora = load_file(comfy_server.saved_file(outputs["latent"]["latents"][0]))["latent_tensor"]
    graph = graph_with(comfy_server, reference_image, trained, "2.0 Pro")
    graph["row"]["inputs"]["strength"] = 0.0
    plain = comfy_server.run(graph)["latent"]["latents"][0]
    assert not torch.equal(with_lora, load_file(comfy_server.saved_file(plain))["latent_tensor"])


def test_a_layout_that_it_was_not_trained_for_is_refused(comfy_server, reference_image, trained):
    with pytest.raises(ExecutionFailed, match=r"mine\.safetensors.*2\.0 Pro"):
        comfy_server.run(graph_with(comfy_server, reference_image, trained, "Film"))
