"""What the workflows of SVI on Wan 2.1 with one LoRA share: all nodes on the page, or a few."""

from typing import Any

from dev.workflows.five_nodes import System
from dev.workflows.graph_layout import GraphLayout
from dev.workflows.graph_nodes import Node
from dev.workflows.parts import (
    MODELS,
    NOTES,
    PROMPTS,
    REFERENCE,
    SAMPLING,
    VIDEO,
    encoders,
    generate,
    lora_row,
    prompt_texts,
    reference,
    sampling,
)
from dev.workflows.texts import NEGATIVE_ENGLISH, note
from dev.workflows.weight_files import CLIP_VISION, TEXT_ENCODER, VAE, WAN21_I2V, downloads, weight_files


def wan21_loop(graph: GraphLayout, variant: str, lora: str, text: str, note_name: str, prefix: str) -> None:
    """Add the whole graph of one SVI system on Wan 2.1, with the settings of its authors.

    Args:
        variant: of SVI Layout.
        lora: its file.
        text: of the prompt stream.
        note_name: of the note that explains it.
        prefix: folder of the run.
    """
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note(note_name), 540)
    notes.note("Weight files", weight_files(WAN21_I2V, lora, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    links = wan21_models(graph, f"SVI {variant} LoRA", lora)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links |= {"vae": vae, "anchor": reference(middle, vae, 832, 480)}
    links |= prompt_texts(graph.column(460).group("3 - Prompts", PROMPTS), clip, text, NEGATIVE_ENGLISH)
    steps = graph.column(460).group("4 - Sampling", SAMPLING)
    links |= sampling(steps, links["model"], 50, variant) | {"num_clips": links["prompts"]["num_prompts"]}
    steps.add("PreviewAny", title="What the authors use with it", preview_height=240, source=links["layout"]["settings"])
    generate(graph.column(520).group("5 - Video", VIDEO), links, prefix, cfg=5.0)


def wan21_system(
    variant: str, lora: str, text: str, description: str, *, cfg: float, more_files: tuple[str, ...] = (), **rest: Any
) -> System:
    """Return an SVI system on Wan 2.1 as a template of few nodes, with 50 steps of euler; `rest` are further fields.

    Args:
        variant: of SVI Layout; its lower case names folder and note.
        lora: its file.
        text: of the prompt stream.
        description: see System.
        more_files: that its own nodes load.
    """
    return System(
        name=f"SVI {variant} (Wan 2.1)",
        description=description,
        models=lambda graph: wan21_models(graph, f"SVI-{variant} LoRA", lora),
        sampling=lambda group, model: sampling(group, model, 50, variant),
        text=text,
        negative=NEGATIVE_ENGLISH,
        prefix=f"svi/{variant.lower()}",
        note=variant.lower(),
        files=(WAN21_I2V, lora, *more_files, CLIP_VISION, TEXT_ENCODER, VAE),
        settings={"cfg": cfg},
        **rest,
    )


def wan21_models(graph: GraphLayout, title: str, lora: str) -> dict[str, Node]:
    """Add Wan 2.1 with the LoRA and shift, and CLIP vision; return them as links of SVI Generate."""
    column = graph.column(540)
    group = column.group("1 - Wan 2.1 image-to-video and the SVI LoRA", MODELS)
    unet = group.add("UNETLoader", models=downloads(WAN21_I2V), unet_name=WAN21_I2V, weight_dtype="default")
    row = lora_row(group, title, lora, 1.0, "none", 1.0)
    stack = group.add("SVILoraStack", model=unet, loras=row)
    model = group.add("ModelSamplingSD3", title="Shift", model=stack, shift=5.0)
    features = column.group("CLIP vision (Wan 2.1 only)", REFERENCE)
    clip_vision = features.add("CLIPVisionLoader", models=downloads(CLIP_VISION), clip_name=CLIP_VISION)
    return {"model": model, "clip_vision": clip_vision}
