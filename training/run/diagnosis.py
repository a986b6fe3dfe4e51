"""Diagnose the model of a run: chain it on held-out clips, measure, judge, and say so as text, JSON and a picture.

`training.method.diagnosis` measures, `training.method.verdict` judges.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from svi_core.files.sealed_json import write_sealed
from svi_core.look.fade import ClipLook, joined, look_at
from svi_core.look.filmstrip import StripRow, draw_filmstrip, spread
from svi_core.recycling.error_bank import ErrorBank
from svi_core.recycling.error_recycling import make_bank
from svi_core.systems.layouts import Padding
from svi_core.video.video_file import to_uint8
from training.data.windows import error_slots
from training.method.diagnosis import fill_bank, gain, injected_rms, rms, take_measures
from training.method.erft_step import conditions_of
from training.method.streams import stream
from training.method.trainer import Trainer
from training.method.verdict import Measures, Verdict, judge
from training.run.chains import ChainClip, Chains, HeldOutScene, clip_name
from training.run.diagnosis_report import FILE_NAME
from training.run.progress import MakeDiagnosis, no_diagnosis
from training.run.report import write_diagnosis_report
from training.run.run_folder import RunFolder
from training.run.samples import made_or_skipped

MIN_ERRORS = 48  # one-step errors, over all noise levels
SCENES_SHOWN, CLIPS_SHOWN = 4, 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Diagnosis:
    """What a diagnosis found.

    Attributes:
        measures: the numbers.
        verdict: what they mean.
        picture: [H, W, 3] uint8, for some scenes the last frames of the held-out clip and of the chain's clips.
    """

    measures: Measures
    verdict: Verdict
    picture: np.ndarray

    def as_dict(self) -> dict[str, object]:
        """Return all but the picture as plain data."""
        verdict = {"answer": self.verdict.answer.value, "reason": self.verdict.reason, "notes": list(self.verdict.notes)}
        return {**verdict, "measures": self.measures.as_dict()}

    def save_picture(self, path: Path) -> None:
        """Write the picture to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.picture).save(path)

    def save(self, folder: Path) -> Path:
        """Write diagnosis.json, diagnosis.png and report.html into `folder`; return the path of the report.

        Raises:
            ValueError: the settings of the training run in `folder` cannot be read.
        """
        picture = folder / "diagnosis.png"
        self.save_picture(picture)
        write_sealed(folder / FILE_NAME, {**self.as_dict(), "picture": picture.name})
        return write_diagnosis_report(folder)


@dataclass(frozen=True)
class _Chained:
    """The chain of one scene: looks of the truth and of each clip, the error that clip 1 hands over, frames to show."""

    truth: ClipLook
    clips: list[ClipLook]
    known: Tensor
    error: Tensor
    row: StripRow


