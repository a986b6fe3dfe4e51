"""The clip loop at full size: the pack's own nodes, store and progress; the models and the video encoder are stand-ins."""

import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.jobs import Job, load_models, our_sampler
from benchmarks.gpu.shapes import SHAPES, Shapes

CHUNK = 8  # frames, as the VAE gives them
MODELS, FRAMES, REST = (
    "models",
    "frames kept for the next clip, blended, made bytes (a GPU's work where there is one)",
    "all else",
)
TEXT = "a cat walks\n\nit sits\n\nit sleeps\n\nit wakes up\n\nit runs\n\nit jumps"  # a prompt for each clip
STEPS = {  # the functions that each step consists of
    "the schedule read and the clip's request made": ["svi_core.clips.clip_plan:ClipPlan.following"],
    "keys: all that determines the clip hashed, with its new prompt": [
        "nodes.clip_sampler:ClipSampler.determinants",
        "svi_core.clips.clip_plan:ClipPlan.plan_key",
    ],
    "a stored clip and its file looked for": [
        "svi_core.store.run_store:RunStore.load_latent",
        "svi_core.store.run_store:RunStore.segment",
    ],
    "models with the clip's LoRA strengths": ["nodes.clip_sampler:ClipSampler._stages"],
    "anchor, motion and padding concatenated, and the mask": ["nodes.clip_sampler:ClipSampler.build_y"],
    "the prompt looked up, given y, and copied for both experts": ["nodes.bridge.sampling:set_y", "nodes.bridge.sampling:_own"],
    "an empty latent, and noise": ["nodes.bridge.latents:empty_latent", "nodes.bridge.sampling:random_noise"],
    "the new latent searched for NaN": ["svi_core.clips.chain:require_finite"],
    "latent and record hashed and stored, durable": [
        "svi_core.store.run_store:RunStore.save_latent",
        "svi_core.store.run_store:RunStore.ensure_record",
    ],
    "progress told": ["nodes.bridge.shown_progress:ShownProgress._show"],
    FRAMES: ["svi_core.clips.growing_video:GrowingVideo.add"],
    REST: ["svi_core.clips.growing_video:make_clip"],
}
Taken = dict[str, list[float]]  # wall seconds, and the thread's own of the processor


@dataclass
class Watch:
    """Seconds of each step in each clip, without those of steps inside it, of the thread that makes the clips."""

    clips: list[Taken] = field(default_factory=list)
    _inner: list[list[float]] = field(default_factory=list)
    _thread: int = field(default_factory=threading.get_ident)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        self._inner.append([0.0, 0.0])
        began = _clocks()
        try:
            yield
        finally:
            took = [now - then for now, then in zip(_clocks(), began, strict=True)]
            own = [all_ - inner for all_, inner in zip(took, self._inner.pop(), strict=True)]
            if self._inner:
                self._inner[-1] = [a + b for a, b in zip(self._inner[-1], took, strict=True)]
            known = self.clips[-1].get(name, [0.0, 0.0])
            self.clips[-1][name] = [a + b for a, b in zip(known, own, strict=True)]

    def timed(self, name: str, real: Callable) -> Callable:
        """Return `real`, whose calls in the watched thread are a step once a clip has begun."""

        @functools.wraps(real)
        def call(*arguments, **options):
            if threading.get_ident() != self._thread or not self.clips:
                return real(*arguments, **options)
            with self.step(name):
                return real(*arguments, **options)

        return call


def _clocks() -> list[float]:
    return [time.perf_counter(), time.thread_time()]


@torch.inference_mode()
def clip_steps(shapes: Shapes, num_clips: int) -> dict[str, list[list[float]]]:
    """Return by step what each clip but the first took: [wall seconds, processor seconds] each."""
    watch, parts = Watch(), {name: pack_module(f"svi_core.{name}") for name in ("clips.growing_video", "store.run_store")}
    growing = parts["clips.growing_video"]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        device = torch.device("cpu")
        job = Job(shapes, device, Path(folder), load_models(Path(folder), SHAPES["tiny"], device), num_clips)
        plan = _plan(shapes, num_clips)
        maker = our_sampler(job, plan)
        for owner, name, stand_in in _stand_ins(shapes, watch, growing, maker):
            patches.enter_context(patch.object(owner, name, stand_in))
        for step, places in STEPS.items():
            for owner, name in map(_place, places):
                patches.enter_context(patch.object(owner, name, watch.timed(step, getattr(owner, name))))
        with parts["store.run_store"].RunStore(Path(folder) / "run") as store:
            growing.make_video(plan, maker, growing.GrowingVideo(store))
    return {step: [clip.get(step, [0.0, 0.0]) for clip in watch.clips[1:]] for step in STEPS}


def _plan(shapes: Shapes, num_clips: int):
    layout = pack_module("svi_core.systems.layouts").make_layout("2.0 Pro", num_frames=shapes.num_frames)
    schedule = pack_module("svi_core.schedule.text").parse_schedule(TEXT)
    return pack_module("svi_core.clips.clip_plan").ClipPlan(num_clips, schedule, layout)


def _stand_ins(shapes: Shapes, watch: Watch, growing, maker) -> list[tuple[object, str, Callable]]:
    """Return (owner, name, function) for all that is not the host's work, and for the beginning of a clip."""
    frames = torch.rand(shapes.num_frames, shapes.height, shapes.width, 3, generator=torch.Generator().manual_seed(1))
    begin = maker.begin

    def sample(model, noise, cfg, sampler, sigmas, positive, negative, samples, callback, **_) -> torch.Tensor:
        for step in range(len(sigmas) - 1):
            callback(step, samples, samples, len(sigmas) - 1)
        return noise + samples

    def decode(*_) -> Iterator[torch.Tensor]:
        yield frames[:1]
        yield from frames[1:].split(CHUNK)

    def write(path: Path, chunks: Iterator, coding) -> SimpleNamespace:
        num_frames = sum(map(len, chunks))
        path.write_bytes(b"frames")
        return SimpleNamespace(num_frames=num_frames, sha256="0" * 64)

    def begun(request) -> None:
        watch.clips.append({})
        begin(request)

    def nothing(_video) -> None:
        pass

    return [
        (pack_module("nodes.bridge.sampling").comfy.sample, "sample_custom", watch.timed(MODELS, sample)),
        (pack_module("nodes.bridge.vaes"), "decode_chunks", decode),
        (growing, "write_video", write),
        (growing.GrowingVideo, "_refresh", nothing),
        (growing.GrowingVideo, "finish", growing.GrowingVideo.wait),
        (maker, "begin", begun),
    ]


def _place(written: str) -> tuple[object, str]:
    """Return the object and the attribute that "module:Class.method" or "module:function" names."""
    module, _, path = written.partition(":")
    owner, _, name = path.rpartition(".")
    return (getattr(pack_module(module), owner) if owner else pack_module(module)), name
