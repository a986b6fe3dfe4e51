"""Train the tiny Wan video models on the tiny world's latents.

    python -m demo.models.train_dit --encode --shards 40        # encode the stories (once)
    python -m demo.models.train_dit --minutes 50                # the trunk: all noise levels
    python -m demo.models.train_dit --expert high --minutes 8   # Wan 2.2's two experts, from the trunk
    python -m demo.models.train_dit --expert low --minutes 8
    python -m demo.models.train_dit --export

Flow matching as in SVI: sigma = 5 s / (1 + 4 s) with s uniform over 1000 steps, the model predicts noise - latent. A
sample is conditioned in one of the layouts that SVI and Wan use, so that the same weights serve all of them. Muon updates
the matrices of the blocks, AdamW the rest.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.models import latents as stored
from demo.models.comfy_import import import_comfy
from demo.models.data_parallel import average, launch
from demo.models.latents import NEGATIVE_PROMPTS, CaptionReader, StoryLatents, pad_texts
from demo.models.tiny_models import (
    HIGH_NOISE_FILE,
    LOW_NOISE_FILE,
    TRUNK_FILE,
    build_trunk,
    save_half,
    trunk_metadata,
)
from demo.models.training_run import MovingAverage, TrainingRun, learning_rate
from demo.world.scenes import HELD_OUT_SEED

SEED = 3
SHIFT = 5.0
NUM_TIMESTEPS = 1000
BOUNDARY_ID = 358
"""The first of the 1000 shift-5 timesteps below sigma 0.9, where Wan 2.2 hands over to its low-noise expert."""
TIMESTEP_RANGES = {"trunk": (0, NUM_TIMESTEPS), "high": (0, BOUNDARY_ID), "low": (BOUNDARY_ID, NUM_TIMESTEPS)}
FILES = {"trunk": TRUNK_FILE, "high": HIGH_NOISE_FILE, "low": LOW_NOISE_FILE}
LAYOUTS = {"pro_first": 0.30, "pro_next": 0.45, "grey": 0.10, "reference": 0.15}
CAPTION_DROPOUT = 0.10
PEAK_LEARNING_RATE = {"trunk": 2e-3, "high": 6e-4, "low": 6e-4}
PHASES = ((0.15, ((6, 14), (11, 7))), (0.45, ((11, 7), (6, 14), (21, 4))), (1.0, ((21, 4),)))
"""(share of the time at which the phase ends, choices of (latent slots, samples a batch and worker))."""


def sigma_of(timestep_id: Tensor) -> Tensor:
    """Return the noise level of timestep ids 0 (pure noise) to 999, shift 5."""
    fraction = 1.0 - timestep_id.float() / NUM_TIMESTEPS
    return SHIFT * fraction / (1.0 + (SHIFT - 1.0) * fraction)


def draw_sample(stories: list[StoryLatents], rng: torch.Generator) -> tuple[Tensor, Tensor, str, Tensor]:
    """Draw a clip, its conditioning latent (both `[16, 21, h, w]`) in a random layout, its caption and its focus."""
    draw = float(torch.rand((), generator=rng))
    layout, total = "reference", 0.0
    for name, share in LAYOUTS.items():
        total += share
        if draw < total:
            layout = name
            break
    while True:
        story = stories[_randint(len(stories), rng)]
        if layout in ("pro_first", "pro_next") or story.reference is not None:
            break
    first = 1 if layout == "pro_next" else 0
    index = first + _randint(len(story.captions) - first, rng)
    focus = torch.ones(story.clips.shape[2:]) if story.focus is None else story.focus[index]
    return story.clips[index].float(), condition(story, layout, index, rng), story.captions[index], focus


def _randint(stop: int, rng: torch.Generator) -> int:
    return int(torch.randint(stop, (1,), generator=rng))


def condition(story: StoryLatents, layout: str, index: int, rng: torch.Generator) -> Tensor:
    """Return the conditioning latent `[16, 21, h, w]` of clip `index`; padding is zero in normalised space for Pro."""
    if layout == "grey":
        return story.grey[index].float()
    if layout == "reference":
        return story.reference[index].float()
    out = torch.zeros_like(story.clips[index], dtype=torch.float32)
    if layout == "pro_first":
        out[:, 0] = story.clips[index, :, 0]
        return out
    anchor = 0 if _randint(3, rng) else _randint(index, rng)
    out[:, 0] = story.clips[anchor, :, 0]
    out[:, 1] = story.clips[index - 1, :, -1]
    return out


def with_mask(latent: Tensor) -> Tensor:
    """Put four mask channels before `[B, 16, T, h, w]`: 1 (known) in slot 0, 0 elsewhere."""
    mask = torch.zeros_like(latent[:, :4])
    mask[:, :, 0] = 1.0
    return torch.cat([mask, latent], dim=1)


def drop_caption(caption: str, rng: torch.Generator) -> str:
    """Replace one caption in ten by an empty or a negative prompt, for classifier-free guidance."""
    if float(torch.rand((), generator=rng)) >= CAPTION_DROPOUT:
        return caption
    return ("", "", "", "", NEGATIVE_PROMPTS[1], NEGATIVE_PROMPTS[0])[_randint(6, rng)]


def draw_batch(stories: list[StoryLatents], read: CaptionReader, size: int, num_slots: int, rng: torch.Generator) -> dict:
    """Draw a batch, cut to its first `num_slots` slots (a causal VAE makes that the latent of the first frames)."""
    samples = [draw_sample(stories, rng) for _ in range(size)]
    text, text_logits = pad_texts([read(drop_caption(caption, rng)) for _, _, caption, _ in samples])
    return {
        "latent": torch.stack([latent[:, :num_slots] for latent, _, _, _ in samples]),
        "conditioning": with_mask(torch.stack([known[:, :num_slots] for _, known, _, _ in samples])),
        "focus": torch.stack([focus[:num_slots] for _, _, _, focus in samples]),
        "text": text,
        "text_logits": text_logits,
    }


def flow_loss(trunk: nn.Module, batch: dict, timestep_id: Tensor, noise: Tensor, focused: bool = False) -> Tensor:
    """Return the mean squared error of the predicted velocity for each sample, `[B]`, weighted by focus if asked."""
    from demo.models.fast_trunk import velocity

    sigma = sigma_of(timestep_id)
    level = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1.0 - level) * batch["latent"] + level * noise
    predicted = velocity(trunk, noisy, batch["conditioning"], 1000.0 * sigma, batch["text"], batch["text_logits"])
    error = F.mse_loss(predicted, noise - batch["latent"], reduction="none")
    if focused:
        error = error * (batch["focus"] / batch["focus"].mean())[:, None]
    return error.flatten(1).mean(1)


def build_optimizers(trunk: nn.Module, peak: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks and AdamW for the rest, both for updates of the same size."""
    matrices, others = [], []
    for name, parameter in trunk.named_parameters():
        (matrices if name.startswith("blocks.") and parameter.ndim == 2 else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def held_out_loss(
    trunk: nn.Module, stories: list[StoryLatents], read: CaptionReader, ids: tuple[int, int], num_batches: int = 3
) -> float:
    """Return the mean loss on fixed held-out samples, four a batch, at fixed noise levels of this model's range."""
    rng = torch.Generator().manual_seed(99)
    losses = []
    for _ in range(num_batches):
        batch = draw_batch(stories, read, 4, 21, rng)
        timestep_id = torch.linspace(ids[0] + 20, ids[1] - 20, 4).long()
        noise = torch.randn(batch["latent"].shape, generator=rng)
        losses.append(flow_loss(trunk, batch, timestep_id, noise))
    return float(torch.cat(losses).mean())


def start_weights(name: str, trunk: nn.Module, run: TrainingRun, moving: MovingAverage, optimizers: list) -> None:
    """Resume from this run's checkpoint, or start an expert from the trunk's averaged weights."""
    state = run.resume()
    if state is not None:
        trunk.load_state_dict(state["trunk"])
        moving.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    elif name != "trunk":
        load_average("trunk", trunk)
        moving.load_state_dict({"num_updates": 0, **{n: p.detach() for n, p in trunk.named_parameters()}})


def load_average(name: str, trunk: nn.Module) -> int:
    """Put the averaged weights of a run into `trunk`; returns the step they were taken at.

    Raises:
        ValueError: that run has no checkpoint.
    """
    run = TrainingRun(f"dit_{name}", 1.0)
    state = run.resume()
    if state is None:
        raise ValueError(f"no checkpoint in {run.folder}; train {name} first")
    moving = MovingAverage(trunk, 0.0)
    moving.load_state_dict(state["average"])
    moving.copy_to(trunk)
    return run.step


def train(rank: int, name: str, minutes: float, num_shards: int, comfyui: str | None) -> None:
    """Train one model for its time, as one of several workers; checkpoint every three minutes."""
    import_comfy(comfyui)
    run = TrainingRun(f"dit_{name}", minutes)
    trunk = build_trunk(SEED)
    moving = MovingAverage(trunk, 0.998 if name == "trunk" else 0.99)
    optimizers = build_optimizers(trunk, PEAK_LEARNING_RATE[name])
    start_weights(name, trunk, run, moving, optimizers)
    stories, held_out = stored.read_shards(num_shards), stored.read_shards(1, HELD_OUT_SEED)
    read = CaptionReader()
    rng = torch.Generator().manual_seed(1000 * SEED + 10 * run.step + rank)
    first, last = TIMESTEP_RANGES[name]
    progress, losses = run.progress, []
    while progress < 1.0:
        choices = next(choices for end, choices in PHASES if (progress if name == "trunk" else 1.0) <= end)
        num_slots, size = choices[run.step % len(choices)]
        batch = draw_batch(stories, read, size, num_slots, rng)
        timestep_id = torch.randint(first, last, (size,), generator=rng)
        noise = torch.randn(batch["latent"].shape, generator=rng)
        loss = flow_loss(trunk, batch, timestep_id, noise, focused=name != "trunk").mean()
        trunk.zero_grad(set_to_none=True)
        loss.backward()
        progress, mean_loss = average(trunk.parameters(), torch.tensor([run.progress, float(loss.detach())])).tolist()
        if not math.isfinite(mean_loss):
            raise RuntimeError(f"the loss is {mean_loss} at step {run.step}; the last checkpoint is intact")
        nn.utils.clip_grad_norm_(trunk.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(PEAK_LEARNING_RATE[name], progress, run.step, 30)
            optimizer.step()
        moving.update(trunk)
        run.step += 1
        losses.append(mean_loss)
        if rank == 0 and run.step % 50 == 0:
            run.log(loss=sum(losses) / len(losses), lr=optimizers[0].param_groups[0]["lr"], slots=num_slots)
            losses.clear()
        if run.step % 100 == 0:
            stories = stored.read_shards(num_shards)
        if rank == 0 and run.save(_state(trunk, moving, optimizers), every_seconds=180.0):
            _log_held_out(run, trunk, moving, held_out, read, (first, last))
    if rank == 0:
        run.save(_state(trunk, moving, optimizers))
        _log_held_out(run, trunk, moving, held_out, read, (first, last))


def _log_held_out(run, trunk, moving, held_out, read, ids) -> None:
    """Log the held-out loss of the averaged weights; the weights in training stay as they are."""
    averaged = build_trunk(SEED)
    moving.copy_to(averaged)
    run.log(held_out=held_out_loss(averaged, held_out, read, ids))


def _state(trunk: nn.Module, moving: MovingAverage, optimizers: list[torch.optim.Optimizer]) -> dict:
    return {
        "trunk": trunk.state_dict(),
        "average": moving.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }


def export(folder: Path | None = None) -> None:
    """Write the three model files; an expert that has not been trained yet is a copy of the trunk."""
    for name, path in FILES.items():
        trunk = build_trunk(SEED)
        trained = name if (TrainingRun(f"dit_{name}", 1.0).folder / "checkpoint.pt").exists() else "trunk"
        step = load_average(trained, trunk)
        path = path if folder is None else folder / path.name
        size = save_half(path, trunk.state_dict(), {**trunk_metadata(), "trained": trained, "step": str(step)})
        TrainingRun(f"dit_{name}", 1.0).log(exported_step=step, megabytes=size / 1e6)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=50.0, help="wall-clock time to train, earlier runs included")
    parser.add_argument("--expert", choices=("high", "low"), help="train this Wan 2.2 expert instead of the trunk")
    parser.add_argument("--shards", type=int, default=40, help="training data: shards of 25 stories")
    parser.add_argument("--encode", action="store_true", help="only encode the stories")
    parser.add_argument("--export", action="store_true", help="only write the model files")
    parser.add_argument("--folder", type=Path, help="with --export: where to write instead of demo/models")
    parser.add_argument("--workers", type=int, default=2, help="processes, one for each core")
    parser.add_argument("--comfyui", help="root of the ComfyUI tree")
    options = parser.parse_args()
    import_comfy(options.comfyui)
    if options.encode:
        stored.write_shard(0, options.comfyui, HELD_OUT_SEED)
        stored.write_shards(options.shards, options.workers, options.comfyui)
    elif options.export:
        export(options.folder)
    else:
        name = options.expert or "trunk"
        launch(train, options.workers, name, options.minutes, options.shards, options.comfyui)


if __name__ == "__main__":
    main()
