"""A story of 15 seconds: prompts from a storyline, a character line in front of each, distilled sampling in five steps."""

from workflows.graph_layout import GraphLayout, Node
from workflows.parts import MODELS, NOTES, PROMPTS, SAMPLING, VIDEO, encoders, reference, save_video
from workflows.texts import NEGATIVE_CHINESE, note
from workflows.weight_files import (
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
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 832, 480)
    column = graph.column(460)
    story, shown = _storyline(column)
    words = column.group("4 - Prompts", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=60, clip=clip, text=story["text"], split="paragraphs")
    negative = words.add(
        "CLIPTextEncode", title="Negative prompt (not used at cfg 1)", text_height=60, clip=clip, text=NEGATIVE_CHINESE
    )
    steps = graph.column(460).group("5 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("SVIFewStepSigmas", steps_high_noise=2, steps_low_noise=3, shift=5.0, boundary=0.9)
    layout = steps.add("SVILayout", variant="auto", num_frames=81, num_motion_frames=0, cut_to_8_bits=False)
    made = graph.column(520).group("6 - Video", VIDEO)
    links = {"model": stack["model"], "model_low_noise": stack["model_low_noise"], "prompts": prompts["prompts"]}
    links |= {"negative": negative, "vae": vae, "anchor": anchor["anchor"], "sampler": sampler, "layout": layout["layout"]}
    links |= {"sigmas": sigmas["sigmas"], "boundary": sigmas["boundary"], "num_clips": story["num_prompts"]}
    video = made.add("SVIGenerate", **links, cfg=1.0, seed=42, seed_mode="per clip", filename_prefix="svi/story")
    save_video(made, video["video"], "svi/story")


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


def _storyline(column) -> tuple[Node, Node]:
    """Add the storyline and what shows it."""
    group = column.group("3 - Storyline", PROMPTS)
    story = group.add(
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
    return story, group.add("PreviewAny", title="The prompts: read, copy, edit", preview_height=240, source=story["text"])
