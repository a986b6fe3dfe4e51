"""The workflow of SVI-Dance on Wan 2.1."""

from workflows.graph_layout import GraphLayout, Node
from workflows.parts import MODELS, NOTES, PROMPTS, REFERENCE, SAMPLING, VIDEO, encoders, lora_row, reference, save_video
from workflows.texts import DANCE_PROMPT, NEGATIVE_ENGLISH, note
from workflows.weight_files import CLIP_VISION, SVI_DANCE, TEXT_ENCODER, VAE, WAN21_I2V, downloads, weight_files

POSE_VIDEO = "pose.mp4"


def dance_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Dance: a person who follows a pose video, as long as that is."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("dance_loop"), 620)
    notes.note("Weight files", weight_files(WAN21_I2V, SVI_DANCE, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    links = _models(graph)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 480, 832)
    poses = graph.column(520).group("3 - Pose video", REFERENCE).add("LoadVideo", preview_height=840, file=POSE_VIDEO)
    words = graph.column(460).group("4 - Prompt", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=110, clip=clip, text=DANCE_PROMPT, split="paragraphs")
    negative = words.add("CLIPTextEncode", title="Negative prompt", text_height=170, clip=clip, text=NEGATIVE_ENGLISH)
    column = graph.column(460)
    steps = column.group("5 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=links["model"], scheduler="simple", steps=50, denoise=1.0)
    layout = steps.add("SVILayout", variant="Dance", num_frames=81, num_motion_frames=0, cut_to_8_bits=False)
    settings = {"lora": SVI_DANCE, "when_poses_end": "stop", "pose_in_negative": True}
    dance = column.group("6 - Poses", REFERENCE).add("SVIDance", poses=poses, layout=layout, **settings)
    made = graph.column(520).group("7 - Video", VIDEO)
    links |= {"prompts": prompts, "negative": negative, "vae": vae, "anchor": anchor, "sampler": sampler, "sigmas": sigmas}
    settings = {"cfg": 2.0, "seed": 42, "seed_mode": "per clip", "boundary": 0.9, "filename_prefix": "svi/dance"}
    video = made.add("SVIGenerate", **links, layout=layout, control=dance, num_clips=dance["num_clips"], **settings)
    save_video(made, video, "svi/dance")


def _models(graph: GraphLayout) -> dict[str, Node]:
    """Add Wan 2.1 with the LoRA and shift, and CLIP vision."""
    column = graph.column(540)
    group = column.group("1 - Wan 2.1 image-to-video and the SVI LoRA", MODELS)
    unet = group.add("UNETLoader", models=downloads(WAN21_I2V), unet_name=WAN21_I2V, weight_dtype="default")
    row = lora_row(group, "SVI-Dance LoRA", SVI_DANCE, 1.0, "none", 1.0)
    stack = group.add("SVILoraStack", model=unet, loras=row)
    model = group.add("ModelSamplingSD3", title="Shift", model=stack, shift=5.0)
    features = column.group("CLIP vision (Wan 2.1 only)", REFERENCE)
    clip_vision = features.add("CLIPVisionLoader", models=downloads(CLIP_VISION), clip_name=CLIP_VISION)
    return {"model": model, "clip_vision": clip_vision}
