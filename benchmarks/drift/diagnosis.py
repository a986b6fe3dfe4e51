"""Does the recipe apply to a base? Compare the errors that its chains hand over with those that error recycling injects.

Measured on validation stories in the one-frame layout. Sizes are root mean squares; the latents' own is about 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.error_recycling import make_bank
from training.method.streams import stream

from .base import Example
from .codec import LinearCodec
from .data import VALIDATION_SEED, Chain, Source, StoryData
from .finetune import fill_bank, handed_over_errors
from .rollout import coded, latent_of_last_frame, make_scenes, roll_out

NUM_SCENES, NUM_DRAWS = 48, 400
BANK_BATCHES, BATCH_SIZE = 60, 16


@dataclass(frozen=True)
class Diagnosis:
    """The measures of a base.

    Attributes:
        codec_loss: of a true last frame, encoded and decoded, that becomes a first one.
        last_frame_error: of the last frame of one generated clip, as the next one gets it.
        bank_error: of the base's one-step errors on clean inputs, slots and noise levels at random.
        injected_error: of the image errors that such a bank would add to a first frame. During LoRA training the bank also
            holds errors on corrupted inputs, and grows.
        missing: share of the last frame's variation over scenes that its error removes, mean over channels that vary.
        gain: share of another scene's error, added to the first frame, that reaches the last one.
        common: share of the last frame's error (squared) that is the same in all scenes, see :func:`common_share`.
        own: correlation of the error that the base makes in one step from the true clip, in its last slot, with the one that
            its generated clip hands over.
    """

    codec_loss: float
    last_frame_error: float
    bank_error: float
    injected_error: float
    missing: float
    gain: float
    common: float
    own: float


def diagnose(
    model: nn.Module, codec: LinearCodec, source: Source, data: StoryData, recycling: ErrorRecyclingConfig, num_steps: int
) -> Diagnosis:
    """Measure a base; `data` are training stories, from which errors for the bank come."""
    chain, scenes = Chain.ONE_FRAME, make_scenes(source, VALIDATION_SEED, NUM_SCENES, 1)
    truth = codec.encode(torch.stack([own.frames[0, -1:] for own in scenes.truth]))[:, :, 0]
    shown = latent_of_last_frame(codec, coded(codec, scenes, 0))

    def last_slot(start_error: Tensor | float) -> Tensor:
        clip = next(roll_out(model, codec, chain, scenes, num_steps, 0, start_error))
        return latent_of_last_frame(codec, clip.frames)

    plain = last_slot(0.0)
    error = plain - truth
    added = error.roll(1, 0)
    arrived = last_slot(added) - plain
    varying = truth - truth.mean(0)
    variance = varying.square().mean((0, 2, 3))
    slopes = ((error * varying).mean((0, 2, 3)) / variance)[variance > 1e-4]  # motion is 0 at rest
    bank = make_bank(data.latents.shape[2:], recycling)
    fill_bank(model, codec, data, chain, recycling, bank, BANK_BATCHES, BATCH_SIZE, 0)
    random, cells = stream(0, 0, 0, "diagnosis"), range(*recycling.image_error_range)
    first_clips = codec.encode(torch.stack([own.frames[0] for own in scenes.truth]))
    true = StoryData(first_clips[:, None], scenes.texts, torch.ones(0))
    following = [Example(story, 1, False, clip) for story, clip in enumerate(first_clips)]
    levels = [bank.grid.sigmas[cell] for cell in cells]
    one_step = handed_over_errors(model, codec, true, chain, following, levels, stream(0, 0, 0, "one step"))
    one_step = torch.stack(one_step)[:, :, 0]
    any_error, low_noise = (
        torch.stack([e for _ in range(NUM_DRAWS) if (e := bank.sample_image_error(1, random, grids)) is not None])
        for grids in (None, cells)
    )  # None comes from an empty cell
    injected = torch.stack([codec.first_slot_error(own) for own in low_noise])
    gain = float((arrived * added).sum() / added.square().sum())
    return Diagnosis(
        codec_loss=_rms(shown - truth),
        last_frame_error=_rms(error),
        bank_error=_rms(any_error),
        injected_error=_rms(injected),
        missing=float(-slopes.mean()),
        gain=gain,
        common=common_share(error),
        own=float((one_step * error).sum() / (one_step.norm() * error.norm())),
    )


def common_share(errors: Tensor) -> float:
    """Return the share of the squared `errors` [N, ...] that all N have in common: 0 for unrelated ones, 1 for equal ones.

    The square of their mean also holds 1 / N of the unrelated part; this is subtracted, so the result can be below 0.
    """
    mean_square, square_mean, num = float(errors.square().mean()), float(errors.mean(0).square().mean()), len(errors)
    return (num * square_mean - mean_square) / ((num - 1) * mean_square)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
