"""Does the recipe apply to a base of the study? The trainer's own diagnosis, on the study's worlds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from svi_core.flow.flow_matching import training_sigmas
from svi_core.look.fade import look_at
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.error_recycling import make_bank
from training.method import diagnosis
from training.method.streams import stream
from training.method.verdict import Measures

from .codec import Codec
from .data import Chain, condition
from .losses import NONE, Losses
from .model import predict
from .rollout import roll_out, sample
from .world import NUM_SLOTS, PARTS, Scenes, World, draw_scenes, num_frames

SEED, NUM_SCENES, NUM_CLIPS, PER_LEVEL = 99, 64, 10, 2


def measure_base(
    model: nn.Module, codec: Codec, world: World, losses: Losses, recycling: ErrorRecyclingConfig, num_clips: int
) -> Measures:
    """Chain a base on held-out scenes in its own layout, and measure what it loses and hands over."""
    chain = Chain.FILM
    scenes = draw_scenes(world, NUM_SCENES, num_frames(num_clips, chain.overlap), stream(SEED, 0, 0, "diagnosis"))
    latents = codec.encode(scenes.clip(0, chain.overlap))
    truth = codec.decode(latents, lossy=losses.vae).clamp(0, 1)
    clips = [frames for frames, _ in roll_out(model, codec, chain, scenes, losses, num_clips, SEED)]
    errors = _known(codec, losses, clips[0]) - _known(codec, losses, truth)
    bank = make_bank(latents.shape[1:], recycling)
    diagnosis.fill_bank(
        bank,
        _predictor(model, codec, scenes, latents),
        latents,
        bank.grid.sigmas,
        recycling,
        stream(SEED, 0, 0, "bank"),
        PER_LEVEL,
    )
    draws = stream(SEED, 0, 0, "draws")
    levels = training_sigmas()[torch.randint(1000, (diagnosis.NUM_DRAWS,), generator=draws)].tolist()
    return diagnosis.take_measures(
        chain=[look_at(frames) for frames in clips],
        truth=look_at(truth),
        gains=gain(model, codec, scenes, errors),
        errors=errors,
        bank=bank,
        injected=diagnosis.injected_rms(bank, levels, recycling, chain.error_slots(later=True), draws),
        signal=diagnosis.rms(latents),
        has_anchor=False,
    )


def random_gain(model: nn.Module, codec: Codec, world: World) -> float:
    """Return the share of a small random error in the first frame that arrives in the last one, mean over held-out scenes."""
    scenes = draw_scenes(world, NUM_SCENES, NUM_SLOTS, stream(SEED, 0, 0, "diagnosis"))
    shape = codec.encode(scenes.frames[:, :1]).shape
    return float(gain(model, codec, scenes, torch.randn(shape, generator=stream(SEED, 0, 0, "random error"))).mean())


def gain(model: nn.Module, codec: Codec, scenes: Scenes, errors: Tensor) -> Tensor:
    """Return, for each scene, the share [N] of `errors` [N, 16, 1, h, w] in the first frame that arrives in the last one."""
    known = codec.encode(scenes.frames[:, :1])
    noise = torch.randn(*known.shape[:2], NUM_SLOTS, *known.shape[3:], generator=stream(SEED, 0, 0, "gain"))

    def last(slot: Tensor) -> Tensor:
        y_latent = condition(codec, Chain.FILM, slot[:, :, 0], None, slot[:, :, 0])
        return sample(model, noise, y_latent, scenes.captions, NONE)[:, :, -1:]

    return diagnosis.gain(last, known, errors, diagnosis.rms(known), num_bands=len(PARTS))


def _known(codec: Codec, losses: Losses, frames: Tensor) -> Tensor:
    """Return the slot [N, 16, 1, h, w] that clips `frames` hand over."""
    return codec.encode(losses.hand_over(frames[:, -1])[:, None])


def _predictor(model: nn.Module, codec: Codec, scenes: Scenes, latents: Tensor) -> diagnosis.Predict:
    y_latents = condition(codec, Chain.FILM, latents[:, :, 0], None, latents[:, :, 0])

    def velocity(numbers: Sequence[int], noisy: Tensor, sigma: Tensor) -> Tensor:
        chosen = list(numbers)
        return predict(model, noisy, y_latents[chosen], sigma, scenes.captions[chosen])

    return velocity
