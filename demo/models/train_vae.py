"""Train the tiny Wan 2.1 VAE on the tiny world and write demo/models/tiny_wan_vae.safetensors.

    python -m demo.models.train_vae --minutes 25          # start, or resume from the last checkpoint
    python -m demo.models.train_vae --export              # only fold, measure and write the file

First single frames, then clips of 5 and 9, then of 17 to 49. The latent carries fixed noise and a penalty on its square
(a variational autoencoder of fixed variance), which keeps it smooth for the video model. Afterwards an affine map per
channel is folded into the two 1x1 convolutions around the latent, so that latents of this world have Wan 2.1's means
and deviations, and ComfyUI's latent format makes them about N(0, 1).
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.models.comfy_import import import_comfy
from demo.models.data_parallel import average, launch
from demo.models.tiny_models import VAE_FILE, build_vae, save_half
from demo.models.training_run import RUNS, MovingAverage, TrainingRun, learning_rate
from demo.world.picture import FRAME_HEIGHT, FRAME_WIDTH
from demo.world.scenes import HELD_OUT_SEED, render_clip, sample_story

SEED = 1
LATENT_NOISE = 0.1
LATENT_PENALTY = 5e-4
PEAK_LEARNING_RATE = 3e-3
FULL, QUARTER = (FRAME_HEIGHT, FRAME_WIDTH), (FRAME_HEIGHT // 16 * 8, FRAME_WIDTH // 16 * 8)
PHASES = (
    (0.22, ((1, 16, FULL),)),
    (0.45, ((9, 2, FULL), (5, 3, FULL))),
    (1.0, ((49, 1, QUARTER), (33, 1, FULL), (81, 1, QUARTER), (17, 1, FULL))),
)
"""(share of the time at which the phase ends, choices of (frames, clips a batch and worker, size of a crop))."""


def render_bytes(seed: int) -> Tensor:
    """Render one clip of the story of this seed as uint8 `[81, H, W, 3]`; odd seeds give its second clip."""
    frames = render_clip(sample_story(seed, 2), seed % 2)
    return (frames * 255.0).round().byte().permute(0, 2, 3, 1).contiguous()


def render_pool(seeds: range) -> Tensor:
    """Render one clip for each seed, `[N, 81, H, W, 3]` uint8, on two processes; kept on disk for the next start."""
    path = RUNS / f"frames_{seeds.start}_{len(seeds)}.pt"
    if path.exists():
        return torch.load(path, weights_only=True, mmap=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, initializer=partial(torch.set_num_threads, 1)) as pool:
        frames = torch.stack(list(pool.map(render_bytes, seeds, chunksize=20)))
    torch.save(frames, path)
    return frames


def draw_batch(pool: Tensor, progress: float, step: int, generator: torch.Generator) -> Tensor:
    """Draw a batch `[B, T, H, W, 3]` in [-1, 1], bfloat16, of a size that this phase trains (the same on all workers)."""
    choices = next(choices for end, choices in PHASES if progress <= end)
    num_frames, batch, (height, width) = choices[step % len(choices)]
    stories = torch.randint(len(pool), (batch,), generator=generator).tolist()
    start = int(torch.randint(pool.shape[1] - num_frames + 1, (1,), generator=generator))
    top = 8 * int(torch.randint((pool.shape[2] - height) // 8 + 1, (1,), generator=generator))
    left = 8 * int(torch.randint((pool.shape[3] - width) // 8 + 1, (1,), generator=generator))
    clips = pool[stories, start : start + num_frames, top : top + height, left : left + width]
    return (clips.float() / 127.5 - 1.0).bfloat16()


def reconstruction_loss(vae: nn.Module, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the training loss and the mean squared error, which counts [0, 1] as the range of a pixel."""
    from demo.models.fast_vae import decode, encode

    mean = encode(vae, frames)
    noisy = mean + LATENT_NOISE * torch.randn_like(mean)
    error = decode(vae, noisy).float() - frames.float()
    squared = error.square().mean()
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2.0
    penalty = mean.float().square().mean()
    loss = squared + 0.1 * error.abs().mean() + 0.1 * edges + LATENT_PENALTY * penalty
    return loss, squared.detach() / 4.0


