"""Graphs of other packs give the same clips as SVI Generate, bit for bit, as docs/IMPORTING.md says.

The packs are no part of this repository. SVI_OTHER_PACKS names a folder with a checkout of each, and COMFYUI_PYTHON a Python
that has what they require.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfyui.server import PACK_NODES, ComfyServer
from svi_core.video.frame_times import count_frames
from tests.conftest import draw_reference
from tests.e2e.graphs import PROMPTS, Graph, loop_graph, node, parts

NUM_FRAMES = 13
KJNODES, FIRST_LAST = "ComfyUI-KJNodes", "ComfyUI-Wan-SVI2Pro-FLF"
FOLDER = os.environ.get("SVI_OTHER_PACKS")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(FOLDER is None, reason=f"SVI_OTHER_PACKS names no folder with {KJNODES} and {FIRST_LAST}"),
]


@pytest.fixture(scope="module")
def server(environment, model_roots, tmp_path_factory):
    packs = {name: Path(str(FOLDER)) / name for name in (KJNODES, FIRST_LAST)}
    folder = tmp_path_factory.mktemp("other_packs")
    with ComfyServer(environment, folder, model_roots=model_roots, custom_nodes={**PACK_NODES, **packs}) as running:
        yield running


def guided(cfg: float, start: float = 0.0, end: float = 1.0) -> dict[str, float]:
    """Return the widgets of ScheduledCFGGuidance: cfg at those of a stage's steps that begin from `start` to `end`, else 1."""
    return {"cfg": cfg, "start_percent": start, "end_percent": end}


PLAIN = {"high": guided(2.0), "low": guided(2.0)}


def their_graph(
    image: str, clips: int, conditioning: str, motion: int, guidance: Mapping[str, Mapping[str, float]] = PLAIN
) -> Graph:
    """Return the graph of KJ's example, wired as there, with the tiny models; `conditioning` makes each clip's y."""
    graph = parts(image)
    graph["anchor"] = node("VAEEncode", pixels=["scaled", 0], vae=["vae", 0])
    graph["scaled"] = node("ImageScale", image=["image", 0], upscale_method="lanczos", width=64, height=64, crop="center")
    graph["split"] = node("SplitSigmas", sigmas=["sigmas", 0], step=2)
    graph["no noise"] = node("DisableNoise")
    for index in range(clips):
        before = {"prev_samples": [f"low{index - 1}" if index else "anchor", 0]}
        graph[f"positive{index}"] = node("CLIPTextEncode", clip=["clip", 0], text=PROMPTS[index])
        graph[f"y{index}"] = node(
            conditioning,
            positive=[f"positive{index}", 0],
            negative=["negative", 0],
            anchor_samples=["anchor", 0],
            length=NUM_FRAMES,
            motion_latent_count=motion if index else 0,
            **before,
        )
        graph[f"noise{index}"] = node("RandomNoise", noise_seed=5 + 42 * index)
        samples = [f"y{index}", 2]
        for expert, model, noise, sigmas in (("high", "model", f"noise{index}", 0), ("low", "low", "no noise", 1)):
            pair = {"positive": [f"y{index}", 0], "negative": [f"y{index}", 1]}
            graph[f"{expert} guider{index}"] = node("ScheduledCFGGuidance", model=[model, 0], **pair, **guidance[expert])
            graph[f"{expert}{index}"] = node(
                "SamplerCustomAdvanced",
                noise=[noise, 0],
                guider=[f"{expert} guider{index}", 0],
                sampler=["sampler", 0],
                sigmas=["split", sigmas],
                latent_image=samples,
            )
            samples = [f"{expert}{index}", 0]
        graph[f"latent{index}"] = node("SaveLatent", samples=samples, filename_prefix=f"latents/theirs{index}")
        graph[f"frames{index}"] = node("VAEDecode", samples=samples, vae=["vae", 0])
        if index:
            graph[f"video{index}"] = node(
                "ImageBatchExtendWithOverlap",
                source_images=[f"video{index - 1}", 2] if index > 1 else ["frames0", 0],
                new_images=[f"frames{index}", 0],
                overlap=5,
                overlap_side="source",
                overlap_mode="linear_blend",
            )
    graph["saved"] = node("CreateVideo", images=[f"video{clips - 1}", 2], fps=16.0)
    graph["file"] = node("SaveVideo", video=["saved", 0], filename_prefix="video/theirs", format="auto", codec="auto")
    return graph


def saved_latent(server: ComfyServer, outputs: dict, name: str) -> torch.Tensor:
    return load_file(server.saved_file(outputs[name]["latents"][0]))["latent_tensor"]


@pytest.mark.parametrize("motion", [1, 2], ids=["4 motion frames", "8 motion frames"])
@pytest.mark.parametrize("conditioning", ["WanImageToVideoSVIPro", "WanImageToVideoSVIProFLF"])
def test_three_clips_equal_those_of_svi_generate(server, tmp_path, conditioning, motion):
    image = server.add_input(draw_reference(tmp_path / "reference.png"))
    theirs = server.run(their_graph(image, 3, conditioning, motion))
    for clips in (1, 2, 3):
        options = {"num_frames": NUM_FRAMES, "num_motion_frames": 4 * motion, "filename_prefix": f"svi/{motion}"}
        ours = server.run(loop_graph(image, clips=clips, **options))
        assert torch.equal(saved_latent(server, ours, "latent"), saved_latent(server, theirs, f"latent{clips - 1}"))
    if motion == 1:  # 5 frames overlap in both: the 4 of motion and the anchor's replayed frame
        files = [server.saved_file(outputs[name]["images"][0]) for outputs, name in ((theirs, "file"), (ours, "saved"))]
        assert [count_frames(file) for file in files] == [3 * NUM_FRAMES - 2 * 5] * 2


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(guided(2.0, 0.0, 0.4), guided(2.0, 0.0, 0.17)), (guided(2.0, 0.5, 1.0), guided(2.0, 0.17, 0.5))],
    ids=["first step", "second step"],
)
def test_cfg_at_some_steps_of_high_is_a_guider_with_percents_of_the_whole_clip(server, tmp_path, theirs, ours):
    """Of three steps two are high's: step k alone is from (k - 0.5) / 3 to (k + 0.5) / 3, as docs/IMPORTING.md says."""
    image = server.add_input(draw_reference(tmp_path / "reference.png"))
    guidance = {"high": theirs, "low": guided(1.0)}
    latents = server.run(their_graph(image, 2, "WanImageToVideoSVIPro", 1, guidance))
    graph = loop_graph(image, clips=2, num_frames=NUM_FRAMES, num_motion_frames=4)
    pair = {"positive": ["positive", 0], "negative": ["negative", 0]}
    graph["positive"] = node("CLIPTextEncode", clip=["clip", 0], text=PROMPTS[0])
    graph["guider"] = node("ScheduledCFGGuidance", model=["model", 0], **pair, **ours)
    graph["generate"]["inputs"]["guider"] = ["guider", 0]
    made = saved_latent(server, server.run(graph), "latent")
    assert torch.equal(made, saved_latent(server, latents, "latent1"))
    del graph["generate"]["inputs"]["guider"], graph["guider"], graph["positive"]
    graph["generate"]["inputs"]["filename_prefix"] = "svi/all steps"
    assert not torch.equal(made, saved_latent(server, server.run(graph), "latent"))
