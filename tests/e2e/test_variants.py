"""Every SVI system on a real ComfyUI: made as its layout says, taken from the LoRA, refused where the two differ."""

import json

import pytest
import torch
from safetensors.torch import load_file

from comfyui.client import ExecutionFailed
from svi_core.systems.layouts import LAYOUTS
from svi_core.video.frame_times import count_frames
from tests.e2e.graphs import HIGH, WAN21, loop_graph, node, unrolled_graph

pytestmark = pytest.mark.e2e

SHOT = "svi-shot_lora_rank_128_fp16.safetensors"
FILM = "svi-film-opt-10212025.safetensors"
WAN21_2_0 = "SVI_Wan2.1-I2V-14B_lora_v2.0.safetensors"
PRO_HIGH = "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors"
PRO_LOW = "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors"


def with_lora(graph, name, low="none", strength=1.0):
    """Return `graph` with a LoRA put on by SVI LoRA Stack."""
    graph["row"] = node("SVILora", lora=name, strength=strength, lora_low_noise=low, strength_low_noise=strength)
    graph["stack"] = node("SVILoraStack", model=["model", 0], loras=["row", 0])
    graph["generate"]["inputs"]["model"] = ["stack", 0]
    if low != "none":
        graph["stack"]["inputs"]["model_low_noise"] = ["low", 0]
        graph["generate"]["inputs"]["model_low_noise"] = ["stack", 1]
    return graph


def wan21_graph(image, **options):
    """Return the loop on Wan 2.1 with CLIP vision, two clips of 9 frames."""
    graph = loop_graph(image, clips=2, model=WAN21, low=None, **options)
    graph["vision"] = node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors")
    graph["generate"]["inputs"]["clip_vision"] = ["vision", 0]
    return graph


def latent(server, graph):
    return load_file(server.saved_file(server.run(graph)["latent"]["latents"][0]))["latent_tensor"]


def folder_of(server, prefix):
    return server.output_directory / prefix


@pytest.mark.parametrize("name", [name for name in LAYOUTS if LAYOUTS[name].condition is None])
def test_every_system_makes_its_video(comfy_server, reference_image, name):
    image = comfy_server.add_input(reference_image)
    graph = wan21_graph(image, variant=name, filename_prefix=f"svi/variant {name}", steps=1)
    outputs = comfy_server.run(graph)
    overlap = LAYOUTS[name].overlap
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 2 * (9 - overlap) + overlap


@pytest.mark.parametrize(
    ("variant", "padding", "num_motion_frames"),
    [("Tom & Jerry", "grey frames", "1"), ("2.0 (Wan 2.1)", "anchor frames", "5"), ("Film-transitions", "grey frames", "5")],
)
def test_the_loop_equals_the_unrolled_stock_graph_bit_for_bit(
    comfy_server, reference_image, variant, padding, num_motion_frames
):
    image = comfy_server.add_input(reference_image)
    unrolled = unrolled_graph(image, clips=2, low=None, padding=padding, num_motion_frames=num_motion_frames)
    saved = comfy_server.run(unrolled)["latent1"]["latents"][0]
    expected = load_file(comfy_server.saved_file(saved))["latent_tensor"]
    assert torch.equal(latent(comfy_server, loop_graph(image, clips=2, low=None, variant=variant)), expected)


@pytest.mark.parametrize(
    ("lora", "variant", "words"),
    [
        (SHOT, "Film", r"svi-shot.* is for SVI Shot \(its name says so\), but the layout is 'Film': choose variant 'Shot'"),
        (FILM, "2.0 (Wan 2.1)", r"svi-film.* is for SVI Film .*but the layout is '2.0 \(Wan 2.1\)'"),
        (WAN21_2_0, "2.0 Pro", r"is for SVI 2.0 \(Wan 2.1\)"),
        (PRO_HIGH, "Shot", "is for SVI 2.0 Pro"),
    ],
)
def test_a_lora_of_another_system_stops_the_run_before_its_first_step(comfy_server, reference_image, lora, variant, words):
    prefix = f"svi/refused {lora[:12]}"
    graph = wan21_graph(comfy_server.add_input(reference_image), variant=variant, filename_prefix=prefix)
    with pytest.raises(ExecutionFailed, match=words):
        comfy_server.run(with_lora(graph, lora))
    assert not folder_of(comfy_server, prefix).exists()


def test_without_a_layout_node_the_lora_is_still_checked(comfy_server, reference_image):
    graph = with_lora(wan21_graph(comfy_server.add_input(reference_image)), SHOT)
    del graph["generate"]["inputs"]["layout"]
    with pytest.raises(ExecutionFailed, match="the layout is '2.0 Pro': choose variant 'Shot'"):
        comfy_server.run(graph)


