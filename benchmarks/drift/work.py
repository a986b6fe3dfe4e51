"""The work of a study, shared between processes: bases, gates, units of base and LoRA, cheats."""

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.machine import commit
from svi_core.video.video_file import to_uint8
from training.method.streams import stream
from training.method.verdict import judge

from .arms import BASE, FULL, PLAIN
from .base import clean_loss, train_base
from .codec import Codec, fit_codec
from .data import Chain
from .diagnosis import NUM_CLIPS, measure_base, random_gain
from .finetune import Subject, load_lora, save_lora, set_strength, train_lora
from .losses import ALL, MAIN_LOSSES, REGIMES, Losses
from .model import load_model, open_comfy, save_model
from .rollout import roll_out
from .scoring import Reference, make_reference, score
from .study import Study, Unit, base_path, other_losses_path, require_same_study, result_path, write_json
from .world import Scenes, World, draw_scenes, num_frames

_log = logging.getLogger(__name__)
SCENES_SEED, VALIDATION_SEED = 7, 99
OTHERS, FADED_TRUTH = "truth of other scenes", "truth, a third of the contrast"
STRIP_SCENES, STRIP_CLIPS = 4, (0, 9, 19, 29)  # rows and columns of the picture kept of each unit


@dataclass(frozen=True)
class Workshop:
    """A process's share of a study, made once; `commit` is that of the imported code."""

    study: Study
    folder: Path
    commit: str
    codec: Codec


@dataclass(frozen=True)
class Stage:
    """Held-out scenes of a layout with what their truth looks like, encoded and decoded as the chain's clips are."""

    chain: Chain
    scenes: Scenes
    truth: tuple[Tensor, ...]
    reference: Reference


def open_workshop(study: Study, folder: Path) -> Workshop:
    """Import ComfyUI and fit the codec.

    Raises:
        StudyError: see :func:`require_same_study`.
    """
    open_comfy()
    require_same_study(study, folder, record=True)
    return Workshop(study, folder, commit(), fit_codec())


def make_stage(study: Study, codec: Codec, chain: Chain, lossy: bool = True) -> Stage:
    """Draw the scenes of all roll-outs of a layout; the truth has the VAE's loss if it is `lossy`, as the chain's clips do."""
    frames = num_frames(study.num_clips, chain.overlap)
    scenes = draw_scenes(World.ENDLESS, study.num_scenes, frames, stream(SCENES_SEED, 0, 0, "scenes"))
    latents = [codec.encode(scenes.clip(index, chain.overlap)) for index in range(study.num_clips)]
    truth = tuple(codec.decode(latent, lossy).clamp(0, 1) for latent in latents)
    return Stage(chain, scenes, truth, make_reference(chain, truth))


def run_study(
    study: Study,
    folder: Path,
    chains: Iterable[Chain],
    arm_names: Iterable[str],
    num_workers: int,
    check_gates: Callable[[], None] = lambda: None,
    units: tuple[Unit, ...] = (),
) -> None:
    """Run what is missing: the bases, then the arms called `arm_names`, unit by unit, the main ones first.

    `units` are those to run, all by default. A study can be shared out over machines by its bases: the same seed gives
    another base on another processor, so all units of a base belong together. The gates are then those of these units.
    `check_gates` is called when the bases and, with Film, the arms that the gates look at are there, before any other starts.
    """
    arm_names, units = list(arm_names), units or study.units
    gated = [(unit, name) for unit in units for name in (BASE, PLAIN)] if Chain.FILM in chains else []
    first = [partial(make_base, world=World.ENDLESS, seed=seed) for seed in dict.fromkeys(own.base_seed for own in units)]
    second = [partial(run_arm, chain=Chain.FILM, unit=unit, name=name) for unit, name in gated]
    rest = list(_unit_tasks(study, chains, arm_names, units))
    rest += [partial(run_cheats, chain=chain) for chain in chains]
    rest += [
        partial(make_base, world=World.FEW, seed=seed)
        for seed in study.base_seeds[:1]
        if seed in {own.base_seed for own in units}
    ]
    with _workers(study, folder, num_workers) as run:
        run(first)
        run(second)
        check_gates()
        run(rest)


