"""The tiny world: short captioned scenes that a small video model can learn to predict.

A story is one scene (a background, one object, its colour) and a list of actions, one for each clip. The timeline is
cut into segments of 76 frames; clip k is the window of 81 frames that starts at frame 76 k. This is the timeline of
SVI 2.0 Pro: each clip starts on frame 76 of the one before, and the last 4 frames of a clip are the first new ones of
the next. Everything rests during those shared frames, so what a clip shows follows from its first frame and caption.

Positions are in the world's units (`demo.world.picture`), x to the right and y down. Frames are `[T, 3, H, W]` float32
in [0, 1]; T is the number of frames, H and W are the picture's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from demo.world.picture import SCALE, WIDTH
from demo.world.scenery import paint_scenery
from demo.world.shapes import OBJECT_REACH, PALETTE, paint_object

CLIP_FRAMES = 81
SEGMENT_FRAMES = 76
REST_FRAMES = 4

HELD_OUT_SEED = 1_000_000
"""Stories with this seed or a larger one are never trained on."""

COLUMNS = (20.0, 48.0, 76.0)
ROWS = (17.0, 32.0, 47.0)
STEPS = {"left": (-28.0, 0.0), "right": (28.0, 0.0), "up": (0.0, -15.0), "down": (0.0, 15.0)}
"""Units that a motion moves the object by. Everything is relative: nothing depends on where in the picture it starts."""
FIELD = (13.0, 83.0, 12.0, 52.0)
"""Left, right, top and bottom limits for the centre of an object at rest."""
HOP_HEIGHT = 20.0
HOPS_PER_CLIP = 2
LOOP_RADIUS = 10.0
PAN_UNITS = 32.0
BOB_UNITS = 1.5
SPIN_RADIUS = 9.0
NIGHT_TINT = (0.26, 0.32, 0.58)
OBJECT_NIGHT_LIGHT = 0.85

VERBS = {"ball": "rolls", "car": "drives", "boat": "sails", "star": "glides", "balloon": "floats"}
GROUND_KINDS = ("ball", "car", "boat")
GROUND_MOTIONS = ("left", "right", "hop", "stay")
AIR_MOTIONS = ("left", "right", "up", "down", "loop", "stay")
BOBBING_KINDS = ("boat", "balloon")
KINDS_BY_BACKGROUND = {
    "meadow": ("ball", "car", "star", "balloon"),
    "sea": ("boat", "star", "balloon"),
    "desert": ("ball", "car", "star", "balloon"),
    "snow": ("ball", "car", "star", "balloon"),
    "city": ("ball", "car", "star", "balloon"),
}
BACKGROUND_PHRASES = {
    "meadow": "on a green meadow",
    "sea": "on the blue sea",
    "desert": "in the sandy desert",
    "snow": "in the snowy mountains",
    "city": "in the big city",
}
CAMERA_PHRASES = {"still": "the camera stays still", "left": "the camera pans left", "right": "the camera pans right"}
LIGHT_PHRASES = {"stay": "the light stays", "night": "night falls", "day": "day breaks"}


@dataclass(frozen=True)
class Action:
    """What happens in one clip: an entry of the motion, camera and light vocabularies."""

    motion: str
    camera: str
    light: str


@dataclass(frozen=True)
class State:
    """The scene at rest, between two clips. `light` is 1 by day and 0 at night; `camera_offset` and `spin` accumulate."""

    x: float
    y: float
    light: float
    camera_offset: float
    spin: float = 0.0


@dataclass(frozen=True)
class Story:
    """One scene, its actions in order and one caption for each."""

    seed: int
    background: str
    kind: str
    colour: str
    start: State
    actions: tuple[Action, ...]
    captions: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the whole story: 76 a clip, and the 5 that close the last window."""
        return SEGMENT_FRAMES * len(self.actions) + CLIP_FRAMES - SEGMENT_FRAMES


@dataclass(frozen=True)
class Track:
    """Ground truth for each frame: every field is `[T]` float64, as in `State`."""

    x: np.ndarray
    y: np.ndarray
    light: np.ndarray
    camera_offset: np.ndarray
    spin: np.ndarray

    def cut(self, start: int, stop: int) -> Track:
        """Return frames start..stop-1."""
        return Track(*(values[start:stop] for values in (self.x, self.y, self.light, self.camera_offset, self.spin)))


