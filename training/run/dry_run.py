"""A dry run: describe the training run, and measure the time and memory of one real step."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from svi_core.geometry import num_pixel_frames
from svi_core.look.filmstrip import StripRow, draw_filmstrip, pick_frames, spread
from svi_core.video.video_file import to_uint8
from training.data.dataset import TrainingExample
from training.method.erft_step import draw, predict, weighted_losses
from training.method.trainer import Trainer
from training.model import encoders
from training.model.encoder_files import find_encoder
from training.run.checkpoint import checkpoint_bytes
from training.run.error_source import ErrorSource
from training.run.progress import peak_memory_bytes
from training.settings.sections import BankStorageKind

FRAMES_PER_ROW = 5
GIB = 2**30


def dry_run_text(trainer: Trainer, run: Path, source: ErrorSource | None = None) -> str:
    """Return a description of the training run, and draw its first batch into the folder `run`.

    It runs one step without the optimizer, to measure time and memory.

    Args:
        trainer: the run's parts.
        run: its folder.
        source: where image errors come from; None: from the run's own bank.

    Raises:
        ValueError: a kernel or a file that the settings ask for is missing.
    """
    seconds, peak = time_step(trainer)
    picture = draw_first_batch(trainer, run / "first_batch.png") if trainer.group.is_first else None
    lines = [
        *_model_lines(trainer),
        *_data_lines(trainer),
        *_method_lines(trainer, source),
        *_cost_lines(trainer, seconds, peak),
    ]
    return "\n".join([*lines, f"first batch   {picture}"])


def time_step(trainer: Trainer) -> tuple[float, int]:
    """Return the seconds of one optimizer step and its peak memory in bytes, without the optimizer's state.

    The first pass warms up and is not counted, unless it takes so long that it has to be the only one.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = _time_pass(trainer)
    if seconds < 60:
        seconds = _time_pass(trainer)
    return seconds * trainer.config.loop.accumulation, peak_memory_bytes()


def draw_first_batch(trainer: Trainer, path: Path) -> Path:
    """Draw the first batch, decoded by the VAE: for each example a row of its target and a row of its conditioning."""
    vae = encoders.load_vae(find_encoder(trainer.config.model, "vae"))
    rows = []
    for slot in range(trainer.config.loop.batch_size):
        example = trainer.data.example(trainer.config.seed, 0, slot)
        rows.append(_row(encoders.decode(vae, example.latent), example, "to be generated"))
        rows.append(_row(encoders.decode(vae, example.y_latent), example, "known (slot 0), motion and padding"))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_filmstrip(rows)).save(path)
    return path


def _time_pass(trainer: Trainer) -> float:
    """Return the seconds of one forward and backward pass of a batch."""
    began = time.perf_counter()
    batch = [
        draw(trainer, trainer.data.example(trainer.config.seed, 0, slot), 1, slot)
        for slot in range(trainer.config.loop.batch_size)
    ]
    weighted_losses(predict(trainer, batch), batch).sum().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    trainer.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def _row(chunks: Iterator[Tensor], example: TrainingExample, what: str) -> StripRow:
    wanted = spread(num_pixel_frames(example.latent.shape[1]), FRAMES_PER_ROW)
    picked = pick_frames((frame for chunk in chunks for frame in to_uint8(chunk)), wanted)
    return StripRow(tuple(picked[index] for index in wanted), f"{example.name}: {what}")


def _model_lines(trainer: Trainer) -> list[str]:
    backbone, config, execution = trainer.backbone, trainer.config, trainer.execution
    ids = trainer.timesteps
    sigmas = f"{float(trainer.sigmas[ids.first_id]):.3f} .. {float(trainer.sigmas[ids.end_id - 1]):.3f}"
    sound = ["sound         through MultiTalk's audio layers, which stay frozen"] if backbone.speech else []
    poses = [f"pose encoder  {trainer.poses.num_parameters:,} trained parameters"] if trainer.poses else []
    return [
        f"model         {backbone.name} ({config.model.expert}: timesteps {ids.first_id} .. {ids.end_id - 1}, sigma {sigmas})",
        f"weights       {execution.weights} in the blocks, computed in {execution.compute} on {backbone.device}",
        f"matmul        {execution.matmul}",
        f"attention     {execution.attention}",
        f"LoRA          {len(trainer.lora.pairs)} layers, {trainer.lora.num_parameters:,} trained parameters, "
        f"rank {trainer.lora.rank}, alpha {trainer.lora.alpha:g}",
        *([f"begins from   {trainer.start}"] if trainer.start else []),
        *poses,
        *sound,
    ]