def test_rows_of_the_loop_itself_are_checked_clip_by_clip(comfy_server, reference_image):
    """A row at strength 0 claims nothing, until the schedule gives it a strength."""
    image = comfy_server.add_input(reference_image)

    def graph_of(prompts):
        graph = wan21_graph(image, variant="Film", prompts=prompts, steps=1)
        graph["row"] = node("SVILora", lora=SHOT, strength=0.0, lora_low_noise="none", strength_low_noise=1.0)
        graph["generate"]["inputs"]["loras"] = ["row", 0]
        return graph

    comfy_server.run(graph_of(["a cat", "a dog"]))
    with pytest.raises(ExecutionFailed, match="is for SVI Shot"):
        comfy_server.run(graph_of(["a cat", "[lora svi-shot=1]\na dog"]))


def test_the_claim_survives_nodes_between_stack_and_loop(comfy_server, reference_image):
    graph = with_lora(wan21_graph(comfy_server.add_input(reference_image), variant="Film"), SHOT)
    graph["shift"] = node("ModelSamplingSD3", model=["stack", 0], shift=5.0)
    graph["generate"]["inputs"]["model"] = ["shift", 0]
    with pytest.raises(ExecutionFailed, match="is for SVI Shot"):
        comfy_server.run(graph)


def test_auto_makes_what_the_loras_own_layout_makes(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    for lora, variant in ((SHOT, "Shot"), (FILM, "Film")):
        made = [
            latent(
                comfy_server, with_lora(wan21_graph(image, variant=asked, steps=1, filename_prefix=f"svi/auto {asked}"), lora)
            )
            for asked in (variant, "auto")
        ]
        assert torch.equal(*made)


def test_auto_takes_pro_from_a_pair_and_refuses_to_guess(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    graph = with_lora(loop_graph(image, clips=2, model=HIGH, variant="auto", steps=2), PRO_HIGH, PRO_LOW)
    outputs = comfy_server.run(graph)
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 2 * 4 + 5
    with pytest.raises(ExecutionFailed, match="'auto' needs a LoRA that says which SVI system"):
        comfy_server.run(loop_graph(image, clips=1, variant="auto"))


def test_8_bits_change_later_clips_of_frames_only(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)

    def last_latent(clips, cut_to_8_bits):
        graph = wan21_graph(image, variant="Shot", steps=1, filename_prefix=f"svi/bits {cut_to_8_bits}")
        graph["layout"]["inputs"]["cut_to_8_bits"] = cut_to_8_bits
        graph["generate"]["inputs"]["num_clips"] = clips
        return latent(comfy_server, graph)

    assert torch.equal(last_latent(1, True), last_latent(1, False))
    assert not torch.equal(last_latent(2, True), last_latent(2, False))


def test_a_story_goes_from_subject_to_video(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image), clips=1, steps=1, filename_prefix="svi/story test")
    graph["story"] = node(
        "SVIStoryline", subject="a cat", kind="animal", place="", style="", num_clips=2, seed=3, prefix="", suffix=""
    )
    graph["prompts"]["inputs"]["text"] = ["story", 0]
    graph["generate"]["inputs"]["num_clips"] = ["story", 1]
    comfy_server.run(graph)
    folder = folder_of(comfy_server, "svi/story test")
    prompts = [clip["prompt"] for clip in json.loads((folder / "run.json").read_text())["clips"]]
    assert len(prompts) == 2 and prompts[0].startswith("A cat ") and prompts[1].startswith("The cat ")


def test_sigmas_per_expert_give_what_simple_steps_give_where_they_split_alike(comfy_server, reference_image):
    """4 steps at shift 5: both nodes give 1, 0.9375, 0.8333, 0.625 and split 2 + 2 at 0.9."""
    image = comfy_server.add_input(reference_image)
    stock = loop_graph(image, clips=1, steps=4)
    for name, model in (("shift", "model"), ("shift_low", "low")):
        stock[name] = node("ModelSamplingSD3", model=[model, 0], shift=5.0)
    stock["generate"]["inputs"] |= {"model": ["shift", 0], "model_low_noise": ["shift_low", 0]}
    stock["sigmas"]["inputs"]["model"] = ["shift", 0]
    ours = loop_graph(image, clips=1)
    ours["sigmas"] = node("SVIFewStepSigmas", steps_high_noise=2, steps_low_noise=2, shift=5.0, boundary=0.9)
    ours["generate"]["inputs"]["boundary"] = ["sigmas", 1]
    assert torch.allclose(latent(comfy_server, stock), latent(comfy_server, ours), atol=1e-3)
