"""The workflow of SVI-Talk on Wan 2.1."""

from typing import Any

from dev.workflows.graph_layout import GraphLayout
from dev.workflows.graph_nodes import Socket
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
from dev.workflows.wan21 import wan21_models, wan21_system
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
    speech = graph.column(460).group("5 - Speech", REFERENCE)
    sound = speech.add("LoadAudio", preview_height=90, audio=SPEECH)
    links |= _talk(speech, Socket(sound, 0), links)
    generate(graph.column(520).group("6 - Video", VIDEO), links, "svi/talk", cfg=2.0)


def _talk(group: Any, sound: Socket, links: dict[str, Any]) -> dict[str, Any]:
    """Add the encoder of a sound and SVI Talk; return the links of SVI Generate that follow it."""
    encoder = group.add("AudioEncoderLoader", models=downloads(WAV2VEC2), audio_encoder_name=WAV2VEC2)
    layers = group.add("ModelPatchLoader", models=downloads(MULTITALK), name=MULTITALK)
    parts = {"audio": sound, "audio_encoder": encoder, "model_patch": layers}
    talk = group.add("SVITalk", **parts, layout=links["layout"], audio_cfg=5.0)
    return {"control": talk, "num_clips": talk["num_clips"]}


TALK = wan21_system(
    "Talk",
    SVI_TALK,
    TALK_PROMPT,
    "A person in an image speaks a sound file of any length: SVI-Talk on Wan 2.1.",
    cfg=2.0,
    more_files=(MULTITALK, WAV2VEC2),
    size=(640, 480),
    condition=lambda graph, sound, links: _talk(graph.column(460).group("Speech", REFERENCE), sound, links),
    source=("audio", "AUDIO", "LoadAudio", {"audio": SPEECH, "preview_height": 90}),
    aliases=("talking head", "lip sync", "long video", "stable video infinity", "svi"),
)
