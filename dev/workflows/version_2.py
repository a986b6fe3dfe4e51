"""Workflows of SVI 2.0: on Wan 2.1, and on Wan 2.2 with the settings of the authors' ComfyUI workflow."""

from typing import Any

from dev.workflows.five_nodes import System
from dev.workflows.graph_layout import GraphLayout
from dev.workflows.graph_nodes import Node
from dev.workflows.parts import (
    FEW_STEPS_BOUNDARY,
    MODELS,
    NOTES,
    PROMPTS,
    SAMPLING,
    VIDEO,
    encoders,
    generate,
    lora_row,
    prompt_texts,
    reference,
    svi_layout,
)
from dev.workflows.texts import NEGATIVE_CHINESE, SHOT_STORY, STORY, note, paragraphs
from dev.workflows.wan21 import wan21_loop
from dev.workflows.weight_files import (
    HIGH,
    LIGHT_HIGH,
    LIGHT_LOW,
    LOW,
    SVI_2_HIGH,
    SVI_2_LOW,
    SVI_2_WAN21,
    TEXT_ENCODER,
    VAE,
    downloads,
    weight_files,
)


def loop_2_0_wan21(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI 2.0: one scene, the anchor as padding and five motion frames."""
    wan21_loop(graph, "2.0 (Wan 2.1)", SVI_2_WAN21, paragraphs(SHOT_STORY), "loop_2.0_wan21", "svi/2.0_wan21")


def loop_2_0_wan22(graph: GraphLayout) -> None:
    """Wan 2.2 with SVI 2.0: one scene with much motion, passing frames instead of latents between clips."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("loop_2.0_wan22"), 620)
    notes.note("Weight files", weight_files(HIGH, LOW, SVI_2_HIGH, SVI_2_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE), 350)
    links = _experts(graph)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links |= {"vae": vae, "anchor": reference(middle, vae, 832, 480)}
    words = graph.column(460).group("3 - Prompts", PROMPTS)
    links |= prompt_texts(words, clip, paragraphs(STORY), NEGATIVE_CHINESE, heights=(290, 90))
    links |= _few_steps(graph.column(460).group("4 - Sampling", SAMPLING), links["model"])
    links["num_clips"] = links["prompts"]["num_prompts"]
    generate(graph.column(520).group("5 - Video", VIDEO), links, "svi/2.0", cfg=1.5)


def _few_steps(group: Any, model: Node) -> dict[str, Any]:
    """Add six distilled steps and the layout; return them as links of SVI Generate."""
    sampler = group.add("KSamplerSelect", sampler_name="euler")
    sigmas = group.add("SVIFewStepSigmas", steps_high_noise=3, steps_low_noise=3, shift=8.0, boundary=FEW_STEPS_BOUNDARY)
    layout = svi_layout(group, "2.0")
    return {"sampler": sampler, "sigmas": sigmas["sigmas"], "boundary": sigmas["boundary"], "layout": layout}


def _experts(graph: GraphLayout) -> dict[str, Node]:
    """Add both experts with the SVI pair and the distilled pair."""
    group = graph.column(600).group("1 - Wan 2.2 experts and LoRAs", MODELS)
    high, low = (
        group.add("UNETLoader", title=title, models=downloads(name), unet_name=name, weight_dtype="default")
        for title, name in (("High-noise expert", HIGH), ("Low-noise expert", LOW))
    )
    svi = lora_row(group, "SVI 2.0 LoRA", SVI_2_HIGH, 1.0, SVI_2_LOW, 1.0)
    light = group.add(
        "SVILoraPreset",
        title="LightX2V LoRA: 6 steps instead of 50",
        models=downloads(LIGHT_HIGH, LIGHT_LOW),
        preset="distilled, more motion: 0.5 and 1",
        lora=LIGHT_HIGH,
        lora_low_noise=LIGHT_LOW,
        loras=svi,
    )
    stack = group.add("SVILoraStack", model=high, model_low_noise=low, loras=light)
    return {"model": stack["model"], "model_low_noise": stack["model_low_noise"]}


VERSION_2 = System(
    name="SVI 2.0 (Wan 2.2)",
    description="A long video of one scene with much motion from one image, a prompt per clip: SVI 2.0 on Wan 2.2.",
    models=_experts,
    sampling=_few_steps,
    text=paragraphs(STORY),
    negative=NEGATIVE_CHINESE,
    prefix="svi/2.0",
    note="version_2",
    files=(HIGH, LOW, SVI_2_HIGH, SVI_2_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE),
    settings={"cfg": 1.5},
)
