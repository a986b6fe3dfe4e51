"""Train the decoder of the tiny VAE further, on the latents of the video models' training data.

    python -m demo.models.train_decoder --minutes 6

The encoder stays as it is, so the video models stay valid. Errors near the object count more, and the latents carry
noise, as generated ones do. Rewrites demo/models/tiny_wan_vae.safetensors.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from demo.models import latents as stored
from demo.models.comfy_import import import_comfy
from demo.models.data_parallel import average, launch
from demo.models.tiny_models import VAE_FILE, save_half
from demo.models.training_run import MovingAverage, TrainingRun, learning_rate
from demo.world.picture import FRAME_HEIGHT, FRAME_WIDTH
from demo.world.scenes import render_clip, sample_story

SEED = 4
PEAK_LEARNING_RATE = 2e-3
LATENT_NOISE = 0.1
WHOLE = (FRAME_HEIGHT // 8, FRAME_WIDTH // 8)
CROP = (WHOLE[0] // 2, WHOLE[1] // 2)
CHOICES = ((1, 10, WHOLE), (21, 1, CROP), (6, 3, CROP))
"""(latent slots, clips a batch and worker, size in latent places), in turn."""


def draw_batch(stories: list, step: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw latents `[B, T, h, w, 16]` (not normalised), their frames in [-1, 1] and the weight of each pixel."""
    import comfy.latent_formats

    num_slots, size, (rows, columns) = CHOICES[step % len(CHOICES)]
    num_frames, parts = 4 * num_slots - 3, []
    for _ in range(size):
        seed = int(torch.randint(len(stories), (1,), generator=rng))
        clip = int(torch.randint(stored.CLIPS_PER_STORY, (1,), generator=rng))
        top = int(torch.randint(WHOLE[0] - rows + 1, (1,), generator=rng))
        left = int(torch.randint(WHOLE[1] - columns + 1, (1,), generator=rng))
        place = (slice(top, top + rows), slice(left, left + columns))
        pixels = tuple(slice(8 * cut.start, 8 * cut.stop) for cut in place)
        number, story = stories[seed]
        frames = render_clip(sample_story(number, stored.CLIPS_PER_STORY), clip)[:num_frames]
        focus = story.focus[clip, (torch.arange(num_frames) + 3) // 4]
        focus = nn.functional.interpolate(focus[:, None], scale_factor=8, mode="bilinear")[:, 0]
        latent = story.clips[clip, :, :num_slots].float()
        parts.append((latent[(..., *place)], frames[(..., *pixels)], focus[(..., *pixels)]))
    latent, frames, focus = (torch.stack(part) for part in zip(*parts, strict=True))
    latent = latent + LATENT_NOISE * torch.randn(latent.shape, generator=rng)
    latent = comfy.latent_formats.Wan21().process_out(latent)
    return latent.permute(0, 2, 3, 4, 1).bfloat16(), frames.permute(0, 1, 3, 4, 2) * 2.0 - 1.0, focus[..., None]


def numbered_stories(num_shards: int) -> list:
    """Return (seed, latents) of every encoded story."""
    out = []
    for index in range(num_shards):
        for place, story in enumerate(stored.read_shards(1, 0, index)):
            out.append((stored.STORIES_PER_SHARD * index + place, story))
    return out


def train(rank: int, minutes: float, num_shards: int, comfyui: str | None) -> None:
    """Train decoder and latent convolution for the given time, then write the file."""
    import_comfy(comfyui)
    from demo.models.fast_vae import decode

    run = TrainingRun("decoder", minutes)
    vae = stored.frozen_vae().train()
    vae.encoder.requires_grad_(False)
    vae.conv1.requires_grad_(False)
    stories = numbered_stories(num_shards)
    trained = [*vae.decoder.parameters(), *vae.conv2.parameters()]
    moving = MovingAverage(vae, 0.98)
    optimizer = torch.optim.AdamW(trained, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    rng = torch.Generator().manual_seed(1000 * SEED + rank)
    progress, losses = 0.0, []
    while progress < 1.0:
        latent, frames, focus = draw_batch(stories, run.step, rng)
        error = decode(vae, latent).float() - frames
        loss = ((error.square() + 0.1 * error.abs()) * focus).mean() / focus.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        squared = float(error.detach().square().mean()) / 4.0
        progress, mean_squared = average(trained, torch.tensor([run.progress, squared])).tolist()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(PEAK_LEARNING_RATE, progress, run.step, 20)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        moving.update(vae)
        run.step += 1
        losses.append(mean_squared)
        if rank == 0 and run.step % 30 == 0:
            run.log(mse=sum(losses) / len(losses), lr=optimizer.param_groups[0]["lr"])
            losses.clear()
    if rank == 0:
        moving.copy_to(vae)
        run.log(megabytes=save_half(VAE_FILE, vae.state_dict()) / 1e6)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="wall-clock time to train")
    parser.add_argument("--shards", type=int, default=30, help="training data: shards of 25 stories")
    parser.add_argument("--workers", type=int, default=2, help="processes, one for each core")
    parser.add_argument("--comfyui", help="root of the ComfyUI tree")
    options = parser.parse_args()
    import_comfy(options.comfyui)
    launch(train, options.workers, options.minutes, options.shards, options.comfyui)


if __name__ == "__main__":
    main()
