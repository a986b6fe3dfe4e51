"""The same clips made in two ways: by this pack, and by what ComfyUI's stock nodes do.

Every job makes N clips one after the other, each from the last frames of the one before, and ends with a finished video file.
Texts are encoded and models loaded beforehand; only making the video is timed.
"""

import functools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.bench import Bench, Measured, kept
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.shapes import TEXT_TOKENS, Shapes
from benchmarks.gpu.stages import NUM_CLIPS, NUM_STEPS
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.weights import expert_file, vae_file

BOUNDARY = 0.9  # at shift 8 the first half of few steps begins above sigma 0.9
SAMPLER, SCHEDULER = "euler", "simple"
PROMPT = "a cat walks on the grass"
COMFYUIS = "ComfyUI's"
WARM_UP_STEPS = 2  # one for each expert


@dataclass(frozen=True)
class Job:
    """The settings and inputs of all jobs.

    Attributes:
        shapes: of model and clip.
        device: where they run.
        folder: for weights and videos.
        num_clips, num_steps: of the video, and of each clip.
        loras: the pack's rows of LoRAs, for ours.
        models: the two experts and the VAE, loaded by ComfyUI.
    """

    shapes: Shapes
    device: torch.device
    folder: Path
    models: tuple[Any, Any, Any] = field(repr=False)
    num_clips: int = NUM_CLIPS
    num_steps: int = NUM_STEPS
    loras: tuple = ()

    @functools.cached_property
    def text(self) -> torch.Tensor:
        """Random text features [1, 512, text width], the same for prompt and negative prompt."""
        return torch.randn(1, TEXT_TOKENS, self.shapes.text_dim, generator=torch.Generator().manual_seed(5))

    @functools.cached_property
    def image(self) -> torch.Tensor:
        """A random picture [1, H, W, 3] in [0, 1]."""
        size = (1, self.shapes.height, self.shapes.width, 3)
        return torch.rand(size, generator=torch.Generator().manual_seed(6))


@kept
@torch.inference_mode()
def load_models(work: Path, shapes: Shapes, device: torch.device) -> tuple[Any, Any, Any]:
    """Return both experts and the VAE, loaded as ComfyUI loads them: in inference mode.

    Tensors that were loaded outside it could not be replaced within it ("Cannot set version_counter for inference tensor").
    """
    pack_module("nodes.generate")
    import comfy.sd
    import comfy.utils

    file = str(expert_file(work, shapes, device))
    high, low = (comfy.sd.load_diffusion_model(file) for _ in range(2))
    return high, low, comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae_file(work, shapes, device))))


def job_of(bench: Bench, **options: Any) -> Job:
    """Return the job of a stage."""
    return Job(bench.shapes, bench.device, bench.work, load_models(bench.work, bench.shapes, bench.device), **options)


Make = Callable[[Job, Stopwatch], list[torch.Tensor]]  # makes the video; returns the latents of its clips


@torch.inference_mode()
def timed_job(bench: Bench, job: Job, make: Make, num_frames: int) -> Measured:
    """Make the video once; return its time in total, by clip, stage and new frame, and its memory."""
    bench.reset_peak()
    watch = Stopwatch(job.device)
    with bench.card_memory() as in_use:
        began = time.perf_counter()
        latents = make(job, watch)
        bench.synchronize()
        seconds = time.perf_counter() - began
    values = {
        "s": seconds,
        "s per clip": seconds / job.num_clips,
        "s per new frame": seconds / num_frames,
        "peak GiB": bench.peak_gib(),
        "in use on the card, GiB": max(in_use, default=""),
        "dtype": str(job.models[0].model.get_dtype_inference()).removeprefix("torch."),
        "attention": COMFYUIS if make is make_stock else chosen_kernels(job),
        **watch.seconds,
        "rest": seconds - sum(watch.seconds.values()),
    }
    if limit := job.shapes.clip_limit(bench.device_name, job.num_steps, bits=8):
        values["% of limit"] = 100 * job.num_clips * limit / seconds
    if len(watch.began) > 1:
        ends = [*watch.began[1:], began + seconds]
        first, *further = (end - start for start, end in zip(watch.began, ends, strict=True))
        values |= {"first clip, s": first, "further clips, s": median(further)}
    return Measured(values, latents)


def chosen_kernels(job: Job) -> str:
    """Return the attention kernels that the pack chose in this process, over the clip and over the text."""
    chosen = pack_module("nodes.bridge.attention").FASTEST.chosen
    tokens = job.shapes.num_tokens
    found = {keys[1]: name for (_, _, _, queries, keys), name in chosen.items() if queries[1] == tokens}
    over = {"the clip": tokens, "the text": TEXT_TOKENS}
    return ", ".join(f"{found[keys]} over {what}" for what, keys in over.items() if keys in found) or COMFYUIS


def frames_of_ours(job: Job) -> int:
    """Return the frames of the video of 2.0 Pro, whose clips share five."""
    return job.num_clips * (job.shapes.num_frames - 5) + 5


def frames_of_stock(job: Job) -> int:
    """Return the frames of the stock graph's video, whose clips share one."""
    return job.num_clips * (job.shapes.num_frames - 1) + 1


def make_ours(job: Job, watch: Stopwatch) -> list[torch.Tensor]:
    """Make the video as SVI Generate does, layout 2.0 Pro."""
    clip_sampler = pack_module("nodes.clip_sampler")
    clips, run, run_store = (
        pack_module(f"svi_core.{name}") for name in ("clips.clip_plan", "clips.growing_video", "store.run_store")
    )
    layout = pack_module("svi_core.systems.layouts").make_layout("2.0 Pro", num_frames=job.shapes.num_frames)
    plan = clips.ClipPlan(job.num_clips, pack_module("svi_core.schedule.text").parse_schedule(PROMPT), layout)
    folder = job.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with _timed_engine(watch, clip_sampler, run), run_store.RunStore(folder) as store:
        with watch.stage("conditioning"):
            maker = our_sampler(job, plan)
        video = run.GrowingVideo(store)
        run.make_video(plan, maker, video)
        if video.num_frames != frames_of_ours(job):
            raise ValueError(f"the video has {video.num_frames} frames, not {frames_of_ours(job)}")
    return [load_file(path)["latent"].float() for path in sorted((folder / "clips").glob("*.safetensors"))]


