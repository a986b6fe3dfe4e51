"""The study's second set of data: windows of real clips, a few seconds of which were filmed and no more.

A window is a part of the picture, seen through the whole clip, mirrored or not. Training windows lie in the left three fifths
of the picture, those of validation and of the scenes in the right two fifths, so that no pixel of a scene was ever learnt
from; the clips themselves are the same, since there are few.

Frames are [T, 3, H, W] float32 in [0, 1], T = 21, H = 64, W = 96.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.environment import REPOSITORY
from demo.world import HELD_OUT_SEED
from svi_core.video_file import read_frames
from training.data_sources import find_clips

from .world import HEIGHT, NUM_FRAMES, WIDTH, TrueClips

FOLDER_VARIABLE = "SVI_DRIFT_CLIPS"
LEARNT_SHARE = 0.6  # of the picture's width
LEAST_HEIGHT, MOST_HEIGHT = 0.41, 0.44  # of a window, in heights of the picture: two fifths of a 16:9 picture hold it


def clips_folder() -> Path:
    """Return where the clips lie: what SVI_DRIFT_CLIPS says, else ../shared/data/train."""
    return Path(os.environ.get(FOLDER_VARIABLE) or REPOSITORY.parent / "shared" / "data" / "train")


def true_window(seed: int, num_clips: int) -> TrueClips:
    """Draw the window of this seed; from HELD_OUT_SEED on it is a held-out one.

    Each clip begins with the last frame of the one before. As many as were filmed are shown, `num_clips` at most; captions go
    on for all of them.

    Args:
        seed: decides about clip, place, size and mirroring.
        num_clips: of the story.

    Raises:
        ValueError: no clips, or none as long as a clip of the study.
    """
    random = np.random.default_rng(seed)
    films = _films(clips_folder())
    caption, frames = films[int(random.integers(len(films)))]
    height, width = frames.shape[-2:]
    size = random.uniform(LEAST_HEIGHT, MOST_HEIGHT) * height
    rows, columns = int(size), int(size * WIDTH / HEIGHT)
    border = int(LEARNT_SHARE * width)
    left, right = (border, width) if seed >= HELD_OUT_SEED else (0, border)
    y, x = int(random.uniform(0, height - rows)), int(random.uniform(left, right - columns))
    seen = frames[..., y : y + rows, x : x + columns].float() / 255
    small = F.interpolate(seen, (HEIGHT, WIDTH), mode="bilinear", antialias=True, align_corners=False)
    small = small.flip(-1) if random.random() < 0.5 else small
    starts = range(0, len(small) - NUM_FRAMES + 1, NUM_FRAMES - 1)[:num_clips]
    shown = torch.stack([small[start : start + NUM_FRAMES] for start in starts])
    return TrueClips(shown, None, None, (caption,) * num_clips)


@cache
def _films(folder: Path) -> list[tuple[str, Tensor]]:
    """Return captions and frames [T, 3, h, w] uint8 of all clips, at half their size."""
    sources = find_clips(folder)[0] if folder.is_dir() else []
    films = []
    for source in sources:
        frames = torch.from_numpy(np.stack(list(read_frames(source.path)))).permute(0, 3, 1, 2)
        half = [F.avg_pool2d(own.float(), 2).round().byte() for own in frames.split(16)]
        if len(frames) >= NUM_FRAMES:
            films.append((source.caption, torch.cat(half)))
    if not films:
        raise ValueError(
            f"{folder} holds no captioned clip of {NUM_FRAMES} frames or more: name a folder of clips in {FOLDER_VARIABLE}."
        )
    return films
