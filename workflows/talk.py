"""The workflow of SVI-Talk on Wan 2.1."""

from workflows.graph_layout import GraphLayout, Node
from workflows.parts import MODELS, NOTES, PROMPTS, REFERENCE, SAMPLING, VIDEO, encoders, lora_row, reference, save_video
from workflows.texts import NEGATIVE_ENGLISH, TALK_PROMPT, note
from workflows.weight_files import (
    CLIP_VISION,
    MULTITALK,
    SVI_TALK,
    TEXT_ENCODER,
    VAE,
    WAN21_I2V,
    WAV2VEC2,
    downloads,
    weight_files,
)

SPEECH = "speech.wav"


def talk_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Talk: a person who says what a sound says, as long as that is."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("talk_loop"), 620)
    files = (WAN21_I2V, SVI_TALK, MULTITALK, WAV2VEC2, CLIP_VISION, TEXT_ENCODER, VAE)
    notes.note("Weight files", weight_files(*files), 400)
    links = _models(graph)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 640, 480)
    words = graph.column(460).group("3 - Prompt", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=110, clip=clip, text=TALK_PROMPT, split="paragraphs")
    negative = words.add("CLIPTextEncode", title="Negative prompt", text_height=170, clip=clip, text=NEGATIVE_ENGLISH)
    steps = graph.column(460).group("4 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=links["model"], scheduler="simple", steps=50, denoise=1.0)
    layout = steps.add("SVILayout", variant="Talk", num_frames=81, num_motion_frames=0, cut_to_8_bits=False)
    talk = _speech(graph, layout)
    made = graph.column(520).group("6 - Video", VIDEO)
    links |= {"prompts": prompts, "negative": negative, "vae": vae, "anchor": anchor, "sampler": sampler, "sigmas": sigmas}
    settings = {"cfg": 2.0, "seed": 42, "seed_mode": "per clip", "boundary": 0.9, "filename_prefix": "svi/talk"}
    video = made.add("SVIGenerate", **links, layout=layout, control=talk, num_clips=talk["num_clips"], **settings)
    save_video(made, video, "svi/talk")


def _models(graph: GraphLayout) -> dict[str, Node]:
    """Add Wan 2.1 with the LoRA and shift, and CLIP vision."""
    column = graph.column(540)
    group = column.group("1 - Wan 2.1 image-to-video and the SVI LoRA", MODELS)
    unet = group.add("UNETLoader", models=downloads(WAN21_I2V), unet_name=WAN21_I2V, weight_dtype="default")
    row = lora_row(group, "SVI-Talk LoRA", SVI_TALK, 1.0, "none", 1.0)
    stack = group.add("SVILoraStack", model=unet, loras=row)
    model = group.add("ModelSamplingSD3", title="Shift", model=stack, shift=5.0)
    features = column.group("CLIP vision (Wan 2.1 only)", REFERENCE)
    clip_vision = features.add("CLIPVisionLoader", models=downloads(CLIP_VISION), clip_name=CLIP_VISION)
    return {"model": model, "clip_vision": clip_vision}


def _speech(graph: GraphLayout, layout: Node) -> Node:
    """Add the sound, what hears it, and SVI Talk."""
    group = graph.column(460).group("5 - Speech", REFERENCE)
    sound = group.add("LoadAudio", preview_height=90, audio=SPEECH)
    encoder = group.add("AudioEncoderLoader", models=downloads(WAV2VEC2), audio_encoder_name=WAV2VEC2)
    layers = group.add("ModelPatchLoader", models=downloads(MULTITALK), name=MULTITALK)
    parts = {"audio": sound, "audio_encoder": encoder, "model_patch": layers}
    return group.add("SVITalk", **parts, layout=layout, audio_cfg=5.0)
