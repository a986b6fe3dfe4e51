"""The loop on Wan 2.1 with one SVI LoRA: what the workflows of Film and 2.0 have in common."""

from workflows.graph_layout import GraphLayout, Node
from workflows.parts import MODELS, NOTES, PROMPTS, REFERENCE, SAMPLING, VIDEO, encoders, lora_row, reference, save_video
from workflows.texts import NEGATIVE_ENGLISH, note
from workflows.weight_files import CLIP_VISION, TEXT_ENCODER, VAE, WAN21_I2V, downloads, weight_files


def wan21_loop(graph: GraphLayout, variant: str, lora: str, story: str, note_name: str, prefix: str) -> None:
    """Add the whole graph of one SVI system on Wan 2.1, with the settings of its authors.

    Args:
        variant: of SVI Layout.
        lora: its file.
        story: the text of the prompt stream.
        note_name: of the note that explains it.
        prefix: folder of the run.
    """
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note(note_name), 540)
    notes.note("Weight files", weight_files(WAN21_I2V, lora, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    links = wan21_models(graph, f"SVI {variant} LoRA", lora)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 832, 480)
    words = graph.column(460).group("3 - Prompts", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=290, clip=clip, text=story, split="paragraphs")
    negative = words.add("CLIPTextEncode", title="Negative prompt", text_height=170, clip=clip, text=NEGATIVE_ENGLISH)
    steps = graph.column(460).group("4 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=links["model"], scheduler="simple", steps=50, denoise=1.0)
    layout = steps.add("SVILayout", variant=variant, num_frames=81, num_motion_frames=0, cut_to_8_bits=False)
    steps.add("PreviewAny", title="What the authors use with it", preview_height=240, source=layout["settings"])
    made = graph.column(520).group("5 - Video", VIDEO)
    links |= {"prompts": prompts, "negative": negative, "vae": vae, "anchor": anchor, "sampler": sampler, "sigmas": sigmas}
    settings = {"cfg": 5.0, "seed": 42, "seed_mode": "per clip", "boundary": 0.9, "filename_prefix": prefix}
    video = made.add("SVIGenerate", **links, layout=layout["layout"], num_clips=prompts["num_prompts"], **settings)
    save_video(made, video, prefix)


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