def our_sampler(job: Job, plan: Any) -> Any:
    """Return the pack's clip maker for this job, with the anchor encoded."""
    import comfy.samplers

    bridge, prompts = pack_module("nodes.bridge"), pack_module("nodes.schedule")
    high, low, vae = job.models
    conditioning = [[job.text, {}]]
    text_encoder = SimpleNamespace(tokenize=str, encode_from_tokens_scheduled=lambda prompt: conditioning)
    sigmas = comfy.samplers.calculate_sigmas(high.get_model_object("model_sampling"), SCHEDULER, job.num_steps)
    anchor = {"samples": bridge.vaes.encode_images(vae, job.image), bridge.latents.FRAMES_KEY: job.image}
    return pack_module("nodes.clip_sampler").ClipSampler(
        model=high,
        model_low_noise=low,
        prompts=prompts.EncodedPrompts(plan.schedule, text_encoder),
        negative=conditioning,
        vae=vae,
        anchor=anchor,
        sampler=comfy.samplers.sampler_object(SAMPLER),
        sigmas=sigmas,
        cfg=1.0,
        boundary=BOUNDARY,
        loras=job.loras,
    )


@contextmanager
def _timed_engine(watch: Stopwatch, clip_sampler, run) -> Iterator[None]:
    """Time the pack's own functions as stages of `watch` within the block."""
    sampling, vaes = pack_module("nodes.bridge.sampling"), pack_module("nodes.bridge.vaes")
    places = [
        (clip_sampler.ClipSampler, "sample", watch.noted(clip_sampler.ClipSampler.sample)),
        (clip_sampler.ClipSampler, "build_y", watch.timed("conditioning", clip_sampler.ClipSampler.build_y)),
        (sampling, "sample_stage", watch.timed("transformer", sampling.sample_stage)),
        (vaes, "decode_chunks", watch.timed_items("decode", vaes.decode_chunks)),
        (run.GrowingVideo, "wait", watch.timed("waiting for video", run.GrowingVideo.wait)),
    ]
    plain = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    try:
        for owner, name, timed in places:
            setattr(owner, name, timed)
        yield
    finally:
        for owner, name, real in plain:
            setattr(owner, name, real)


def make_stock(job: Job, watch: Stopwatch) -> list[torch.Tensor]:
    """Make the video as WanImageToVideo, two KSamplerAdvanced, VAEDecode and one IMAGE batch do.

    Those nodes need ComfyUI's server, so their work is written out here. The pack's encoder replaces SaveVideo, which needs
    PyAV.
    """
    vae = job.models[2]
    start, parts, latents = job.image, [], []
    for clip in range(job.num_clips):
        watch.note()
        with watch.stage("conditioning"):
            known, latent = _stock_conditioning(job, vae, start)
        with watch.stage("transformer"):
            latents.append(_stock_samples(job, known, latent, seed=42 * clip))
        with watch.stage("decode"):
            frames = vae.decode(latents[-1])[0]
        parts.append(frames if clip == 0 else frames[1:])
        start = frames[-1:]
    batch = torch.cat(parts)
    with watch.stage("waiting for video"):
        write_batch(job.folder / "stock.mp4", batch)
    if len(batch) != frames_of_stock(job):
        raise ValueError(f"the video has {len(batch)} frames, not {frames_of_stock(job)}")
    return [*latents, batch[-1]]


def _stock_conditioning(job: Job, vae, start: torch.Tensor) -> tuple[list, torch.Tensor]:
    """Return the CONDITIONING and the empty latent that WanImageToVideo gives for one start image."""
    import comfy.model_management
    import node_helpers

    pixels = torch.full((job.shapes.num_frames, *start.shape[1:]), 0.5)
    pixels[:1] = start
    encoded = vae.encode(pixels)
    latent = torch.zeros(job.shapes.latent_shape, device=comfy.model_management.intermediate_device())
    mask = torch.ones(1, 1, *latent.shape[2:])
    mask[:, :, :1] = 0.0
    values = {"concat_latent_image": encoded, "concat_mask": mask}
    return node_helpers.conditioning_set_values([[job.text, {}]], values), latent


def _stock_samples(job: Job, known: list, latent: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the latent of one clip as two KSamplerAdvanced make it."""
    import comfy.sample

    high, low, _ = job.models
    sample = functools.partial(comfy.sample.sample, disable_pbar=True, seed=seed)
    fixed = (job.num_steps, 1.0, SAMPLER, SCHEDULER, known, known)
    noise, split = comfy.sample.prepare_noise(latent, seed), job.num_steps // 2
    half = sample(high, noise, *fixed, latent, start_step=0, last_step=split)
    nothing = torch.zeros_like(half, device="cpu")
    return sample(low, nothing, *fixed, half, disable_noise=True, start_step=split, last_step=10_000, force_full_denoise=True)


def write_batch(path: Path, frames: torch.Tensor) -> None:
    """Encode `frames` [T, H, W, 3] in [0, 1] as one video file."""
    video_file = pack_module("svi_core.video.video_file")
    chunks = (video_file.to_uint8(frames[start : start + 8]) for start in range(0, len(frames), 8))
    video_file.write_video(path, chunks, video_file.VideoCoding())