def sample_story(seed: int, num_clips: int) -> Story:
    """Draw the story of this seed; the same seed with more clips continues the same story."""
    rng = np.random.default_rng(seed)
    background = str(rng.choice(list(KINDS_BY_BACKGROUND)))
    kind = str(rng.choice(KINDS_BY_BACKGROUND[background]))
    colour = str(rng.choice(list(PALETTE)))
    start = _sample_start(rng, kind)
    state, actions, captions = start, [], []
    for _ in range(num_clips):
        action = _sample_action(rng, kind, state)
        actions.append(action)
        captions.append(describe(background, kind, colour, action, rng))
        state = advance(state, action)
    return Story(seed, background, kind, colour, start, tuple(actions), tuple(captions))


def _sample_start(rng: np.random.Generator, kind: str) -> State:
    """Draw where the object stands, whether it is day, and where the camera looks."""
    jitter = rng.uniform(-4.0, 4.0, size=2)
    x = rng.choice(COLUMNS) + jitter[0]
    y = ROWS[-1] if kind in GROUND_KINDS else rng.choice(ROWS) + jitter[1]
    light = 1.0 if rng.random() < 0.7 else 0.0
    return State(float(x), float(y), light, float(rng.uniform(0.0, WIDTH)))


def _sample_action(rng: np.random.Generator, kind: str, state: State) -> Action:
    """Draw an action that keeps the object in the picture."""
    motions = [motion for motion in _vocabulary(kind) if fits(motion, state)]
    weights = np.array([0.35 if motion == "stay" else 1.0 for motion in motions])
    motion = str(rng.choice(motions, p=weights / weights.sum()))
    camera = str(rng.choice(list(CAMERA_PHRASES), p=(0.7, 0.15, 0.15)))
    light_change = "night" if state.light > 0.5 else "day"
    light = light_change if rng.random() < 0.25 else "stay"
    return Action(motion, camera, light)


def _vocabulary(kind: str) -> tuple[str, ...]:
    return GROUND_MOTIONS if kind in GROUND_KINDS else AIR_MOTIONS


def fits(motion: str, state: State) -> bool:
    """Whether the object stays in the picture after this action."""
    left, right, top, bottom = FIELD
    if motion == "loop":
        return state.y + 2.0 * LOOP_RADIUS <= bottom
    step_x, step_y = STEPS.get(motion, (0.0, 0.0))
    return left <= state.x + step_x <= right and top <= state.y + step_y <= bottom


def advance(state: State, action: Action) -> State:
    """Return the state at rest after the action."""
    step_x, step_y = STEPS.get(action.motion, (0.0, 0.0))
    pan = {"still": 0.0, "left": -PAN_UNITS, "right": PAN_UNITS}[action.camera]
    light = {"stay": state.light, "night": 0.0, "day": 1.0}[action.light]
    spin = state.spin + step_x / SPIN_RADIUS
    return State(state.x + step_x, state.y + step_y, light, state.camera_offset + pan, spin)


def describe(background: str, kind: str, colour: str, action: Action, rng: np.random.Generator | None = None) -> str:
    """Write the caption; with `rng`, half of the clauses that say "nothing changes" are left out."""
    object_name = f"{colour} {kind}"
    clauses = [f"the {object_name} {BACKGROUND_PHRASES[background]} {motion_phrase(kind, action.motion)}"]
    for phrase, is_default in (
        (CAMERA_PHRASES[action.camera], action.camera == "still"),
        (LIGHT_PHRASES[action.light], action.light == "stay"),
    ):
        if not is_default or rng is None or rng.random() < 0.5:
            clauses.append(phrase)
    return ". ".join(clauses) + "."


def motion_phrase(kind: str, motion: str) -> str:
    """Return the motion in words, with the object's own verb."""
    return {
        "left": f"{VERBS[kind]} to the left",
        "right": f"{VERBS[kind]} to the right",
        "up": "rises up",
        "down": "sinks down",
        "loop": "makes a round loop",
        "hop": "hops up and down",
        "stay": "stays still",
    }[motion]


