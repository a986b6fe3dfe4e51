"""The workflow of SVI-Film on Wan 2.1, also used for Film-transitions and Tom & Jerry."""

from dev.workflows.five_nodes import System
from dev.workflows.graph_layout import GraphLayout
from dev.workflows.texts import NEGATIVE_ENGLISH, paragraphs
from dev.workflows.wan21 import steps_of, wan21_loop, wan21_models
from dev.workflows.weight_files import CLIP_VISION, SVI_FILM, TEXT_ENCODER, VAE, WAN21_I2V

FILM_STORY = (
    "A young woman in a pink dress stands on a green hill under a blue sky and looks at the valley below. The wind moves her "
    "blonde hair. The camera slowly moves closer.",
    "The young woman in the pink dress turns around and walks down the hill on a narrow path between tall grasses. The camera "
    "follows from behind.",
    "The young woman in the pink dress reaches a small wooden bridge over a clear stream, walks onto it and stops halfway. "
    "The camera moves alongside.",
    "The young woman in the pink dress leans on the railing of the bridge and looks down into the water. The camera "
    "stays still.",
)


FILM = System(
    name="SVI Film (Wan 2.1)",
    description="A long video through several scenes from one image, a prompt per clip: SVI-Film on Wan 2.1.",
    models=lambda graph: wan21_models(graph, "SVI-Film LoRA", SVI_FILM),
    sampling=steps_of("Film"),
    text=paragraphs(FILM_STORY),
    negative=NEGATIVE_ENGLISH,
    prefix="svi/film",
    note="film",
    files=(WAN21_I2V, SVI_FILM, CLIP_VISION, TEXT_ENCODER, VAE),
    settings={"cfg": 5.0},
)


def film_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Film: a story through several scenes, five motion frames, grey padding."""
    wan21_loop(graph, "Film", SVI_FILM, paragraphs(FILM_STORY), "film_loop", "svi/film")
