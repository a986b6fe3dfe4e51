"""The work of a study, shared between processes: bases, units of base and LoRA, cheats, and the diagnosis of the bases."""

import logging
import multiprocessing
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.loop.report import table
from benchmarks.machine import commit
from demo.models.comfy_import import import_comfy
from demo.world.scenes import HELD_OUT_SEED
from svi_core.flow.flow_matching import make_flow_sample, training_sigmas
from training.method.streams import stream

from ..drift import StudyError
from .arms import BASE
from .base import clean_loss, train_base
from .codec import LinearCodec
from .data import Chain, StoryData, condition, prepare
from .diagnosis import diagnose
from .finetune import train_lora
from .model import detach_lora, load_base, predict, save_base
from .rollout import GeneratedClip, Scenes, make_scenes, roll_out
from .scoring import Reference, make_reference, score, true_chains
from .study import Study, Unit, base_path, require_same_study, result_path, write_json

_log = logging.getLogger(__name__)
TRUTH = "truth"
DARKER_TRUTH = "truth, 3 % darker"
DARKER = 0.97
STRIP_SCENES = 4  # rows and columns of the picture kept of each unit
STRIP_CLIPS = 6


@dataclass(frozen=True)
class Workshop:
    """A process's share of a study, made once; `commit` is that of the imported code."""

    study: Study
    folder: Path
    commit: str
    codec: LinearCodec
    training: StoryData
    validation: StoryData


def open_workshop(study: Study, folder: Path) -> Workshop:
    """Import ComfyUI and read or make the data. One thread a process: the models are too small for more.

    Raises:
        StudyError: see :func:`require_same_study`.
    """
    torch.set_num_threads(1)
    import_comfy()
    require_same_study(study, folder)
    return Workshop(study, folder, commit(), *prepare(folder / "data", study.source, study.num_stories))


def run_study(study: Study, folder: Path, chains: Iterable[Chain], arm_names: Iterable[str], num_workers: int) -> None:
    """Run what is missing: the bases, then for each chain and unit the arms called `arm_names`."""
    open_workshop(study, folder)  # the data is written by one process only
    arm_names = list(arm_names)
    tasks = []
    for chain in chains:
        tasks.append([partial(make_base, chain=chain, seed=seed) for seed in study.base_seeds])
        tasks.append([partial(run_unit, chain=chain, unit=unit, arm_names=arm_names) for unit in study.units])
        tasks.append([partial(run_cheats, chain=chain)])
    if num_workers == 1:
        workshop = open_workshop(study, folder)
        for task in (task for stage in tasks for task in stage):
            task(workshop)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_worker, (study, folder)) as pool:
        for stage in tasks:
            for done in as_completed([pool.submit(_work, task) for task in stage]):
                done.result()


_workshop: Workshop | None = None  # of a worker process


def _start_worker(study: Study, folder: Path) -> None:
    global _workshop  # noqa: PLW0603 - made once for every task of the process
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _workshop = open_workshop(study, folder)


def _work(task) -> None:
    task(_workshop)


def make_base(workshop: Workshop, chain: Chain, seed: int) -> None:
    """Train a base, if it is missing."""
    path, study = base_path(workshop.folder, chain, seed), workshop.study
    if path.exists():
        return
    began, losses = time.monotonic(), []

    def tell(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 100 == 0:
            _log.info("%s, base %d: step %d, loss %.4f", chain, seed, step, np.mean(losses[-100:]))

    codec = workshop.codec
    model = train_base(codec, workshop.training, chain, seed, study.base_steps, study.base_batch, tell)
    stories = {"training": workshop.training, "held-out": workshop.validation}
    found = {f"{kind} loss": clean_loss(model, codec, data, chain) for kind, data in stories.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), {**found, "seconds": time.monotonic() - began, "commit": workshop.commit})
    save_base(model, path)


def run_unit(workshop: Workshop, chain: Chain, unit: Unit, arm_names: list[str]) -> None:
    """Measure the base and the arms called `arm_names` of one unit, if they are missing."""
    study = workshop.study
    missing = [name for name in (BASE, *arm_names) if not result_path(workshop.folder, chain, unit, name).exists()]
    if not missing:
        return
    model = load_base(base_path(workshop.folder, chain, unit.base_seed))
    scenes = make_scenes(study.source, HELD_OUT_SEED, study.num_scenes, study.num_clips)
    reference = make_reference(workshop.codec, chain, scenes)
    for name in missing:
        began, trained = time.monotonic(), {}
        if name != BASE:
            seed = 1000 * unit.base_seed + unit.lora_seed
            data, fine_tuning = workshop.training, study.fine_tuning
            out = train_lora(model, workshop.codec, data, chain, study.arms[name], fine_tuning, seed)
            trained = {"bank_rms": out.bank_rms, "bank_fill": out.bank_fill, "losses": _thinned(out.losses)}
            trained |= {"injected_rms": out.injected_rms, "injected_focused_rms": out.injected_focused_rms}
        seconds = time.monotonic() - began
        found = measure_arm(workshop, model, chain, unit, name, scenes, reference)
        write_json(
            result_path(workshop.folder, chain, unit, name),
            {**found, **trained, "training_seconds": seconds, "seconds": time.monotonic() - began, "commit": workshop.commit},
        )
        _log.info("%s, %s, %s: drift %.3f, %s", chain, unit.name, name, found["drift"], found["verdict"])
        detach_lora(model)


