"""Workflows of SVI-Shot on Wan 2.1."""

from workflows.graph_layout import GraphLayout
from workflows.parts import MODELS, NOTES, PROMPTS, REFERENCE, SAMPLING, VIDEO, encoders, lora_row, reference, save_video
from workflows.texts import NEGATIVE_ENGLISH, SHOT_STORY, note, paragraphs
from workflows.weight_files import CLIP_VISION, SVI_SHOT, TEXT_ENCODER, VAE, WAN21_I2V, downloads, weight_files


def shot_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Shot: one scene, the loop in one node."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("shot_loop"), 490)
    notes.note("Weight files", weight_files(WAN21_I2V, SVI_SHOT, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    column = graph.column(540)
    group = column.group("1 - Wan 2.1 image-to-video and the SVI LoRA", MODELS)
    unet = group.add("UNETLoader", models=downloads(WAN21_I2V), unet_name=WAN21_I2V, weight_dtype="default")
    row = lora_row(group, "SVI-Shot LoRA", SVI_SHOT, 1.0, "none", 1.0)
    stack = group.add("SVILoraStack", model=unet, loras=row)
    model = group.add("ModelSamplingSD3", title="Shift", model=stack, shift=5.0)
    features = column.group("CLIP vision (Wan 2.1 only)", REFERENCE)
    clip_vision = features.add("CLIPVisionLoader", models=downloads(CLIP_VISION), clip_name=CLIP_VISION)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 832, 480)
    words = graph.column(460).group("3 - Prompts", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=290, clip=clip, text=paragraphs(SHOT_STORY), split="paragraphs")
    negative = words.add("CLIPTextEncode", title="Negative prompt", text_height=170, clip=clip, text=NEGATIVE_ENGLISH)
    steps = graph.column(460).group("4 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=model, scheduler="simple", steps=50, denoise=1.0)
    layout = steps.add("SVILayout", variant="Shot", num_frames=81, num_motion_frames=0, cut_to_8_bits=False)
    made = graph.column(520).group("5 - Video", VIDEO)
    video = made.add(
        "SVIGenerate",
        model=model,
        prompts=prompts,
        negative=negative,
        vae=vae,
        anchor=anchor,
        sampler=sampler,
        sigmas=sigmas,
        layout=layout,
        clip_vision=clip_vision,
        num_clips=3,
        cfg=5.0,
        seed=42,
        seed_mode="per clip",
        boundary=0.9,
        filename_prefix="svi/shot",
    )
    save_video(made, video, "svi/shot")
