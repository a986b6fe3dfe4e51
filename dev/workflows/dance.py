"""The workflow of SVI-Dance on Wan 2.1."""

from dev.workflows.graph_layout import GraphLayout
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
from dev.workflows.wan21 import wan21_models
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
    column = graph.column(460)
    links |= sampling(column.group("5 - Sampling", SAMPLING), links["model"], 50, "Dance")
    settings = {"lora": SVI_DANCE, "when_poses_end": "stop", "pose_in_negative": True}
    dance = column.group("6 - Poses", REFERENCE).add("SVIDance", poses=poses, layout=links["layout"], **settings)
    links |= {"control": dance, "num_clips": dance["num_clips"]}
    generate(graph.column(520).group("7 - Video", VIDEO), links, "svi/dance", cfg=2.0)
