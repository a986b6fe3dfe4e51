"""What report.html says of a diagnosis: the verdict, curves, and frames of the chains; and the file that `diagnose` leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from svi_core.files.sealed_json import read_sealed
from training.run.charts import Points, chart, escaped

FILE_NAME = "diagnosis.json"
_FADE = {"contrast": "contrast", "spectrum": "fine detail", "motion": "motion", "saturation": "saturation"}
_LINES = {"gain": "gain", "contrast": "contrast", "spectrum": "fine detail", "motion": "motion"}


def read_diagnosis(folder: Path) -> list[Mapping]:
    """Return the diagnosis of the base in `folder` as a measurement of step 0, or nothing if there is none.

    Raises:
        ValueError: its file is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        return [{"kind": "diagnosis", "step": 0, **read_sealed(path)}]
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): remove it, or run training.diagnose again.") from error


def diagnosis_part(diagnoses: Sequence[Mapping]) -> str:
    """Return the section on `diagnoses`, oldest first; empty without any."""
    if not diagnoses:
        return ""
    last = diagnoses[-1]
    measures = last["measures"]
    notes = "".join(f"<li>{escaped(note)}</li>" for note in last["notes"])
    injected = "none" if measures["injected"] is None else f"{measures['injected']:.3f}"
    facts = (
        f"gain {measures['gain']['value']:.2f}; {measures['common']:.2f} of the error that clip 1 hands over is the same in "
        f"all {measures['num_scenes']} scenes; of the latents' size {measures['handed_over']:.3f} handed over, "
        f"{injected} injected"
    )
    return (
        f"<h2>Diagnosis</h2><p><b>Error recycling: {escaped(last['answer'])}.</b> {escaped(last['reason'])}</p><ul>{notes}</ul>"
        f"<p>Step {last['step']}: {facts}.</p><section>{_charts(measures)}{_history(diagnoses)}</section>"
        + "".join(_picture(diagnosis) for diagnosis in reversed(diagnoses))
    )


def _charts(measures: Mapping) -> str:
    fade = {shown: _by_clip(measures[name]) for name, shown in _FADE.items()}
    return "".join(
        (
            chart("left of the true clips' look, by clip", fade),
            chart("distance of colours (true clips: 1), by clip", {"distance": _by_clip(measures["colour"])}),
            chart("one-step errors over the signal, by noise level", {"ratio": measures["error_to_signal"]}),
        )
    )


def _history(diagnoses: Sequence[Mapping]) -> str:
    """Return the curves over the steps of training, where there are several diagnoses."""
    if len(diagnoses) < 2:
        return ""
    series = {shown: [(entry["step"], _last(entry["measures"][name])) for entry in diagnoses] for name, shown in _LINES.items()}
    return chart("gain, and look of the last clip, by step", series)


def _last(estimates: Mapping | Sequence[Mapping]) -> float | None:
    return (estimates if isinstance(estimates, Mapping) else estimates[-1])["value"]


def _by_clip(estimates: Sequence[Mapping]) -> Points:
    return [(number, estimate["value"]) for number, estimate in enumerate(estimates, start=1)]


def _picture(diagnosis: Mapping) -> str:
    alternative = "last frames of the true clip and of clips of the chain"
    return (
        f"<figure><img src='{escaped(diagnosis['picture'])}' alt='{alternative}'>"
        f"<figcaption>step {diagnosis['step']}: {alternative}</figcaption></figure>"
    )