def train(rank: int, minutes: float, num_stories: int, comfyui: str | None) -> None:
    """Train for the given time, as one of several workers; checkpoint every three minutes."""
    import_comfy(comfyui)
    run = TrainingRun("vae", minutes)
    vae = build_vae(seed=SEED)
    moving = MovingAverage(vae, 0.998)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    if (state := run.resume()) is not None:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        moving.load_state_dict(state["average"])
    pool = render_pool(range(num_stories))
    generator = torch.Generator().manual_seed(1000 * SEED + 10 * run.step + rank)
    torch.manual_seed(1000 * SEED + 10 * run.step + rank)
    progress, losses = run.progress, []
    while progress < 1.0:
        loss, squared = reconstruction_loss(vae, draw_batch(pool, progress, run.step, generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        figures = average(vae.parameters(), torch.tensor([run.progress, float(squared), float(loss.detach())]))
        progress, squared_error, total = figures.tolist()
        if not math.isfinite(total):
            raise RuntimeError(f"the loss is {total} at step {run.step}; the last checkpoint is intact")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(PEAK_LEARNING_RATE, progress, run.step, 100)
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        moving.update(vae)
        run.step += 1
        losses.append(squared_error)
        if rank == 0 and run.step % 50 == 0:
            run.log(mse=sum(losses) / len(losses), lr=optimizer.param_groups[0]["lr"])
            losses.clear()
        if rank == 0:
            run.save(_state(vae, optimizer, moving), every_seconds=180.0)
    if rank == 0:
        run.save(_state(vae, optimizer, moving))


def _state(vae: nn.Module, optimizer: torch.optim.Optimizer, moving: MovingAverage) -> dict:
    return {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "average": moving.state_dict()}


@torch.no_grad()
def encode_clips(vae: nn.Module, seeds: range) -> Tensor:
    """Encode one whole clip a seed to latent means `[N, 21, h, w, 16]`."""
    from demo.models.fast_vae import encode

    latents = []
    for seed in seeds:
        frames = render_bytes(seed).float()[None] / 127.5 - 1.0
        latents.append(encode(vae, frames.bfloat16()).float())
    return torch.cat(latents)


@torch.no_grad()
def fold_latent_statistics(vae: nn.Module, latents: Tensor) -> None:
    """Rescale the latent so that `latents` get Wan 2.1's mean and deviation per channel; decoding is unchanged.

    latent' = scale * latent + shift becomes the encoder's last 1x1 convolution and its inverse the decoder's first.
    """
    import comfy.latent_formats

    wan = comfy.latent_formats.Wan21()
    scale = wan.latents_std.flatten() / latents.flatten(0, -2).std(0)
    shift = wan.latents_mean.flatten() - scale * latents.flatten(0, -2).mean(0)
    channels = len(scale)
    vae.conv1.weight[:channels] *= scale.view(-1, 1, 1, 1, 1)
    vae.conv1.bias[:channels] = vae.conv1.bias[:channels] * scale + shift
    weight = vae.conv2.weight / scale.view(1, -1, 1, 1, 1)
    vae.conv2.bias -= weight.flatten(1) @ shift
    vae.conv2.weight.copy_(weight)


def export(num_statistics: int = 60, num_measured: int = 8) -> None:
    """Write the averaged weights, folded, and log the held-out PSNR through ComfyUI's own VAE class."""
    torch.set_num_threads(1)
    run = TrainingRun("vae", 1.0)
    state = run.resume()
    if state is None:
        raise ValueError(f"no checkpoint in {run.folder}; train first")
    vae = build_vae(seed=SEED)
    moving = MovingAverage(vae, 0.0)
    moving.load_state_dict(state["average"])
    moving.copy_to(vae)
    fold_latent_statistics(vae, encode_clips(vae, range(num_statistics)))
    size = save_half(VAE_FILE, vae.state_dict())
    scores = measure_psnr(range(HELD_OUT_SEED, HELD_OUT_SEED + num_measured))
    run.log(psnr=scores.mean(), psnr_worst=scores.min(), megabytes=size / 1e6)


@torch.no_grad()
def measure_psnr(seeds: range) -> Tensor:
    """Return the PSNR in dB of one whole clip a seed, through the shipped file and `comfy.sd.VAE`."""
    import comfy.sd
    import comfy.utils

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE_FILE)))
    scores = []
    for seed in seeds:
        frames = render_bytes(seed).float() / 255.0
        decoded = vae.decode(vae.encode(frames))[0].float()
        scores.append(-10.0 * torch.log10(F.mse_loss(decoded, frames)))
    return torch.stack(scores)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25.0, help="wall-clock time to train, earlier runs included")
    parser.add_argument("--stories", type=int, default=1500, help="clips in the training pool")
    parser.add_argument("--workers", type=int, default=2, help="processes, one for each core")
    parser.add_argument("--comfyui", help="root of the ComfyUI tree")
    parser.add_argument("--export", action="store_true", help="only write the model file from the last checkpoint")
    options = parser.parse_args()
    import_comfy(options.comfyui)
    if not options.export:
        render_pool(range(options.stories))
        launch(train, options.workers, options.minutes, options.stories, options.comfyui)
    export()


if __name__ == "__main__":
    main()