def _data_lines(trainer: Trainer) -> list[str]:
    data, per_step = trainer.data, trainer.examples_per_step
    epochs = trainer.num_steps * per_step / len(data)
    first = data.example(trainer.config.seed, 0, 0)
    return [
        f"examples      {len(data)} to learn from, {data.num_held_out} held out; latents up to {list(first.latent.shape)}",
        f"draws         {trainer.config.data.variants} for each window (data.variants), the same in every pass over the data",
        *_first_frame_lines(trainer),
        f"steps         {trainer.num_steps} of {per_step} examples ({epochs:.1f} passes over the data), "
        f"{trainer.config.optimizer.name} at {trainer.config.optimizer.learning_rate:g}",
    ]


def _first_frame_lines(trainer: Trainer) -> list[str]:
    data = trainer.config.data
    if not data.first_frame_draws:
        return []
    share = data.p_motion * data.first_frame_prob
    return [
        f"first frame   augmented in {100 * share:.0f} % of the examples, one of {data.first_frame_draws} versions of each "
        "(data.first_frame_draws)"
    ]


def _method_lines(trainer: Trainer, source: ErrorSource | None) -> list[str]:
    recycling = trainer.config.recycling
    if not recycling.injects:
        return ["recycling     none: plain LoRA training"]
    shares = [
        f"{name} {(1 - recycling.clean_prob) * probability:.3g}"
        for name, probability in (
            ("image", recycling.image_prob),
            ("latent", recycling.latent_prob),
            ("noise", recycling.noise_prob),
        )
    ]
    shape = trainer.data.example(trainer.config.seed, 0, 0).latent.shape
    where = "on disk" if trainer.config.bank.storage is BankStorageKind.FILE else "in RAM and in each checkpoint"
    size = trainer.banks.memory_bytes(shape)
    return [
        f"recycling     share of examples with an error: {', '.join(shares)}; clean {recycling.clean_prob:g}",
        f"error bank    at most {size / GIB:.3f} GiB for each process {where} at the end "
        f"({recycling.num_grids} noise levels, up to {recycling.capacity} errors each)",
        *(_image_error_lines(trainer, source) if recycling.image_prob else []),
    ]


def _image_error_lines(trainer: Trainer, source: ErrorSource | None) -> list[str]:
    """Say where image errors come from, with the noise levels of their cells."""
    expert = trainer.config.model.expert
    if source is None:
        text = "image errors  from this run's own bank"
        if expert == "high":
            text += (
                ": errors of the high-noise expert, but a chain hands over what the low-noise expert made. Train that one "
                "first and name its run as bank.image_errors_from"
            )
        return [text]
    facts, fills = source.facts, list(map(sum, zip(*source.fills.values(), strict=True)))  # of all sizes
    filled = [cell for cell, fill in enumerate(fills) if fill]
    sigmas = facts.grid.sigmas
    return [
        f"image errors  from {source.name}: {sum(fills)} errors of the {facts.expert} expert after step {facts.step}, cells "
        f"{filled[0]} to {filled[-1]} (sigma {sigmas[filled[0]]:.3f} .. {sigmas[filled[-1]]:.3f})"
    ]


def _cost_lines(trainer: Trainer, seconds: float, peak: int) -> list[str]:
    state = {"AdamW": 8, "AdamW8bit": 2}.get(trainer.config.optimizer.name, 8) * trainer.num_parameters
    total = seconds * trainer.num_steps
    where = "GPU" if torch.cuda.is_available() else "process"
    return [
        f"seconds/step  {seconds:.2f} measured; {math.floor(total / 3600)} h {total % 3600 / 60:.0f} min for all steps",
        f"memory        {peak / GIB:.2f} GiB peak of the {where} measured in one step, "
        f"and {state / GIB:.2f} GiB of optimizer state",
        f"checkpoint    about {checkpoint_bytes(trainer) / GIB:.2f} GiB each, {trainer.config.loop.keep_checkpoints} are kept",
    ]