def track_story(story: Story) -> Track:
    """Return the ground truth of every frame of the story."""
    state, pieces = story.start, []
    for index, action in enumerate(story.actions):
        is_last = index == len(story.actions) - 1
        pieces.append(_track_clip(story.kind, state, action).cut(0, CLIP_FRAMES if is_last else SEGMENT_FRAMES))
        state = advance(state, action)
    fields = zip(*((p.x, p.y, p.light, p.camera_offset, p.spin) for p in pieces), strict=True)
    return Track(*(np.concatenate(values) for values in fields))


def _track_clip(kind: str, state: State, action: Action) -> Track:
    """Return the 81 frames of one action; the last 5 and the first 5 rest."""
    frame = np.arange(CLIP_FRAMES, dtype=np.float64)
    linear = np.clip((frame - REST_FRAMES) / (SEGMENT_FRAMES - REST_FRAMES), 0.0, 1.0)
    progress = linear * linear * (3.0 - 2.0 * linear)
    after = advance(state, action)
    x = state.x + progress * (after.x - state.x)
    y = state.y + progress * (after.y - state.y)
    if action.motion == "loop":
        x = x + LOOP_RADIUS * np.sin(2.0 * pi * progress)
        y = y + LOOP_RADIUS * (1.0 - np.cos(2.0 * pi * progress))
    if action.motion == "hop":
        phase = (linear * HOPS_PER_CLIP) % 1.0
        y = y - 4.0 * HOP_HEIGHT * phase * (1.0 - phase)
    elif kind in BOBBING_KINDS:
        y = y + BOB_UNITS * np.sin(4.0 * pi * linear)
    return Track(
        x,
        y,
        state.light + progress * (after.light - state.light),
        state.camera_offset + progress * (after.camera_offset - state.camera_offset),
        state.spin + progress * (after.spin - state.spin),
    )


def render_story(story: Story, start: int = 0, stop: int | None = None) -> Tensor:
    """Paint frames start..stop-1 of the story as `[T, 3, H, W]` in [0, 1]."""
    track = track_story(story).cut(start, story.num_frames if stop is None else stop)
    return render_track(story, track)


def render_clip(story: Story, index: int) -> Tensor:
    """Paint the window of 81 frames that belongs to caption `index`."""
    start = SEGMENT_FRAMES * index
    return render_story(story, start, start + CLIP_FRAMES)


def render_track(story: Story, track: Track) -> Tensor:
    """Paint one frame for each entry of the track."""
    frames = render_scenery(story, track)
    light, tint = _light(track)
    x, y, spin = (torch.from_numpy(values).float() for values in (track.x, track.y, track.spin))
    ground = ROWS[-1] + OBJECT_REACH[story.kind] if story.kind in GROUND_KINDS else None
    object_light = light + OBJECT_NIGHT_LIGHT * (1.0 - light) * tint / tint.max()
    paint_object(frames, story.kind, story.colour, x, y, spin, object_light, ground)
    return frames.clamp_(0.0, 1.0)


def render_scenery(story: Story, track: Track) -> Tensor:
    """Paint the same without the object: the lit background, moved by the camera, `[T, 3, H, W]`."""
    scenery, (light, tint) = paint_scenery(story.background, story.seed), _light(track)
    offset = torch.from_numpy(track.camera_offset).float()
    day, glow = scenery.day[None], scenery.glow[None]
    if bool((offset == offset[0]).all()):
        day, glow = (_roll(image, offset[:1]) for image in (day, glow))
    else:
        day, glow = (_roll(image, offset) for image in (day, glow))
    return day * (tint + (1.0 - tint) * light) + glow * (1.0 - light)


def _light(track: Track) -> tuple[Tensor, Tensor]:
    """Return how much of each frame is day, `[T, 1, 1, 1]`, and the colour of night, `[1, 3, 1, 1]`."""
    return torch.from_numpy(track.light).float().view(-1, 1, 1, 1), torch.tensor(NIGHT_TINT).view(1, 3, 1, 1)


def _roll(image: Tensor, offset: Tensor) -> Tensor:
    """Shift `[1, 3, H, W]` left by `offset` `[T]` units, exactly, through the Fourier series of its periodic rows."""
    spectrum = torch.fft.rfft(image, dim=-1)
    frequency = torch.arange(spectrum.shape[-1]) / image.shape[-1]
    phase = torch.polar(torch.ones(()), 2.0 * pi * frequency[None, :] * SCALE * offset[:, None])
    return torch.fft.irfft(spectrum * phase[:, None, None, :], n=image.shape[-1], dim=-1)
