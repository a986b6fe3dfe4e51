"""Write another seed for one clip into a schedule's text, and leave the rest of the text as it is."""

import secrets

from .edits import edited, set_option
from .prompt_lists import PromptSplit

_NEW_SEEDS = 10**9  # new seeds stay short enough to read and to type


def new_seed() -> int:
    """Return a random seed for a clip that is made again."""
    return secrets.randbelow(_NEW_SEEDS)


def with_seed(text: str, clip_index: int, seed: int, split: PromptSplit = PromptSplit.PARAGRAPHS) -> str:
    """Return `text` with the seed of clip `clip_index` (0-based) set to `seed`; all other clips stay as they are.

    Raises:
        ScheduleError: a mistake in the text.
        ValueError: a seed out of range, a text of plain prompts, which takes no options, or a clip that no run reaches.
    """
    return edited(text, split, set_option(clip_index, "seed", str(seed)), clip_index).text
