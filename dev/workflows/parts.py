"""Parts that several workflows share."""

from typing import Any

from dev.workflows.graph_layout import Column, GraphLayout
from dev.workflows.graph_nodes import Node, Socket
from dev.workflows.weight_files import HIGH, LIGHT_HIGH, LIGHT_LOW, LOW, SVI_HIGH, SVI_LOW, TEXT_ENCODER, VAE, downloads

NOTES, MODELS, REFERENCE, PROMPTS, SAMPLING, VIDEO = "#5b5f66", "#3f6a8e", "#4f7a4f", "#a0692f", "#6b5596", "#98484f"
BOUNDARY = 0.875  # as SVI's authors
FEW_STEPS_BOUNDARY = 0.9  # with which LightX2V samples Wan 2.2 I2V
EXAMPLE_IMAGE = "example.png"  # in the input folder of every ComfyUI


def wan22_models(graph: GraphLayout) -> tuple[Node, Node]:
    """Add both Wan 2.2 experts with their LoRAs and shift; return (high noise, low noise)."""
    group = graph.column(600).group("1 - Wan 2.2 experts and LoRAs", MODELS)
    unets = [
        group.add("UNETLoader", title=title, models=downloads(name), unet_name=name, weight_dtype="default")
        for title, name in (("High-noise expert", HIGH), ("Low-noise expert", LOW))
    ]
    svi = lora_row(group, "SVI 2.0 Pro LoRA", SVI_HIGH, 1.0, SVI_LOW, 1.0)
    light = lora_row(group, "LightX2V LoRA: 8 steps instead of 50", LIGHT_HIGH, 0.6, LIGHT_LOW, 1.0, loras=svi)
    stack = group.add("SVILoraStack", model=unets[0], model_low_noise=unets[1], loras=light)
    high = group.add("ModelSamplingSD3", title="Shift, high noise", model=stack["model"], shift=5.0)
    low = group.add("ModelSamplingSD3", title="Shift, low noise", model=stack["model_low_noise"], shift=5.0)
    return high, low


def lora_row(group: Any, title: str, lora: str, strength: float, low_lora: str, low_strength: float, **links: Node) -> Node:
    """Add one row of a LoRA stack."""
    return group.add(
        "SVILora",
        title=title,
        models=downloads(lora, low_lora),
        lora=lora,
        strength=strength,
        lora_low_noise=low_lora,
        strength_low_noise=low_strength,
        **links,
    )


def encoders(column: Column) -> tuple[Node, Node]:
    """Add the text encoder and the VAE of the full-size models."""
    group = column.group("Text encoder and VAE", MODELS)
    return text_encoder(group), wan_vae(group)


def text_encoder(group: Any) -> Node:
    """Add the text encoder of the full-size models."""
    return group.add("CLIPLoader", models=downloads(TEXT_ENCODER), clip_name=TEXT_ENCODER, type="wan", device="default")


def wan_vae(group: Any) -> Node:
    """Add the VAE of the full-size models."""
    return group.add("VAELoader", models=downloads(VAE), vae_name=VAE)


def reference(column: Column, vae: Node, width: int, height: int, image: str = EXAMPLE_IMAGE) -> Node:
    """Add the reference image and its anchor."""
    group = column.group("2 - Reference image", REFERENCE)
    return anchor_encode(group, vae, group.add("LoadImage", preview_height=260, image=image), (width, height))


def anchor_encode(group: Any, vae: Node, picture: Node | Socket, size: tuple[int, int]) -> Node:
    """Add the anchor of a picture at a size in pixels."""
    fit = {"size_rule": "exact", "resize": "crop", "megapixels": 0.38}
    return group.add("SVIAnchorEncode", vae=vae, image=picture, width=size[0], height=size[1], **fit)


def prompt_texts(
    group: Any,
    clip: Node,
    text: str | Node,
    negative: str,
    heights: tuple[int, int] = (290, 170),
    title: str = "Negative prompt",
) -> dict[str, Node]:
    """Add prompt stream and negative prompt, their texts `heights` units high; return them as links of SVI Generate."""
    prompts = group.add("SVIPromptStream", text_height=heights[0], clip=clip, text=text, split="paragraphs")
    return {
        "prompts": prompts,
        "negative": group.add("CLIPTextEncode", title=title, text_height=heights[1], clip=clip, text=negative),
    }


def sampling(group: Any, model: Node, steps: int, variant: str) -> dict[str, Node]:
    """Add euler, `steps` steps for `model`, and the layout of `variant`; return them as links of SVI Generate."""
    sampler = group.add("KSamplerSelect", sampler_name="euler")
    sigmas = group.add("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)
    return {"sampler": sampler, "sigmas": sigmas, "layout": svi_layout(group, variant)}


def svi_layout(group: Any, variant: str) -> Node:
    """Add the layout of `variant` with its own lengths."""
    return group.add("SVILayout", variant=variant, num_frames=81, num_motion_frames=0, cut_to_8_bits=False)


def generate(group: Any, links: dict[str, Node], prefix: str, **settings: Any) -> Node:
    """Add SVI Generate and, beside it, the node that shows its video; `settings` override the usual values."""
    video = generate_only(group, links, prefix, **settings)
    # in a column of its own, since SVI Generate grows with its panel
    show_video(group.graph.column(420).group("Finished video", VIDEO), video)
    return video


def generate_only(group: Any, links: dict[str, Any], prefix: str, **settings: Any) -> Node:
    """Add SVI Generate; `settings` override the usual values."""
    usual = {"seed": 42, "seed_mode": "per clip", "boundary": BOUNDARY}
    return group.add("SVIGenerate", **usual | links | settings, filename_prefix=prefix)


def show_video(group: Any, video: Node | Socket) -> Node:
    """Add the node that shows the finished video where it lies."""
    return group.add("SVIShowVideo", preview_height=340, video=video)
