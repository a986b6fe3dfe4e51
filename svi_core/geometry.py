"""Sizes of Wan video: pixel frames, latent slots, and how clips overlap.

The shape legend of the whole project:

- ``B`` batch, ``C`` latent channels (16), ``F`` latent slots, ``h = H / 8``, ``w = W / 8``: a latent is ``[B, C, F, h, w]``.
- ``T`` pixel frames, ``T = 4 * (F - 1) + 1``: a clip's frames are ``[T, H, W, 3]`` in [0, 1], as in a ComfyUI IMAGE.

Slot 0 holds pixel frame 0; slot k >= 1 holds pixel frames 4k-3 .. 4k.
Source: docs/METHOD.md, 1.1 (the Wan 2.1 VAE: causal, 4 x 8 x 8).
"""

LATENT_CHANNELS = 16
SPATIAL_STRIDE = 8
TEMPORAL_STRIDE = 4
SIZE_MULTIPLE = 16  # VAE stride 8 times the transformer's 2 x 2 patches
FRAME_RATE = 16  # frames per second of Wan 2.1 / 2.2 14B training data
DANCE_FRAME_RATE = 25  # frames per second that the released script saves; a pose video's own rate wins
TALK_FRAME_RATE = 25  # frames per second of SVI-Talk and its audio features
TRAINED_NUM_FRAMES = 81  # SVI is trained on 81-frame clips only


def num_latent_slots(num_frames: int) -> int:
    """Return F, the latent slots of `num_frames` pixel frames.

    Raises:
        ValueError: `num_frames` is not 4n + 1.
    """
    if num_frames < 1 or (num_frames - 1) % TEMPORAL_STRIDE:
        nearest = max(1, round((num_frames - 1) / TEMPORAL_STRIDE) * TEMPORAL_STRIDE + 1)
        raise ValueError(
            f"num_frames is {num_frames}, but a Wan clip has 4n + 1 frames (1, 5, ... 81): use {nearest}, or 81 as trained."
        )
    return (num_frames - 1) // TEMPORAL_STRIDE + 1


def num_pixel_frames(num_slots: int) -> int:
    """Return T, the pixel frames that `num_slots` latent slots decode to."""
    assert num_slots >= 1, num_slots
    return (num_slots - 1) * TEMPORAL_STRIDE + 1


def num_motion_latents(num_motion_frames: int) -> int:
    """Return the latent slots of `num_motion_frames` pixel frames: 4, 8, 12 -> 1, 2, 3.

    Raises:
        ValueError: the count is not a positive multiple of 4.
    """
    if num_motion_frames < TEMPORAL_STRIDE or num_motion_frames % TEMPORAL_STRIDE:
        raise ValueError(
            f"num_motion_frames is {num_motion_frames}, but a motion latent holds 4 frames a slot: use 4, 8 or 12."
        )
    return num_motion_frames // TEMPORAL_STRIDE


def enclosing_size(width: int, height: int) -> tuple[int, int]:
    """Return the smallest size (width, height) that Wan can take and that holds a picture of `width` x `height` pixels."""
    return -(-width // SIZE_MULTIPLE) * SIZE_MULTIPLE, -(-height // SIZE_MULTIPLE) * SIZE_MULTIPLE


def require_frame_size(width: int, height: int, name: str = "image") -> None:
    """Refuse a frame size that Wan cannot take.

    Raises:
        ValueError: a side is not a positive multiple of 16 pixels.
    """
    for side, value in (("width", width), ("height", height)):
        if value < SIZE_MULTIPLE or value % SIZE_MULTIPLE:
            nearest = max(SIZE_MULTIPLE, round(value / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise ValueError(f"{name} {side} is {value} pixels, but Wan needs a multiple of 16: use {nearest}.")
