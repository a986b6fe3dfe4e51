"""The same clips made in three ways: by this pack, by what ComfyUI's stock nodes do, and by diffusers' pipeline.

Every job makes N clips one after the other, each from the last frames of the one before, and ends with a finished video file.
Texts are encoded and models loaded beforehand; only making the video is timed.
"""

import functools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.command import Row, synchronize
from benchmarks.gpu.shapes import TEXT_TOKENS, Shapes
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.weights import expert_files, vae_file

STEPS, STEPS_HIGH, BOUNDARY = 4, 2, 0.9  # at shift 8 the first two of four steps begin above sigma 0.9
SAMPLER, SCHEDULER = "euler", "simple"
PROMPT = "a cat walks on the grass"


@dataclass(frozen=True)
class Job:
    """The settings and inputs of all jobs.

    Attributes:
        shapes: of model and clip.
        device: where they run.
        folder: for weights and videos.
        kind: of the weights, "fp8" or "bf16".
    """

    shapes: Shapes
    device: torch.device
    folder: Path
    kind: str

    @functools.cached_property
    def models(self) -> tuple[Any, Any, Any]:
        """The two experts and the VAE, loaded by ComfyUI."""
        pack_module("nodes.generate")
        import comfy.sd
        import comfy.utils

        weights = self.folder / "weights"
        files = expert_files(weights, self.shapes, self.device, self.kind)
        high, low = (comfy.sd.load_diffusion_model(str(path)) for path in files)
        return high, low, comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae_file(weights, self.shapes, self.device))))

    @functools.cached_property
    def text(self) -> torch.Tensor:
        """Random text features [1, 512, text width], the same for prompt and negative prompt."""
        return torch.randn(1, TEXT_TOKENS, self.shapes.text_dim, generator=torch.Generator().manual_seed(5))

    @functools.cached_property
    def image(self) -> torch.Tensor:
        """A random picture [1, H, W, 3] in [0, 1]."""
        size = (1, self.shapes.height, self.shapes.width, 3)
        return torch.rand(size, generator=torch.Generator().manual_seed(6))


def peak_gib(device: torch.device) -> float | str:
    """Return the most memory that PyTorch held on the device since its statistics were reset."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else ""


def timed_job(job: Job, make: Callable[[Job, int, Stopwatch], int], num_clips: int) -> Row:
    """Run one job and return its time in total, by stage and per new frame, and its memory."""
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    watch = Stopwatch(job.device)
    began = time.perf_counter()
    with torch.inference_mode():
        num_frames = make(job, num_clips, watch)
    synchronize(job.device)
    seconds = time.perf_counter() - began
    rest = seconds - sum(watch.seconds.values())
    row = {
        "s": seconds,
        "s per new frame": seconds / num_frames,
        "peak GiB": peak_gib(job.device),
        **watch.seconds,
        "rest": rest,
    }
    limit = job.shapes.clip_limit(_device_name(job.device), STEPS, 8 if job.kind == "fp8" else 16)
    return row | ({"% of limit": 100 * num_clips * limit / seconds} if limit else {})


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def make_ours(job: Job, num_clips: int, watch: Stopwatch) -> int:
    """Make the video as SVI Generate does, layout 2.0 Pro; return its frames."""
    clip_sampler = pack_module("nodes.clip_sampler")
    clips, run, run_store = (
        pack_module(f"svi_core.{name}") for name in ("clips.clip_plan", "clips.growing_video", "store.run_store")
    )
    layout = pack_module("svi_core.systems.layouts").make_layout("2.0 Pro", num_frames=job.shapes.num_frames)
    plan = clips.ClipPlan(num_clips, pack_module("svi_core.schedule.text").parse_schedule(PROMPT), layout)
    folder = job.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with _timed_engine(watch, clip_sampler, run), run_store.RunStore(folder) as store:
        with watch.stage("conditioning"):
            maker = our_sampler(job, plan)
        video = run.GrowingVideo(store)
        run.make_video(plan, maker, video)
        return video.num_frames


def our_sampler(job: Job, plan: Any) -> Any:
    """Return the pack's clip maker for this job, with the anchor encoded."""
    import comfy.samplers

    bridge, prompts = pack_module("nodes.bridge"), pack_module("nodes.schedule")
    high, low, vae = job.models
    conditioning = [[job.text, {}]]
    text_encoder = SimpleNamespace(tokenize=str, encode_from_tokens_scheduled=lambda prompt: conditioning)
    sigmas = comfy.samplers.calculate_sigmas(high.get_model_object("model_sampling"), SCHEDULER, STEPS)
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
    )


