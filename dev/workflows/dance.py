"""The workflow of SVI-Dance on Wan 2.1."""

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
from dev.workflows.texts import DANCE_PROMPT, NEGATIVE_ENGLISH, note
from dev.workflows.wan21 import wan21_models, wan21_system
from dev.workflows.weight_files import CLIP_VISION, SVI_DANCE, TEXT_ENCODER, VAE, WAN21_I2V, weight_files

POSE_VIDEO = "pose.mp4"


def dance_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Dance: a person who follows a pose video."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("dance_loop"), 620)
    notes.note("Weight files", weight_files(WAN21_I2V, SVI_DANCE, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    links = wan21_models(graph, "SVI-Dance LoRA", SVI_DANCE)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links |= {"vae": vae, "anchor": reference(middle, vae, 480, 832)}
    poses = graph.column(520).group("3 - Pose video", REFERENCE).add("LoadVideo", preview_height=840, file=POSE_VIDEO)
    words = graph.column(460).group("4 - Prompt", PROMPTS)
    links |= prompt_texts(words, clip, DANCE_PROMPT, NEGATIVE_ENGLISH, heights=(110, 170))
    links |= sampling(graph.column(460).group("5 - Sampling", SAMPLING), links["model"], 50, "Dance")
    links |= _poses(graph, Socket(poses, 0), links)
    generate(graph.column(520).group("6 - Video", VIDEO), links, "svi/dance", cfg=2.0)


def _poses(graph: GraphLayout, poses: Socket, links: dict[str, Any]) -> dict[str, Any]:
    """Add SVI Dance to the last column; return the links of SVI Generate that follow it."""
    settings = {"lora": SVI_DANCE, "when_poses_end": "stop", "pose_in_negative": True}
    dance = graph.columns[-1].group("Poses", REFERENCE).add("SVIDance", poses=poses, layout=links["layout"], **settings)
    return {"control": dance, "num_clips": dance["num_clips"]}


DANCE = wan21_system(
    "Dance",
    SVI_DANCE,
    DANCE_PROMPT,
    "A person in an image dances to a pose video of any length: SVI-Dance on Wan 2.1.",
    cfg=2.0,
    size=(480, 832),
    condition=_poses,
    source=("poses", "VIDEO", "LoadVideo", {"file": POSE_VIDEO, "preview_height": 600}),
    aliases=("pose video", "dwpose", "dancing", "long video", "stable video infinity", "svi"),
)
