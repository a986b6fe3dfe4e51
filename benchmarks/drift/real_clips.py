"""The study's second data set: windows of real clips, which are only a few seconds long.

A window is a part of the picture over the whole clip, mirrored or not. Training windows lie in the left three fifths of the
picture, those of validation and of the scenes in the right two fifths, so that no pixel of a scene was ever trained on; the
clips are the same, since there are few.

Frames are [T, 3, H, W] float32 in [0, 1], T = 21, H = 64, W = 96.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.world.scenes import HELD_OUT_SEED
from dev.environment import REPOSITORY
from svi_core.video.video_file import read_frames
from training.data.sources import find_clips

from ..drift import StudyError
from .world import HEIGHT, NUM_FRAMES, WIDTH, TrueClips

FOLDER_VARIABLE = "SVI_DRIFT_CLIPS"
LEARNT_SHARE = 0.6  # of the picture's width
BLACK = 0.1  # share of a film's median brightness below which its first frames count as black
LEAST_SIZE = 0.9  # of a window, relative to the largest in the held-out part of the picture


def clips_folder() -> Path:
    """Return the folder of the clips: SVI_DRIFT_CLIPS, else ../shared/data/train."""
    return Path(os.environ.get(FOLDER_VARIABLE) or REPOSITORY.parent / "shared" / "data" / "train")


def clip_names() -> list[str]:
    """Return name and size of each clip with a caption, the source of a study's data.

    Raises:
        StudyError: there are none.
    """
    folder = clips_folder()
    sources = find_clips(folder)[0] if folder.is_dir() else []
    if not sources:
        raise _no_clips(folder)
    return [f"{source.path.relative_to(folder).as_posix()}, {source.path.stat().st_size} bytes" for source in sources]


def true_window(seed: int, num_clips: int) -> TrueClips:
    """Draw the window of this seed; from HELD_OUT_SEED it is a held-out one.

    Each clip begins with the last frame of the one before. There are as many as the shortest film has, at most `num_clips`;
    all `num_clips` have captions.

    Args:
        seed: of clip, place, size and mirroring.
        num_clips: of the story.

    Raises:
        StudyError: no clips, or none as long as a clip of the study.
    """
    random = np.random.default_rng(seed)
    films = _films(clips_folder())
    caption, frames = films[int(random.integers(len(films)))]
    height, width = frames.shape[-2:]
    border = int(LEARNT_SHARE * width)
    largest = min(height, (width - border) * HEIGHT / WIDTH)
    size = random.uniform(LEAST_SIZE, 1.0) * largest
    rows, columns = int(size), int(size * WIDTH / HEIGHT)
    left, right = (border, width) if seed >= HELD_OUT_SEED else (0, border)
    y, x = int(random.uniform(0, height - rows)), int(random.uniform(left, right - columns))
    seen = frames[..., y : y + rows, x : x + columns].float() / 255
    small = F.interpolate(seen, (HEIGHT, WIDTH), mode="bilinear", antialias=True, align_corners=False)
    small = small.flip(-1) if random.random() < 0.5 else small
    starts = range(0, len(small) - NUM_FRAMES + 1, NUM_FRAMES - 1)[:num_clips]
    shown = torch.stack([small[start : start + NUM_FRAMES] for start in starts])
    return TrueClips(shown, None, None, (caption,) * num_clips, scenery=None)


@cache
def _films(folder: Path) -> list[tuple[str, Tensor]]:
    """Return captions and frames [T, 3, h, w] uint8 of all films at half size and equal length, without black leads."""
    sources = find_clips(folder)[0] if folder.is_dir() else []
    films = []
    for source in sources:
        frames = (torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() for frame in read_frames(source.path))
        half = torch.cat([F.avg_pool2d(frame, 2).round().byte() for frame in frames])
        brightness = torch.stack([own.float().mean() for own in half])
        seen = half[int((brightness >= BLACK * brightness.median()).nonzero()[0]) :]
        if len(seen) >= NUM_FRAMES:
            films.append((source.caption, seen))
    if not films:
        raise _no_clips(folder)
    shortest = min(len(frames) for _, frames in films)
    return [(caption, frames[:shortest]) for caption, frames in films]


def _no_clips(folder: Path) -> StudyError:
    return StudyError(
        f"{folder} holds no captioned clip of {NUM_FRAMES} frames or more: name a folder of clips in {FOLDER_VARIABLE}."
    )
