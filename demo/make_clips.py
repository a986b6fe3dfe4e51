"""Write clips of the tiny world with their captions, as a data set for the trainer: ``python -m demo.make_clips FOLDER``.

Each clip is one action: 81 frames of 96 x 64 pixels at 16 per second, its caption in a text file beside it. The same seed
gives the same clips. `training/configs/tiny.toml` trains on them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from dev.environment import SetupError, ensure_environment, execute_inside, say

if TYPE_CHECKING:
    from demo.world.scenes import Story

DEFAULT_CLIPS = 12
DEFAULT_SEED = 1_000_000  # far from the stories that the demo's models were trained on


def make_clips(folder: Path, num_clips: int, seed: int) -> None:
    """Write `num_clips` clips and captions into `folder`; the same seed gives the same files."""
    from demo.world.scenes import render_clip
    from svi_core.video.video_file import VideoCoding, to_uint8, write_video

    folder.mkdir(parents=True, exist_ok=True)
    for index, story in enumerate(islice(moving_stories(seed), num_clips)):
        path = folder / f"clip_{index:04d}.mp4"
        write_video(path, [to_uint8(render_clip(story, 0).movedim(1, -1))], VideoCoding(crf=12))
        path.with_suffix(".txt").write_text(story.captions[0] + "\n", encoding="utf-8")
    say(f"{num_clips} clips with captions in {folder}")


def moving_stories(seed: int) -> Iterator[Story]:
    """Yield stories of one action from `seed` on, without those in which the object stays still."""
    from demo.world.scenes import sample_story

    stories = (sample_story(number, 1) for number in count(seed))
    return (story for story in stories if story.actions[0].motion != "stay")


def main(arguments: list[str]) -> int:
    """Make the clips inside the environment; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.make_clips", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=DEFAULT_CLIPS, help=f"how many (default: {DEFAULT_CLIPS})")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    options = parser.parse_args(arguments)
    if options.clips < 1 or options.seed < 0:
        say(f"error: --clips {options.clips} --seed {options.seed}: give at least one clip and a seed from 0 on")
        return 2
    try:
        environment = ensure_environment()
    except SetupError as error:
        say(f"error: {error}")
        return 1
    if Path(sys.prefix) != environment.python.parent.parent:
        execute_inside(environment, ["-m", "demo.make_clips", *arguments])
    make_clips(options.folder, options.clips, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
