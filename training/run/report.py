"""The report of a training run, one HTML page: a summary, curves, the error bank, sample videos, settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from svi_core.files.atomic_file import write_bytes
from training.run.charts import Points, chart, escaped
from training.run.diagnosis_report import diagnosis_part, read_diagnosis
from training.run.run_folder import begun_config, read_measurements
from training.settings.reader import config_table

_WINDOW = 25  # steps of a mean
_NOT_SIGMA = ("kind", "step")  # of a validation; its other entries are losses by noise level
STYLE = (
    "body{background:#18181b;color:#e4e4e7;font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
    "section{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0}img,video{max-width:100%}pre{overflow-x:auto}"
    "figcaption{color:#a1a1aa}a{color:#38bdf8}figure.sample{display:flex;flex-wrap:wrap;gap:8px;margin:1em 0}"
    "figure.sample figcaption{width:100%}figure.sample video{height:140px;background:#000}figure.sample img{max-height:140px}"
    "table.summary td{padding:2px 16px 2px 0}table.summary td:first-child{color:#a1a1aa}summary{cursor:pointer;font-size:1.2em}"
)


def write_report(run: Path) -> Path:
    """Write `run`/report.html from the run's measurements and return its path.

    Raises:
        ValueError: the folder holds no run with measurements, or its settings cannot be read.
    """
    config = config_table(begun_config(run))
    try:
        entries = list(read_measurements(run / "metrics.jsonl"))
    except OSError as error:
        raise ValueError(f"{run} holds no run with measurements ({error.strerror}: {error.filename}).") from error
    return _write(run, _page(run, config, [*read_diagnosis(run), *entries]))


def write_diagnosis_report(folder: Path) -> Path:
    """Write `folder`/report.html with the diagnosis in it, and with the training run if it holds one; return its path.

    Raises:
        ValueError: see :func:`write_report`.
    """
    if (folder / "metrics.jsonl").exists():
        return write_report(folder)
    return _write(folder, [f"<h1>{escaped(folder.resolve().name)}</h1>", diagnosis_part(read_diagnosis(folder))])


def _write(folder: Path, parts: Sequence[str]) -> Path:
    head = f"<!doctype html><meta charset='utf-8'><title>{escaped(folder.resolve().name)}</title><style>{STYLE}</style>"
    write_bytes(folder / "report.html", (head + "".join(parts)).encode())
    return folder / "report.html"


def _page(run: Path, config: Mapping, entries: Sequence[Mapping]) -> list[str]:
    by_kind: dict[str, list[Mapping]] = {}
    for entry in entries:
        by_kind.setdefault(entry["kind"], []).append(entry)
    steps = by_kind.get("step", [])
    last = steps[-1] if steps else {}
    return [
        f"<h1>{escaped(config.get('name') or run.name)}</h1>",
        f"<p>{last.get('step', 0)} steps; base {escaped(config['model']['path'])}, layout {escaped(config['data']['layout'])}, "
        f"preset {escaped(config['preset'] or 'none')}.</p>",
        *(f"<p>Began from {escaped(entry['text'])}.</p>" for entry in by_kind.get("start", [])),
        _summary(steps, by_kind.get("validation", []), by_kind.get("sample", [])),
        f"<section>{_step_charts(steps)}{_validation_chart(by_kind.get('validation', []))}</section>",
        diagnosis_part(by_kind.get("diagnosis", [])),
        _bank_part(by_kind.get("bank", [])),
        _samples_part(by_kind.get("sample", [])),
        f"<details><summary>Settings</summary><pre>{escaped(json.dumps(config, indent=1))}</pre></details>",
    ]


def _summary(steps: Sequence[Mapping], validations: Sequence[Mapping], samples: Sequence[Mapping]) -> str:
    """Return what one wants to know first, as a table; what was not measured is left out."""
    rows = list[tuple[str, str]]()
    means = _smooth([(entry["step"], entry.get("loss")) for entry in steps])
    if means:
        rows.append((f"loss, mean of up to {_WINDOW} steps", f"{means[-1][1]:.4f} at the end, {_best(means)}"))
    held_out = [(entry["step"], sum(values) / len(values)) for entry in validations if (values := _held_out(entry))]
    if held_out:
        rows.append(("held-out loss, mean", f"{held_out[0][1]:.4f} at first, {held_out[-1][1]:.4f} at last, {_best(held_out)}"))
    times = [entry["seconds"] for entry in steps if entry.get("seconds") is not None]
    if times:
        rows.append(("time", f"{sum(times) / 3600:.2f} h, {median(times):.2f} s a step (median)"))
    if samples:
        rows.append(("sample videos", str(len(samples))))
    cells = "".join(f"<tr><td>{escaped(name)}</td><td>{escaped(text)}</td></tr>" for name, text in rows)
    return f"<h2>Summary</h2><table class='summary'>{cells}</table>" if rows else ""


def _best(points: Sequence[tuple[float, float]]) -> str:
    step, value = min(points, key=lambda point: point[1])
    return f"lowest {value:.4f} at step {step:g}"


def _held_out(validation: Mapping) -> list[float]:
    return [value for name, value in validation.items() if name not in _NOT_SIGMA and value is not None]


def _step_charts(steps: Sequence[Mapping]) -> str:
    def curve(name: str) -> Points:
        return [(entry["step"], entry.get(name)) for entry in steps]

    injected = {name: _smooth(curve(f"injected_{name}")) for name in ("image", "latent", "noise", "clean")}
    return "".join(
        (
            chart("loss (weighted, and its mean over 25 steps)", {"step": curve("loss"), "mean": _smooth(curve("loss"))}),
            chart("gradient norm before clipping", {"norm": curve("gradient_norm")}),
            chart("learning rate", {"rate": curve("learning_rate")}),
            chart("share of examples with an error (mean over 25 steps)", injected),
            chart("seconds per step", {"seconds": curve("seconds")}),
        )
    )


def _smooth(points: Points, window: int = _WINDOW) -> list[tuple[float, float]]:
    values = [y for _, y in points if y is not None]
    starts = (max(0, index + 1 - window) for index in range(len(values)))
    means = [sum(values[start : index + 1]) / (index + 1 - start) for index, start in enumerate(starts)]
    return list(zip((x for x, y in points if y is not None), means, strict=True))


def _validation_chart(validations: Sequence[Mapping]) -> str:
    sigmas = [key for key in (validations[-1] if validations else {}) if key not in _NOT_SIGMA]
    series = {f"sigma {sigma}": [(entry["step"], entry.get(sigma)) for entry in validations] for sigma in sigmas}
    return chart("held-out loss by noise level", series)


def _bank_part(banks: Sequence[Mapping]) -> str:
    if not banks:
        return ""
    last = {bank["shape"]: bank for bank in banks}
    charts = []
    for shape, bank in last.items():
        fill = list(zip(bank["sigma"], bank["fill"], strict=True))
        ratio = list(zip(bank["sigma"], bank["error_to_signal"], strict=True))
        charts.append(chart(f"entries by noise level, latents {shape}", {"entries": fill}))
        charts.append(chart("error-to-signal ratio by noise level", {"ratio": ratio}))
    note = "Of the first process. Where the ratio is near 0, the model makes no errors that it could learn to correct."
    return f"<h2>Error bank</h2><p>{note}</p><section>{''.join(charts)}</section>"


def _samples_part(samples: Sequence[Mapping]) -> str:
    figures = []
    for sample in reversed(samples):
        video = sample["path"]
        strip = video.removesuffix(".mp4") + ".png"
        figures.append(
            f"<figure class='sample'><figcaption>step {sample['step']}: "
            f"<a href='{escaped(video)}'>{escaped(video)}</a></figcaption>"
            f"<video src='{escaped(video)}' controls loop muted preload='metadata'></video>"
            f"<img src='{escaped(strip)}' alt='frames of the sample video'></figure>"
        )
    return f"<h2>Samples</h2>{''.join(figures)}" if figures else ""