def diagnose(trainer: Trainer, chains: Chains, should_stop: Callable[[], bool] = lambda: False) -> Diagnosis:
    """Diagnose the model as it is now.

    Raises:
        SampleAbandoned: `should_stop` became True.
        ValueError: a clip holds NaN or infinite values.
    """
    with chains.scenes(should_stop) as scenes:
        chained = [_chain(scene, f"{number} of {len(scenes)}") for number, scene in enumerate(scenes, start=1)]
        errors, known = torch.stack([chain.error for chain in chained]), torch.stack([chain.known for chain in chained])
        signal = rms(torch.stack([scene.example.latent for scene in scenes]))
        gains = gain(lambda slots: _handed_over(scenes, slots), known, errors, signal)
    bank, levels = _fill(trainer, scenes)
    layout = trainer.config.data.svi_layout
    measures = take_measures(
        chain=[joined(looks) for looks in zip(*(chain.clips for chain in chained), strict=True)],
        truth=joined([chain.truth for chain in chained]),
        gains=gains,
        errors=errors,
        bank=bank,
        injected=_injected(trainer, bank, levels, scenes[0].example.latent.shape),
        signal=signal,
        has_anchor=layout.padding is not Padding.GREY_FRAMES,
    )
    measures = replace(measures, num_scenes=len({clip_name(scene.example) for scene in scenes}))  # clips, not their windows
    rows = [chain.row for chain in chained[:SCENES_SHOWN]]
    return Diagnosis(measures, judge(measures), draw_filmstrip(rows, frame_width=160))


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the measures as a table, and the verdict."""
    found = diagnosis.measures
    shown = spread(found.num_clips, min(found.num_clips, 10))
    names = {"contrast": found.contrast, "fine detail": found.spectrum, "motion": found.motion}
    names |= {"saturation": found.saturation, "colours": found.colour}
    injected = "none" if found.injected is None else f"{found.injected:.3f}"
    return "\n".join([
        f"chained       {found.num_scenes} held-out clips, {found.num_clips} clips from each",
        f"gain          {found.gain} of a small error in the known frames arrives at the end of the clip",
        f"{'clip':<14}{''.join(f'{index + 1:>7}' for index in shown)}",
        *(f"{name:<14}{''.join(f'{clips[i].value:7.2f}' for i in shown)}  {_unit(name)}" for name, clips in names.items()),
        f"sigma         {_numbers(sigma for sigma, _ in _cells(found))}",
        f"error/signal  {_numbers(ratio for _, ratio in _cells(found))}  of one-step errors on true clips",
        f"common        {found.common:.2f} of the error that clip 1 hands over is the same in all scenes",
        f"sizes         of the latents': {found.handed_over:.3f} handed over by clip 1, {injected} injected into known frames",
        f"verdict       {diagnosis.verdict}",
    ])  # fmt: skip


def make_diagnoser(trainer: Trainer, run: RunFolder) -> MakeDiagnosis:
    """Return a function that diagnoses the model of the current step, for training; the first process calls it.

    Raises:
        ValueError: see :class:`Chains`.
    """
    if not trainer.config.diagnosis.every or not trainer.group.is_first:
        return no_diagnosis
    chains = Chains(trainer)

    def make(should_stop: Callable[[], bool]) -> dict[str, object] | None:
        found = made_or_skipped(lambda: diagnose(trainer, chains, should_stop), f"the diagnosis of step {trainer.step}")
        if found is None:
            return None
        picture = run.path / "diagnosis" / f"step_{trainer.step:08d}.png"
        found.save_picture(picture)
        _log.info("SVI: diagnosis of step %d: %s", trainer.step, found.verdict)
        return {**found.as_dict(), "picture": picture.relative_to(run.path).as_posix(), **_scalars(found.measures)}

    return make


def _scalars(measures: Measures) -> dict[str, object]:
    """Return the numbers that show in TensorBoard; fade is that of the last clip."""
    last = {name: getattr(measures, name)[-1].value for name in ("contrast", "spectrum", "motion", "saturation", "colour")}
    values = {"gain": measures.gain.value, **last, "common": measures.common, "handed_over": measures.handed_over}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _chain(scene: HeldOutScene, place: str) -> _Chained:
    _log.info("SVI: diagnosis: chaining from held-out clip %s", place)
    truth, looks, frames, error = scene.truth, [], [], None
    shown = spread(scene.plan.num_clips, min(scene.plan.num_clips, CLIPS_SHOWN))
    known = scene.known_after(truth)
    for index, clip in enumerate(scene.clips()):
        looks.append(_look(clip))
        if error is None:
            error = scene.known_after(clip) - known
        if index in shown:
            frames.append(to_uint8(clip.frames[-1:])[0])
    assert error is not None
    clips = ", ".join(str(index + 1) for index in shown)
    row = StripRow((to_uint8(truth.frames[-1:])[0], *frames), f"last frames: true clip, then clips {clips}", scene.example.name)
    return _Chained(_look(truth), looks, known, error, row)


def _look(clip: ChainClip) -> ClipLook:
    return look_at(clip.frames.movedim(-1, 1)[None])


def _handed_over(scenes: Sequence[HeldOutScene], known: Tensor) -> Tensor:
    return torch.stack([scene.handed_over(own) for scene, own in zip(scenes, known, strict=True)])


def _injected(trainer: Trainer, bank: ErrorBank, levels: Sequence[float], latent_shape: Sequence[int]) -> float | None:
    """Return the RMS of the errors that training would inject: of another run's where it draws those, otherwise of `bank`."""
    config, others = trainer.config, trainer.image_errors
    slots, random = error_slots(config.data.svi_layout, later_clip=True), stream(config.seed, 0, 0, "diagnosis draws")
    return injected_rms(others.of(latent_shape) if others else bank, levels, config.recycling, slots, random)


def _fill(trainer: Trainer, scenes: Sequence[HeldOutScene]) -> tuple[ErrorBank, list[float]]:
    """Return a bank with one-step errors of the trained model on the scenes' true clips, and their noise levels."""
    examples = [scene.example for scene in scenes]
    recycling = trainer.config.recycling
    bank = make_bank(examples[0].latent.shape, recycling)
    levels = _levels(trainer, bank)

    def predict(numbers: Sequence[int], noisy: Tensor, sigma: Tensor) -> Tensor:
        own = [examples[number] for number in numbers]
        velocities = [
            trainer.backbone.velocity(noisy[i : i + 1], sigma[i : i + 1], conditions_of(trainer, [one], [one.y_latent])).cpu()
            for i, one in enumerate(own)
        ]
        return torch.cat(velocities)

    random = stream(trainer.config.seed, 0, 0, "diagnosis errors")
    latents = torch.stack([example.latent for example in examples])
    fill_bank(bank, predict, latents, levels, recycling, random, max(2, -(-MIN_ERRORS // len(levels))))
    return bank, levels


def _levels(trainer: Trainer, bank: ErrorBank) -> list[float]:
    """Return the noise levels of the bank's cells that the model is trained at; at least one."""
    ids = trainer.timesteps
    noisiest, cleanest = (float(trainer.sigmas[timestep_id]) for timestep_id in (ids.first_id, ids.end_id - 1))
    return [sigma for sigma in bank.grid.sigmas if cleanest <= sigma <= noisiest] or [noisiest]


def _cells(measures: Measures) -> list[tuple[float, float]]:
    """Return at most ten cells, spread over all."""
    cells = measures.error_to_signal
    return [cells[index] for index in spread(len(cells), min(len(cells), 10))]


def _numbers(values: Iterable[float]) -> str:
    return "".join(f"{value:7.2f}" for value in values)


def _unit(name: str) -> str:
    return "distance from the mean colour, true clips' = 1" if name == "colours" else "of true clips'"