def measure_arm(workshop: Workshop, model, chain: Chain, unit: Unit, name: str, scenes: Scenes, reference: Reference) -> dict:
    """Roll out, score, and compare the loss on rolled-out conditioning with that on true conditioning."""
    kept: list[GeneratedClip] = []

    def clips() -> Iterable[np.ndarray]:
        seed = 1000 * unit.base_seed + unit.lora_seed
        for clip in roll_out(model, workshop.codec, chain, scenes, workshop.study.sample_steps, seed):
            kept.append(clip)
            yield clip.frames

    scores = asdict(score(chain, scenes, reference, clips()))
    write_strip(result_path(workshop.folder, chain, unit, name).with_suffix(".png"), [clip.frames for clip in kept])
    found = {"clean_loss": clean_loss(model, workshop.codec, workshop.validation, chain)}
    if scenes.num_known > 1:  # otherwise no known clip has one before it
        losses = condition_losses(workshop.codec, model, chain, scenes, [clip.y_latent for clip in kept])
        found |= {"true_start_loss": losses[0], "rolled_start_loss": losses[1]}
    return {**scores, **found}


@torch.no_grad()
def condition_losses(codec: LinearCodec, model, chain: Chain, scenes: Scenes, y_latents: list[Tensor]) -> tuple[float, float]:
    """Return the velocity loss on the last known clip, given true conditioning, and given the chain's."""
    clip = scenes.num_known - 1
    before, target = (codec.encode(torch.stack([t.frames[k] for t in scenes.truth])) for k in (clip - 1, clip))
    anchor = codec.encode(scenes.first_frames())[:, :, 0]
    true = condition(codec, chain, target[:, :, 0], before[:, :, -1], anchor)
    sigma = training_sigmas()[torch.linspace(20, 980, len(target)).long()]
    noise = torch.stack([torch.randn(target.shape[1:], generator=stream(0, clip, seed, "loss")) for seed in scenes.seeds])
    sample = make_flow_sample(target, noise, sigma)
    losses = [
        float((predict(model, sample.noisy_latent, y, sigma, scenes.text_of(clip)) - sample.velocity).square().mean())
        for y in (true, y_latents[clip])
    ]
    return losses[0], losses[1]


def diagnose_bases(study: Study, folder: Path) -> str:
    """Diagnose the existing one-frame bases, save the measures as JSON, and return their table.

    Raises:
        StudyError: there are none.
    """
    paths = {seed: base_path(folder, Chain.ONE_FRAME, seed) for seed in study.base_seeds}
    paths = {seed: path for seed, path in paths.items() if path.exists()}
    if not paths:
        raise StudyError(f"{folder} holds no base: `run --study {study.name} --chain one-frame` makes them.")
    workshop, found = open_workshop(study, folder), {}
    for seed, path in paths.items():
        codec, data = workshop.codec, workshop.training
        own = diagnose(load_base(path), codec, study.source, data, study.recycling, study.sample_steps)
        found[seed] = asdict(own)
    write_json(folder / "diagnosis.json", {"commit": workshop.commit, "bases": found})
    rows = [[seed, *(f"{value:.3f}" for value in own.values())] for seed, own in found.items()]
    head = ["base", "codec's loss", "last frame's error", "bank", "injected", "missing", "gain", "common", "own"]
    return table(head, rows) + "\n"


def run_cheats(workshop: Workshop, chain: Chain) -> None:
    """Score cheats, which only look like a long video, with the same code: none may pass, but a darker truth must.

    The truth itself is valid by construction; its row shows the cost of the codec alone.
    """
    study = workshop.study
    path = workshop.folder / "results" / chain.name.lower() / "cheats.json"
    if path.exists():
        return
    scenes = make_scenes(study.source, HELD_OUT_SEED, study.num_scenes, study.num_clips)
    reference = make_reference(workshop.codec, chain, scenes)
    true = list(true_chains(workshop.codec, scenes))
    first = true[0]
    clips = {
        "copied first frame": lambda clip: first[:, :1].repeat(first.shape[1], axis=1),
        "repeated first clip": lambda clip: first,
        "there and back": lambda clip: first[:, ::-1] if clip % 2 else first,
    }
    if scenes.num_known == scenes.num_clips:
        clips[TRUTH] = lambda clip: true[clip]
        clips[DARKER_TRUTH] = lambda clip: (DARKER * true[clip]).astype(np.uint8)
    made = {name: score(chain, scenes, reference, (clip(k) for k in range(study.num_clips))) for name, clip in clips.items()}
    write_json(path, {name: asdict(scores) for name, scores in made.items()})


def write_strip(path: Path, clips: list[np.ndarray]) -> None:
    """Write a picture: a row per scene, last frames of clips spread over the chain."""
    chosen = np.linspace(0, len(clips) - 1, min(STRIP_CLIPS, len(clips))).round().astype(int)
    rows = [np.concatenate([clips[k][scene, -1] for k in chosen], axis=1) for scene in range(min(STRIP_SCENES, len(clips[0])))]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def _thinned(values: tuple[float, ...], count: int = 20) -> list[float]:
    """Return means over `count` equal parts."""
    return [float(part.mean()) for part in np.array_split(np.array(values), min(count, len(values)))]


def num_cores() -> int:
    """Return the number of usable cores."""
    return os.cpu_count() or 1
