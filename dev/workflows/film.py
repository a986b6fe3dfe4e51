"""The workflow of SVI-Film on Wan 2.1, also used for Film-transitions and Tom & Jerry."""

from dev.workflows.graph_layout import GraphLayout
from dev.workflows.texts import paragraphs
from dev.workflows.wan21 import wan21_loop, wan21_system
from dev.workflows.weight_files import SVI_FILM

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


FILM = wan21_system(
    "Film",
    SVI_FILM,
    paragraphs(FILM_STORY),
    "A long video through several scenes from one image, a prompt per clip: SVI-Film on Wan 2.1.",
    cfg=5.0,
)


def film_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Film: a story through several scenes, five motion frames, grey padding."""
    wan21_loop(graph, "Film", SVI_FILM, paragraphs(FILM_STORY), "film_loop", "svi/film")
