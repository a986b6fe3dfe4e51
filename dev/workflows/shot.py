"""Workflows of SVI-Shot on Wan 2.1."""

from dev.workflows.graph_layout import GraphLayout
from dev.workflows.parts import NOTES, PROMPTS, SAMPLING, VIDEO, encoders, generate, prompt_texts, reference, sampling
from dev.workflows.texts import NEGATIVE_ENGLISH, SHOT_STORY, note, paragraphs
from dev.workflows.wan21 import wan21_models, wan21_system
from dev.workflows.weight_files import CLIP_VISION, SVI_SHOT, TEXT_ENCODER, VAE, WAN21_I2V, weight_files

SHOT = wan21_system(
    "Shot",
    SVI_SHOT,
    paragraphs(SHOT_STORY),
    "A long video of one scene from one image, a prompt per clip: SVI-Shot on Wan 2.1.",
    cfg=5.0,
)


def shot_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Shot: one scene, the loop in one node."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("shot_loop"), 490)
    notes.note("Weight files", weight_files(WAN21_I2V, SVI_SHOT, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    links = wan21_models(graph, "SVI-Shot LoRA", SVI_SHOT)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links |= {"vae": vae, "anchor": reference(middle, vae, 832, 480)}
    links |= prompt_texts(graph.column(460).group("3 - Prompts", PROMPTS), clip, paragraphs(SHOT_STORY), NEGATIVE_ENGLISH)
    links |= sampling(graph.column(460).group("4 - Sampling", SAMPLING), links["model"], 50, "Shot")
    generate(graph.column(520).group("5 - Video", VIDEO), links, "svi/shot", num_clips=3, cfg=5.0)
