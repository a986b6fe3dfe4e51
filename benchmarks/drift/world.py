"""The study's world: stories of the demo's tiny world at a quarter of its clip length, so that thousands are affordable.

A clip has 21 frames (6 latent slots). Of the 81 frames of the demo's clip it shows the first 5 and the last 5, at rest, and
every sixth one between them. So clips that share 5 frames (2.0 Pro), and clips that share one, both join without a jump, and
what a clip shows follows from its first frame and its caption. By day, before one of three plain landscapes, a ball, a star or
a balloon moves left, right, up or down, or rests; camera and light stay. A small model can learn to predict this
well, and error recycling is meant for models that do.

Frames are [T, 3, H, W] float32 in [0, 1], T = 21, H = 64, W = 96.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from demo.world.scenes import (
    CLIP_FRAMES,
    FIELD,
    GROUND_KINDS,
    KINDS_BY_BACKGROUND,
    REST_FRAMES,
    ROWS,
    SEGMENT_FRAMES,
    STEPS,
    Action,
    State,
    Story,
    Track,
    advance,
    describe,
    fits,
    render_scenery,
    render_track,
    track_story,
)
from demo.world.shapes import PALETTE

NUM_FRAMES = 21
NUM_SLOTS = 6
HEIGHT, WIDTH = 64, 96
BACKGROUNDS, KINDS, SIDEWAYS = ("meadow", "sea", "desert"), ("ball", "star", "balloon"), ("left", "right")
REST_SHARE = 0.1  # of the clips
STRIDE = 6
SHOWN = (
    *range(REST_FRAMES),
    *range(REST_FRAMES, SEGMENT_FRAMES, STRIDE),
    *range(SEGMENT_FRAMES, CLIP_FRAMES),
)
"""Frame of the demo's clip that each frame of the study's clip shows."""


@dataclass(frozen=True)
class TrueClips:
    """The true frames of a story, clip by clip.

    Attributes:
        frames: [clips, 21, 3, 64, 96] in [0, 1]; of real films only as many clips as were filmed.
        x, y: centre of the object in pixels, [clips, 21]; None for real clips.
        captions: one for each clip.
        scenery: [3, 64, 96], the picture without the object; None for real clips.
    """

    frames: Tensor
    x: np.ndarray | None
    y: np.ndarray | None
    captions: tuple[str, ...]
    scenery: Tensor | None


def draw_story(seed: int, num_clips: int) -> Story:
    """Draw the story of this seed."""
    random = np.random.default_rng(seed)
    background = str(random.choice(BACKGROUNDS))
    kind = str(random.choice([kind for kind in KINDS if kind in KINDS_BY_BACKGROUND[background]]))
    colour = str(random.choice(list(PALETTE)))
    place = random.uniform(-1.0, 1.0, size=2)
    left, right, top, bottom = FIELD
    x = (left + right) / 2 + place[0] * (right - left) / 2
    y = ROWS[-1] if kind in GROUND_KINDS else (top + bottom) / 2 + place[1] * (bottom - top) / 2
    state = start = State(float(x), float(y), light=1.0, camera_offset=float(random.uniform(0.0, WIDTH)))
    actions = []
    for _ in range(num_clips):
        motions = [motion for motion in (SIDEWAYS if kind in GROUND_KINDS else STEPS) if fits(motion, state)]
        motion = str(random.choice(motions)) if motions and random.random() >= REST_SHARE else "stay"
        actions.append(Action(motion, camera="still", light="stay"))
        state = advance(state, actions[-1])
    captions = tuple(describe(background, kind, colour, action) for action in actions)
    return Story(seed, background, kind, colour, start, tuple(actions), captions)


def true_clips(story: Story) -> TrueClips:
    """Paint every clip of `story`."""
    track, num_clips = track_story(story), len(story.actions)
    frames = np.concatenate([SEGMENT_FRAMES * clip + np.array(SHOWN) for clip in range(num_clips)])
    shown = Track(*(values[frames] for values in (track.x, track.y, track.light, track.camera_offset, track.spin)))
    x, y = (values.reshape(num_clips, NUM_FRAMES) for values in (shown.x, shown.y))
    painted = render_track(story, shown).unflatten(0, (num_clips, NUM_FRAMES))
    return TrueClips(painted, x, y, story.captions, render_scenery(story, shown.cut(0, 1))[0])