@contextmanager
def _workers(study: Study, folder: Path, count: int) -> Iterator[Callable[[list[partial]], None]]:
    """Give a function that does tasks, in `count` processes or here if that is 1, and returns when all are done."""
    if count == 1:
        workshop = open_workshop(study, folder)

        def run(tasks: list[partial]) -> None:
            for task in tasks:
                task(workshop)

        yield run
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start_worker, (study, folder)) as pool:

        def run(tasks: list[partial]) -> None:
            for done in as_completed([pool.submit(_work, task) for task in tasks]):
                done.result()

        yield run


def _unit_tasks(study: Study, chains: Iterable[Chain], arm_names: list[str], units: Sequence[Unit]) -> Iterator[partial]:
    """Yield the arms in the order of their worth: all units of the main comparison, the other layouts, the other arms."""
    wanted = [(chain, arm) for chain in chains for arm in study.arms_of(chain) if arm == BASE or arm in arm_names]
    wanted.sort(key=lambda own: len(study.units_of(*own)), reverse=True)
    with_losses = [own for own in wanted if own[0] is Chain.FILM and own[1] in (BASE, PLAIN, FULL)]
    is_main = [own for own in wanted if len(study.units_of(*own)) == len(study.units)]
    others = [own for own in wanted if own not in is_main]
    for group in (is_main, others):
        for unit in units:
            yield from (
                partial(run_arm, chain=chain, unit=unit, name=arm) for chain, arm in group if unit in study.units_of(chain, arm)
            )
        if group is is_main:
            for unit in (own for own in units if own in study.units[: study.few_units]):
                yield from (partial(run_other_losses, chain=chain, unit=unit, name=arm) for chain, arm in with_losses)


_workshop: Workshop | None = None  # of a worker process


def _start_worker(study: Study, folder: Path) -> None:
    global _workshop  # noqa: PLW0603 - made once for every task of the process
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _workshop = open_workshop(study, folder)


def _work(task) -> None:
    task(_workshop)


