"""The workflow of SVI-Talk on Wan 2.1."""

from dev.workflows.graph_layout import GraphLayout, Node
from dev.workflows.parts import (
    NOTES,
    PROMPTS,
    REFERENCE,
    SAMPLING,
    VIDEO,
    encoders,
    generate,
    prompt_texts,
    reference,
    sampling,
)
from dev.workflows.texts import NEGATIVE_ENGLISH, TALK_PROMPT, note
from dev.workflows.wan21 import wan21_models
from dev.workflows.weight_files import (
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
    """Wan 2.1 with SVI-Talk: a person who speaks audio of any length."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("talk_loop"), 620)
    files = (WAN21_I2V, SVI_TALK, MULTITALK, WAV2VEC2, CLIP_VISION, TEXT_ENCODER, VAE)
    notes.note("Weight files", weight_files(*files), 400)
    links = wan21_models(graph, "SVI-Talk LoRA", SVI_TALK)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links |= {"vae": vae, "anchor": reference(middle, vae, 640, 480)}
    words = graph.column(460).group("3 - Prompt", PROMPTS)
    links |= prompt_texts(words, clip, TALK_PROMPT, NEGATIVE_ENGLISH, heights=(110, 170))
    links |= sampling(graph.column(460).group("4 - Sampling", SAMPLING), links["model"], 50, "Talk")
    talk = _speech(graph, links["layout"])
    links |= {"control": talk, "num_clips": talk["num_clips"]}
    generate(graph.column(520).group("6 - Video", VIDEO), links, "svi/talk", cfg=2.0)


def _speech(graph: GraphLayout, layout: Node) -> Node:
    """Add the audio, its encoder and SVI Talk."""
    group = graph.column(460).group("5 - Speech", REFERENCE)
    sound = group.add("LoadAudio", preview_height=90, audio=SPEECH)
    encoder = group.add("AudioEncoderLoader", models=downloads(WAV2VEC2), audio_encoder_name=WAV2VEC2)
    layers = group.add("ModelPatchLoader", models=downloads(MULTITALK), name=MULTITALK)
    parts = {"audio": sound, "audio_encoder": encoder, "model_patch": layers}
    return group.add("SVITalk", **parts, layout=layout, audio_cfg=5.0)