@contextmanager
def _timed_engine(watch: Stopwatch, clip_sampler, run) -> Iterator[None]:
    """Time the pack's own functions as stages of `watch` within the block."""
    sampling, vaes = pack_module("nodes.bridge.sampling"), pack_module("nodes.bridge.vaes")
    places = [
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


def make_stock(job: Job, num_clips: int, watch: Stopwatch) -> int:
    """Make the video as WanImageToVideo, two KSamplerAdvanced, VAEDecode and one IMAGE batch do; return its frames.

    Those nodes need ComfyUI's server, so their work is written out here. The pack's encoder replaces SaveVideo, which needs
    PyAV.
    """
    high, low, vae = job.models
    start, parts = job.image, []
    for clip in range(num_clips):
        with watch.stage("conditioning"):
            known, latent = _stock_conditioning(job, vae, start)
        with watch.stage("transformer"):
            samples = _stock_samples(high, low, known, latent, seed=42 * clip)
        with watch.stage("decode"):
            frames = vae.decode(samples)[0]
        parts.append(frames if clip == 0 else frames[1:])
        start = frames[-1:]
    batch = torch.cat(parts)
    with watch.stage("waiting for video"):
        write_batch(job.folder / "stock.mp4", batch)
    return len(batch)


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


def _stock_samples(high, low, known: list, latent: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the latent of one clip as two KSamplerAdvanced make it."""
    import comfy.sample

    sample = functools.partial(comfy.sample.sample, disable_pbar=True, seed=seed)
    fixed = (STEPS, 1.0, SAMPLER, SCHEDULER, known, known)
    noise = comfy.sample.prepare_noise(latent, seed)
    half = sample(high, noise, *fixed, latent, start_step=0, last_step=STEPS_HIGH)
    nothing = torch.zeros_like(half, device="cpu")
    return sample(
        low, nothing, *fixed, half, disable_noise=True, start_step=STEPS_HIGH, last_step=10_000, force_full_denoise=True
    )


def write_batch(path: Path, frames: torch.Tensor) -> None:
    """Encode `frames` [T, H, W, 3] in [0, 1] as one video file."""
    video_file = pack_module("svi_core.video.video_file")
    chunks = (video_file.to_uint8(frames[start : start + 8]) for start in range(0, len(frames), 8))
    video_file.write_video(path, chunks, video_file.VideoCoding())


@functools.cache
def diffusers_pipeline(job: Job):
    """Return diffusers' image-to-video pipeline with two random experts of the same sizes, in bf16.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
    """
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel

    shapes = job.shapes
    sizes = {"num_attention_heads": shapes.num_heads, "attention_head_dim": shapes.dim // shapes.num_heads}
    sizes |= {"ffn_dim": shapes.ffn_dim, "num_layers": shapes.num_layers, "text_dim": shapes.text_dim}
    torch.manual_seed(0)
    with torch.device(job.device):
        experts = [WanTransformer3DModel(in_channels=36, out_channels=16, **sizes).bfloat16().eval() for _ in range(2)]
        vae = AutoencoderKLWan(base_dim=shapes.vae_dim).bfloat16().eval()
    return WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=experts[0],
        transformer_2=experts[1],
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0),
        boundary_ratio=BOUNDARY,
    )


def make_diffusers(job: Job, num_clips: int, watch: Stopwatch) -> int:
    """Make the video with diffusers' own pipeline, clip by clip, without separate stages; return its frames."""
    pipeline, text = diffusers_pipeline(job), job.text.to(job.device, torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    start, parts = job.image, []
    size = {"width": job.shapes.width, "height": job.shapes.height, "num_frames": job.shapes.num_frames}
    for clip in range(num_clips):
        with watch.stage("pipeline"):
            frames = pipeline(
                image=start.movedim(-1, 1),
                prompt_embeds=text,
                negative_prompt_embeds=text,
                guidance_scale=1.0,
                num_inference_steps=STEPS,
                generator=torch.Generator().manual_seed(42 * clip),
                output_type="pt",
                **size,
            ).frames[0]
        frames = frames.movedim(1, -1).float().cpu()
        parts.append(frames if clip == 0 else frames[1:])
        start = frames[-1:]
    batch = torch.cat(parts)
    with watch.stage("waiting for video"):
        write_batch(job.folder / "diffusers.mp4", batch)
    return len(batch)
