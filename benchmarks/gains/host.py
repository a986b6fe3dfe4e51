"""Work of the processor between two clips, and passes over memory in the VAE: before and after."""

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gains.models import random_vae
from svi_core.conditioning.build_y import padded_frames
from svi_core.look.frame_measures import measure_frames
from svi_core.video.colour import ColourCorrection, corrected

CHUNK = 8  # frames, as the VAE gives them
RED_AND_BLUE = slice(4, 6)  # of svi_core.look.frame_measures
BEGIN, END = ColourCorrection((1.05, 0.97, 1.0), (0.01, 0.0, -0.02)), ColourCorrection((1.1, 0.95, 1.02), (0.0, 0.01, -0.03))


def timed(run: Callable[[], list[torch.Tensor]]) -> tuple[float, list[torch.Tensor]]:
    """Return the CPU seconds of `run`, and its result."""
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def clip_of(sizes) -> torch.Tensor:
    """Return a textured clip [T, H, W, 3] in [0, 1]."""
    random = torch.Generator().manual_seed(6)
    small = torch.rand(sizes.num_frames, 3, max(2, sizes.height // 8), max(2, sizes.width // 8), generator=random)
    return torch.nn.functional.interpolate(small, size=(sizes.height, sizes.width), mode="bilinear").movedim(1, 3).contiguous()


def colours_matched(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of correcting a clip's colours, its frames)."""
    chunks = clip_of(sizes).half().split(CHUNK)

    def ramp() -> Iterator[torch.Tensor]:
        """Correct as before: a new tensor for each operation."""
        position = 0
        for chunk in (chunk.float() for chunk in chunks):
            share = torch.arange(position, position + len(chunk), dtype=torch.float32) / (sizes.num_frames - 1)
            ends = [(chunk * torch.tensor(c.gain) + torch.tensor(c.offset)).clamp(0.0, 1.0) for c in (BEGIN, END)]
            yield torch.lerp(*ends, share.view(-1, 1, 1, 1))
            position += len(chunk)

    def now() -> Iterator[torch.Tensor]:
        for place, chunk in enumerate(chunks):
            yield corrected(chunk.float(), CHUNK * place, BEGIN, END, sizes.num_frames)

    return lambda: timed(lambda: [torch.cat(list(ramp()))]), lambda: timed(lambda: [torch.cat(list(now()))])


def frames_prepared(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of what the VAE's input takes of the processor, nothing).

    After, the clip is put together on the VAE's device. For that stands the meta device, where PyTorch does all but the sums:
    what is left is the processor's share. That the bits are equal, tests/nodes/bridge/test_vaes.py shows.
    """
    known = clip_of(sizes)[:1]

    def prepare(frames: torch.Tensor) -> list[torch.Tensor]:
        pixels = padded_frames(frames, None, sizes.num_frames).movedim(-1, 1).movedim(1, 0).unsqueeze(0)
        (pixels * 2.0 - 1.0).to(torch.bfloat16)
        return []

    return lambda: timed(lambda: prepare(known)), lambda: timed(lambda: prepare(known.to("meta")))


def drift_measured(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of measuring a clip's frames, the measures)."""
    frames = (clip_of(sizes) * 255).to(torch.uint8).numpy()

    def run(measure: Callable[[np.ndarray], np.ndarray]) -> tuple[float, list[torch.Tensor]]:
        return timed(lambda: [torch.from_numpy(np.concatenate([measure(part) for part in np.split(frames, len(frames))]))])

    return lambda: run(rows_of_all_at_once), lambda: run(lambda part: measure_frames(part).rows)


def colours_off(sizes, has_texture: bool) -> dict[str, object]:
    """Return how far red and blue of each way are from the old way's in double precision, in frames with or without texture."""
    frames = clip_of(sizes)[:CHUNK]
    frames = ((frames if has_texture else frames[:, :1, :1].expand_as(frames)) * 255).to(torch.uint8).numpy()
    exact = rows_of_all_at_once(frames, np.float64)
    ways = {"before": rows_of_all_at_once(frames), "after": measure_frames(frames).rows}
    return {name: [float(np.abs(rows - exact)[:, RED_AND_BLUE].max())] for name, rows in ways.items()} | {"deviation": ""}


def rows_of_all_at_once(frames: np.ndarray, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """Measure as before: pixel by pixel with the colours side by side, octaves by repeating their averages."""
    pixels = frames.astype(dtype) / dtype(255.0)
    luma = pixels @ np.array([0.2126, 0.7152, 0.0722], dtype)
    inner = luma[:, 1:-1, 1:-1]
    laplacian = 4 * inner - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1] - luma[:, 1:-1, :-2] - luma[:, 1:-1, 2:]
    mean, brightness = pixels.mean(axis=(1, 2)), luma.mean(axis=(1, 2))
    saturation = (pixels.max(axis=3) - pixels.min(axis=3)).mean(axis=(1, 2))
    columns = [
        brightness,
        luma.std(axis=(1, 2)),
        saturation,
        energy(laplacian),
        mean[:, 0] - brightness,
        mean[:, 2] - brightness,
    ]
    level = luma[:, : luma.shape[1] // 16 * 16, : luma.shape[2] // 16 * 16]
    for _ in range(4):
        coarse = (level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2]) / 4
        columns.append(energy(level - coarse.repeat(2, axis=1).repeat(2, axis=2)))
        level = coarse
    rows = np.linspace(0, pixels.shape[1], 17).astype(int)[:-1]
    columns_at = np.linspace(0, pixels.shape[2], 17).astype(int)[:-1]
    np.add.reduceat(np.add.reduceat(pixels, rows, axis=1), columns_at, axis=2)  # the thumbnails
    return np.stack(columns, axis=1)


def energy(values: np.ndarray) -> np.ndarray:
    """Return log10 of the mean square [T] of `values` [T, H, W]."""
    return np.log10((values**2).mean(axis=(1, 2)) + 1e-10)


def lean_way() -> Callable[[torch.nn.Module], AbstractContextManager]:
    """Return the pack's context for a decode."""
    from benchmarks.gpu.comfyui import pack_module

    return pack_module("nodes.bridge.lean_decode").lean


def decoded(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of decoding a latent, its frames)."""
    vae, lean = random_vae(sizes.vae_dim), lean_way()
    random = torch.Generator().manual_seed(5)
    latent = torch.randn(1, 16, sizes.decoded_slots, sizes.decoded_side, sizes.decoded_side, generator=random)

    def run(way: Callable[[torch.nn.Module], AbstractContextManager]) -> tuple[float, list[torch.Tensor]]:
        with torch.inference_mode(), way(vae.decoder):
            return timed(lambda: [vae.decode(latent)])

    return lambda: run(lambda decoder: nullcontext()), lambda: run(lean)


class Written(TorchDispatchMode):
    """Counts the bytes that operations write, into new tensors and in place, and those of new tensors."""

    def __init__(self):
        super().__init__()
        self.written, self.made = 0, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        for result, value in zip(operator._schema.returns, out if isinstance(out, tuple) else (out,), strict=False):
            if isinstance(value, torch.Tensor) and (result.alias_info is None or result.alias_info.is_write):
                self.written += value.nbytes
                self.made += value.nbytes if result.alias_info is None else 0
        return out


def decode_bytes(sizes, column: str) -> dict[str, object]:
    """Return the GB that decoding a whole clip in bf16 writes, counted on tensors without data; `column` names the count."""
    _, vae_module = lean_way(), importlib.import_module("comfy.ldm.wan.vae")
    lean, found = lean_way(), {}
    vae = random_vae(sizes.vae_dim).to(torch.bfloat16)
    vae.to("meta")
    slots = (sizes.num_frames - 1) // 4 + 1
    for name, way in (("before", lambda decoder: nullcontext()), ("after", lean)):
        latent = torch.empty(1, 16, slots, sizes.height // 8, sizes.width // 8, device="meta", dtype=torch.bfloat16)
        state = [None] * vae_module.count_cache_layers(vae.decoder)
        with torch.inference_mode(), Written() as counted:
            for start in (0, *range(1, slots, 2)):
                with way(vae.decoder):
                    vae.decoder(latent[:, :, start : start + (2 if start else 1)], feat_cache=state, feat_idx=[0])
        found[name] = [getattr(counted, column) / 1e9]
    return {**found, "deviation": ""}