def make_base(workshop: Workshop, world: World, seed: int) -> None:
    """Train a base, if it is missing; goes on from its checkpoint."""
    path, study, codec = base_path(workshop.folder, world, seed), workshop.study, workshop.codec
    if path.exists():
        return
    losses: list[float] = []

    def tell(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 100 == 0:
            _log.info("base %d: step %d, loss %.4f", seed, step, np.mean(losses[-100:]))

    began, checkpoint = time.process_time(), path.with_suffix(".pt")
    model = train_base(codec, world, seed, study.base, checkpoint, tell)
    found = {
        "training loss": clean_loss(model, codec, world, Chain.FILM, seed, trained_on=True),
        "held-out loss": clean_loss(model, codec, world, Chain.FILM, VALIDATION_SEED),
        "gain of noise": random_gain(model, codec, world),
        "diagnosis": _diagnosed(study, model, codec, world),
        "seconds": time.process_time() - began,
        "commit": workshop.commit,
    }
    write_json(path.with_suffix(".json"), found)
    save_model(model, path)
    checkpoint.unlink(missing_ok=True)


def _diagnosed(study: Study, model, codec: Codec, world: World) -> dict:
    measures = measure_base(model, codec, world, MAIN_LOSSES, study.recycling, min(study.num_clips, NUM_CLIPS))
    return {**measures.as_dict(), "verdict": str(judge(measures))}


def run_arm(workshop: Workshop, chain: Chain, unit: Unit, name: str) -> None:
    """Train and measure one arm of one unit, if it is missing."""
    path, study = result_path(workshop.folder, chain, unit, name), workshop.study
    if path.exists():
        return
    began, seed = time.process_time(), 1000 * unit.base_seed + unit.lora_seed
    model = load_model(base_path(workshop.folder, World.ENDLESS, unit.base_seed))
    subject, stage, found = Subject(model, workshop.codec, World.ENDLESS, chain), make_stage(study, workshop.codec, chain), {}
    if name != BASE:
        out = train_lora(subject, study.arms[name], study.fine_tuning, seed)
        found = {"bank_rms": out.bank_rms, "losses": _thinned(out.losses), "injected_rms": out.injected_rms}
        found["training_seconds"] = time.process_time() - began
        save_lora(out.adapters, path.with_suffix(".safetensors"))
    found["clean_loss"] = clean_loss(model, workshop.codec, World.ENDLESS, chain, VALIDATION_SEED)
    found["chains"] = {own.name: _measured(workshop, stage, model, own, seed, path) for own in (MAIN_LOSSES, ALL)}
    write_json(path, {**found, "seconds": time.process_time() - began, "commit": workshop.commit})
    main = found["chains"][MAIN_LOSSES.name]
    _log.info("%s, %s, %s: loss %.2f, contrast %.2f", chain, unit.name, name, main["loss"], main["contrast"][-1])


def run_other_losses(workshop: Workshop, chain: Chain, unit: Unit, name: str) -> None:
    """Measure a finished arm with each loss alone, and the full method's LoRA at other strengths, if it is missing."""
    path, study = result_path(workshop.folder, chain, unit, name), workshop.study
    target = other_losses_path(path)
    if target.exists():
        return
    model, seed = load_model(base_path(workshop.folder, World.ENDLESS, unit.base_seed)), 1000 * unit.base_seed + unit.lora_seed
    stages, chains = {lossy: make_stage(study, workshop.codec, chain, lossy) for lossy in (False, True)}, {}
    adapters = None if name == BASE else load_lora(model, path.with_suffix(".safetensors"), study.fine_tuning.rank)
    for losses in REGIMES:
        if losses not in (MAIN_LOSSES, ALL):
            chains[losses.name] = _measured(workshop, stages[losses.vae], model, losses, seed)
    if name == FULL and adapters is not None:
        for strength in study.strengths:
            set_strength(adapters, strength)
            chains[f"strength {strength}"] = _measured(workshop, stages[True], model, MAIN_LOSSES, seed)
    write_json(target, {"chains": chains, "commit": workshop.commit})


def _measured(workshop: Workshop, stage: Stage, model, losses: Losses, seed: int, picture: Path | None = None) -> dict:
    """Roll out, score, and draw a strip beside the result `picture` of the main losses."""
    num_clips = workshop.study.num_clips
    clips = [frames for frames, _ in roll_out(model, workshop.codec, stage.chain, stage.scenes, losses, num_clips, seed)]
    if picture is not None and losses is MAIN_LOSSES:
        write_strip(picture.with_suffix(".png"), clips)
    return asdict(score(stage.chain, stage.reference, clips, list(stage.truth)))


def run_cheats(workshop: Workshop, chain: Chain) -> None:
    """Score cheats, which only look like a long video, with the same code: none may pass, but a darker truth must.

    What other scenes' truth and a third of the contrast give shows what the figures see: quality is blind to the scene.
    """
    path = workshop.folder / "results" / chain.name.lower() / "cheats.json"
    if path.exists():
        return
    stage = make_stage(workshop.study, workshop.codec, chain)
    first, truth = stage.truth[0], list(stage.truth)
    made = {
        "copied first frame": [first[:, :1].expand_as(first)] * len(truth),
        "repeated first clip": [first] * len(truth),
        "there and back": [first.flip(1) if clip % 2 else first for clip in range(len(truth))],
        "truth": truth,
        "truth, 3 % darker": [0.97 * own for own in truth],
        OTHERS: [own.roll(1, 0) for own in truth],
        FADED_TRUTH: [own.mean((3, 4), keepdim=True).lerp(own, 1 / 3) for own in truth],
    }
    write_strip(path.with_name("truth.png"), truth)
    write_json(path, {name: asdict(score(chain, stage.reference, clips, truth)) for name, clips in made.items()})


def write_strip(path: Path, clips: list[Tensor]) -> None:
    """Write a picture: a row per scene, last frames of clips spread over the chain, two pixels for each."""
    columns = [clips[index][:STRIP_SCENES, -1] for index in STRIP_CLIPS if index < len(clips)]
    rows = torch.cat([torch.cat(list(own), dim=1) for own in columns], dim=2)
    pixels = to_uint8(rows.permute(1, 2, 0)).repeat(2, axis=0).repeat(2, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _thinned(values: tuple[float, ...], count: int = 20) -> list[float]:
    """Return means over `count` equal parts."""
    return [float(part.mean()) for part in np.array_split(np.array(values), min(count, len(values)))]
