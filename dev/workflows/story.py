"""A story of 15 seconds: storyline prompts with a character line, distilled sampling in five steps."""

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
    prompt_texts,
    reference,
    svi_layout,
)
from dev.workflows.texts import NEGATIVE_CHINESE, note
from dev.workflows.weight_files import (
    HIGH,
    LIGHT_HIGH,
    LIGHT_LOW,
    LOW,
    SVI_HIGH,
    SVI_LOW,
    TEXT_ENCODER,
    VAE,
    downloads,
    weight_files,
)

CHARACTER = "Live-action film still, natural light. The heroine has long blonde hair and wears a pink dress"
ROWS = (  # title, preset, high-noise file, low-noise file
    ("SVI 2.0 Pro LoRA", "SVI or style, as trained: 1 and 1", SVI_HIGH, SVI_LOW),
    ("LightX2V LoRA: 5 steps instead of 50", "distilled, with motion: 0.6 and 1", LIGHT_HIGH, LIGHT_LOW),
    ("A style LoRA of your own", "SVI or style, as trained: 1 and 1", "none", "none"),
)


def story_2_0_pro(graph: GraphLayout) -> None:
    """Wan 2.2 with SVI 2.0 Pro: three prompts written from a subject, three clips, 15 seconds."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("story_2.0_pro"), 540)
    notes.note("Weight files", weight_files(HIGH, LOW, SVI_HIGH, SVI_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE), 350)
    stack = _experts(graph)
    links = {"model": stack["model"], "model_low_noise": stack["model_low_noise"]}
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links |= {"vae": vae, "anchor": reference(middle, vae, 832, 480)}
    column = graph.column(460)
    written = _storyline(column)
    words = column.group("4 - Prompts", PROMPTS)
    links |= prompt_texts(words, clip, written["text"], NEGATIVE_CHINESE, (60, 60), "Negative prompt (not used at cfg 1)")
    steps = graph.column(460).group("5 - Sampling", SAMPLING)
    links["sampler"] = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("SVIFewStepSigmas", steps_high_noise=2, steps_low_noise=3, shift=5.0, boundary=FEW_STEPS_BOUNDARY)
    links["layout"] = svi_layout(steps, "auto")
    links |= {"sigmas": sigmas["sigmas"], "boundary": sigmas["boundary"], "num_clips": written["num_prompts"]}
    generate(graph.column(520).group("6 - Video", VIDEO), links, "svi/story", cfg=1.0)


def _experts(graph: GraphLayout) -> Node:
    """Add both experts with a row for each LoRA; return the stack."""
    group = graph.column(600).group("1 - Wan 2.2 experts and LoRAs", MODELS)
    high, low = (
        group.add("UNETLoader", title=title, models=downloads(name), unet_name=name, weight_dtype="default")
        for title, name in (("High-noise expert", HIGH), ("Low-noise expert", LOW))
    )
    row: dict[str, Node] = {}
    for title, preset, lora, low_lora in ROWS:
        files = {"lora": lora, "lora_low_noise": low_lora, "models": downloads(lora, low_lora)}
        row = {"loras": group.add("SVILoraPreset", title=title, preset=preset, **files, **row)}
    return group.add("SVILoraStack", model=high, model_low_noise=low, **row)


def _storyline(column) -> Node:
    """Add the storyline and a preview of it; return the storyline."""
    group = column.group("3 - Storyline", PROMPTS)
    written = group.add(
        "SVIStoryline",
        subject="the young woman in the pink dress",
        kind="person",
        place="on a green hill under a blue sky",
        style="",
        num_clips=3,
        seed=4,
        prefix=CHARACTER,
        suffix="",
    )
    group.add("PreviewAny", title="The prompts: read, copy, edit", preview_height=240, source=written["text"])
    return written
