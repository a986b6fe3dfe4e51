"""The harness itself: stock nodes only make a video on the test server, and what goes wrong is told."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from comfyui.client import ExecutionFailed, ExecutionInterrupted, PromptRejected
from comfyui.server import ComfyServer

pytestmark = pytest.mark.e2e

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"


def image_to_video_graph(
    image: str, *, model: str = HIGH, seed: int = 1, num_frames: int = 9, steps: int = 2
) -> dict[str, Any]:
    """Return a stock Wan image-to-video graph in API format: 64 x 64 pixels, cfg 2."""

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    links = {"positive": ["conditioned", 0], "negative": ["conditioned", 1], "latent_image": ["conditioned", 2]}
    sizes = {"width": 64, "height": 64, "length": num_frames, "batch_size": 1}
    return {
        "model": node("UNETLoader", unet_name=model, weight_dtype="default"),
        "vae": node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "clip": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan", device="default"),
        "positive": node("CLIPTextEncode", clip=["clip", 0], text="a cat walking on the grass"),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text="blurry, low quality"),
        "image": node("LoadImage", image=image),
        "vision": node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors"),
        "seen": node("CLIPVisionEncode", clip_vision=["vision", 0], image=["image", 0], crop="center"),
        "conditioned": node(
            "WanImageToVideo",
            positive=["positive", 0],
            negative=["negative", 0],
            vae=["vae", 0],
            clip_vision_output=["seen", 0],
            start_image=["image", 0],
            **sizes,
        ),
        "sampled": node(
            "KSampler",
            model=["model", 0],
            seed=seed,
            steps=steps,
            cfg=2.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
            **links,
        ),
        "frames": node("VAEDecode", samples=["sampled", 0], vae=["vae", 0]),
        "video": node("CreateVideo", images=["frames", 0], fps=16.0),
        "saved": node("SaveVideo", video=["video", 0], filename_prefix="stock", format="auto", codec="auto"),
    }


@pytest.mark.parametrize("model", [HIGH, "wan2.1_i2v_480p_14B_fp16.safetensors", "wan2.1_t2v_14B_fp16.safetensors"])
def test_stock_nodes_make_a_video_of_tiny_models(comfy_server: ComfyServer, reference_image: Path, model: str):
    import imageio_ffmpeg

    image = comfy_server.add_input(reference_image)
    client = uuid.uuid4().hex
    with comfy_server.events(client) as events:
        prompt_id = comfy_server.queue(image_to_video_graph(image, model=model), client)
        outputs = comfy_server.wait(prompt_id)
        kinds = {kind for kind, _ in events.drain()}
    video = comfy_server.saved_file(outputs["saved"]["images"][0])
    num_frames, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert num_frames == 9
    assert {"execution_start", "progress_state"} <= kinds


def test_a_refused_graph_names_the_node_and_the_input(comfy_server: ComfyServer, reference_image: Path):
    graph = image_to_video_graph(comfy_server.add_input(reference_image), model="absent.safetensors")
    with pytest.raises(PromptRejected, match=r"UNETLoader \(model\): Value not in list: unet_name: 'absent") as caught:
        comfy_server.queue(graph)
    assert set(caught.value.node_errors) == {"model"}


def test_a_failing_node_is_reported_with_its_traceback(comfy_server: ComfyServer, tmp_path: Path):
    not_an_image = tmp_path / "broken.png"
    not_an_image.write_bytes(b"not an image")
    with pytest.raises((ExecutionFailed, PromptRejected)) as caught:
        comfy_server.run(image_to_video_graph(comfy_server.add_input(not_an_image)))
    assert "LoadImage" in str(caught.value)


def test_an_interrupted_graph_says_so_and_the_server_goes_on(comfy_server: ComfyServer, reference_image: Path):
    image = comfy_server.add_input(reference_image)
    client = uuid.uuid4().hex
    with comfy_server.events(client) as events:
        prompt_id = comfy_server.queue(image_to_video_graph(image, seed=2, steps=10000), client)

        def interrupt_once_sampling() -> None:
            if any(kind == "progress" for kind, _ in events.drain()):
                comfy_server.interrupt()

        with pytest.raises(ExecutionInterrupted):
            comfy_server.wait(prompt_id, on_poll=interrupt_once_sampling)
    assert comfy_server.run(image_to_video_graph(image, seed=3))["saved"]
