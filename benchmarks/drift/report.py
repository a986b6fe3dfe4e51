"""DRIFT.md's tables, curves and filmstrips, from the measurements on disk alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.chart import draw_lines
from benchmarks.loop.report import table

from .arms import BASE, FULL, IMAGE_ONLY, OTHER_CLIP, OWN_CLIP, PLAIN
from .data import Chain, Source
from .statistics import bootstrap_interval, holm, sign_flip_p
from .study import Study, Unit, arm_order, base_path, result_path

START_GAP = "rolled - true start"  # increase of the loss, given the chain's own output
LEAST_PAIRS = 8  # for the claim
LOSS_MARGIN = 0.02  # of the plain LoRA's clean validation loss
BESIDE_THE_METHOD = (OWN_CLIP, OTHER_CLIP)
EXPLORED = ((OWN_CLIP, OTHER_CLIP), (OWN_CLIP, IMAGE_ONLY), (OTHER_CLIP, IMAGE_ONLY), (OWN_CLIP, PLAIN))
ERROR_TO_SIGNAL = 0.5  # bank RMS above which the recipe is not expected to apply


def read_results(study: Study, folder: Path, chain: Chain) -> dict[str, dict[Unit, dict]]:
    """Return the measurements by arm and unit."""
    found: dict[str, dict[Unit, dict]] = {}
    for name in arm_order(study):
        for unit in study.units:
            path = result_path(folder, chain, unit, name)
            if path.exists():
                own = json.loads(path.read_text(encoding="utf-8"))
                if "rolled_start_loss" in own:
                    own[START_GAP] = own["rolled_start_loss"] - own["true_start_loss"]
                found.setdefault(name, {})[unit] = own
    return found


def write_report(study: Study, folder: Path, output: Path, machine: Mapping[str, str]) -> str:
    """Write all measurements as JSON and the pictures to `output`, and return the tables as Markdown."""
    output.mkdir(parents=True, exist_ok=True)
    parts, everything = [], {"machine": dict(machine), "study": study.as_data()}
    for chain in study.chains:
        results = read_results(study, folder, chain)
        if BASE not in results:
            parts.append(f"## {chain}\n\nNot run.\n")
            continue
        arms = {name: {unit.name: own for unit, own in units.items()} for name, units in results.items()}
        everything[chain] = {"arms": arms, "bases": _bases(study, folder, chain), "cheats": _cheats(folder, chain)}
        parts.append(_chain_text(study, folder, output, chain, results))
    (output / "drift.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    return "\n".join(parts)


def compare(results: dict[str, dict[Unit, dict]], arm: str, other: str, figure: str = "drift") -> dict | None:
    """Compare `arm` with `other` in `figure` over the units that have both; None if there is none.

    "first" and "second" are their means over these units, "mean" that of the difference, "low" and "high" its 95 % interval,
    "p" of the exact sign-flip test, "n" the pairs.
    """
    shared = [unit for unit in results.get(arm, {}) if unit in results.get(other, {})]
    if not shared:
        return None
    first, second = ([results[name][unit][figure] for unit in shared] for name in (arm, other))
    differences = np.subtract(first, second).tolist()
    low, high = bootstrap_interval(differences, [unit.base_seed for unit in shared])
    means = {"mean": mean(differences), "first": mean(first), "second": mean(second)}
    return {**means, "low": low, "high": high, "p": sign_flip_p(differences), "n": len(shared)}


def verdict_of(results: dict[str, dict[Unit, dict]], arm: str) -> str:
    """Return "valid", or why `arm` cannot count as better: its videos, or its loss on clean conditioning."""
    runs = results[arm]
    invalid = [unit for unit, own in runs.items() if own["verdict"] != "valid"]
    if invalid:
        return f"INVALID in {len(invalid)} of {len(runs)}: {runs[invalid[0]]['verdict'].removeprefix('INVALID: ')}"
    plain = results.get(PLAIN, {})
    ratios = [own["clean_loss"] / plain[unit]["clean_loss"] for unit, own in runs.items() if unit in plain]
    if arm != BASE and ratios and mean(ratios) > 1 + LOSS_MARGIN:
        return f"clean loss {100 * (mean(ratios) - 1):.1f} % above the plain LoRA's"
    return "valid"


def _chain_text(study: Study, folder: Path, output: Path, chain: Chain, results: dict) -> str:
    stem = f"drift-{'real-' if study.source is Source.REAL_CLIPS else ''}{chain.name.lower()}"
    names = [name for name in (BASE, PLAIN, FULL) if name in results]
    curves = {name: _curve(results[name]) for name in names}
    draw_lines(f"Distance from the truth, {chain}", "clip", "features, in standard deviations of true clips", curves).save(
        output / f"{stem}.png"
    )
    unit = next(unit for unit in study.units if unit in results[BASE])
    strips = [(name, result_path(folder, chain, unit, name).with_suffix(".png")) for name in names if unit in results[name]]
    _stack_strips(strips).save(output / f"{stem}-strips.png")
    return "\n".join([
        f"## {chain}",
        "",
        *_claim(results),
        "",
        f"![curves]({output.name}/{stem}.png)",
        "",
        f"Last frames of clips spread over the chain, four scenes, {unit.name}:",
        "",
        f"![frames]({output.name}/{stem}-strips.png)",
        "",
        _bases_table(study, folder, chain),
        "",
        _arms_table(results, _cheats(folder, chain)),
        "",
        _commits(results),
        "",
        _tests_table(results),
        "",
        _units_table(results),
        "",
    ])  # fmt: skip


def _claim(results: dict) -> list[str]:
    """Return the sentences that the numbers allow, gate first."""
    drifts = [own["drift"] for own in results[BASE].values()]
    low, _ = bootstrap_interval(drifts, [unit.base_seed for unit in results[BASE]])
    gate = f"Gate: the base's drift is {mean(drifts):.3f} over {len(drifts)} units, 95 % interval from {low:.3f}: "
    lines = [gate + ("it drifts." if low > 0 else "not shown to drift.")]
    found = compare(results, FULL, PLAIN)
    if found is None:
        return [*lines, "The full method has not been run in this layout."]
    largest = max(max(own["bank_rms"]) for own in results[FULL].values())
    regime = "small enough for the recipe" if largest < ERROR_TO_SIGNAL else "too large for the recipe"
    lines.append(f"Diagnostic: latent errors in ERFT's banks reach {largest:.2f} (RMS; the latents' own is about 1), {regime}.")
    text = (
        f"ERFT - plain LoRA: {found['mean']:+.3f} (95 % interval {found['low']:+.3f} to {found['high']:+.3f}, "
        f"exact two-sided p = {found['p']:.4f}, {found['n']} pairs). "
    )
    state = [verdict_of(results, name) for name in (FULL, PLAIN)]
    if found["n"] < LEAST_PAIRS:
        text += f"**No claim: fewer than {LEAST_PAIRS} pairs.**"
    elif low <= 0:
        text += "**No claim: the gate is closed.**"
    elif any(own.startswith("INVALID") for own in state):
        text += f"**No claim: {'; '.join(own for own in state if own.startswith('INVALID'))}.**"
    elif found["p"] >= 0.05:
        text += "**No difference shown.**"
    elif found["mean"] > 0:
        text += "**Error recycling drifts more than plain fine-tuning here.**"
    elif state != ["valid", "valid"]:
        text += f"**Less drift, but not a valid win: {'; '.join(s for s in state if s != 'valid')}.**"
    else:
        text += "**Error recycling drifts less than plain fine-tuning here.**"
    return [*lines, "", text, "", *_beside(results)]


def _beside(results: dict) -> list[str]:
    """Return further comparisons of ERFT with the plain LoRA: other scenes, other bases, and its own chains as input."""
    lines = []
    shared = [unit for unit in results[FULL] if unit in results.get(PLAIN, {})]
    scenes = np.mean([np.subtract(*(results[name][unit]["scene_drift"] for name in (FULL, PLAIN))) for unit in shared], axis=0)
    low, high = bootstrap_interval(scenes.tolist(), range(len(scenes)))
    lines.append(f"- Over the {len(scenes)} scenes instead, mean of all units: 95 % interval {low:+.3f} to {high:+.3f}.")
    for base in dict.fromkeys(unit.base_seed for unit in shared):
        own = [results[FULL][unit]["drift"] - results[PLAIN][unit]["drift"] for unit in shared if unit.base_seed == base]
        ends = f"from {min(own):+.3f} to {max(own):+.3f} over {len(own)} LoRA seeds"
        lines.append(f"- Base {base} alone: {mean(own):+.3f}, {ends}.")
    if all(START_GAP in own for name in (FULL, PLAIN) for own in results[name].values()):
        gap = compare(results, FULL, PLAIN, START_GAP)
        lines.append(
            f"- What a chain adds to the loss on its own next clip ({START_GAP}): {gap['mean']:+.3f} (95 % interval "
            f"{gap['low']:+.3f} to {gap['high']:+.3f}, p = {gap['p']:.4f})."
        )
    return lines


def _arms_table(results: dict, cheats: Mapping[str, dict]) -> str:
    """Return a row for each arm, for each cheat that only looks like a long video, and for the truth."""
    rows = [_arm_row(name, verdict_of(results, name), len(units), list(units.values())) for name, units in results.items()]
    rows += [_arm_row(name, own["verdict"], "", [own]) for name, own in cheats.items()]
    head = ["arm", "verdict", "units", "drift", "distance", "Frechet", "PSNR", "object error", "lost", "its place, px",
            "its colour", "its shape", "seam", "motion", "clean loss", START_GAP, "bank RMS", "injected RMS",
            "where it counts"]  # fmt: skip
    filled = [place for place in range(len(head)) if any(row[place] != "" for row in rows)]
    return table([head[place] for place in filled], [[row[place] for place in filled] for row in rows])


def _commits(results: dict) -> str:
    """Name the code that measured the arms."""
    commits = sorted({own["commit"] for units in results.values() for own in units.values()})
    return f"Measured by the code of {', '.join(commits)}."


def _arm_row(name: str, verdict: str, num_units: int | str, runs: Sequence[dict]) -> list:
    """Return one row, for models and for cheats, which have no model, no loss and no errors."""
    return [
        name,
        verdict,
        num_units,
        _mean(runs, "drift", ".3f"),
        _ends(runs, "distance", ".2f"),
        _ends(runs, "frechet", ".2f"),
        _ends(runs, "psnr", ".1f"),
        _ends(runs, "object_error", ".3f"),
        _ends(runs, "object_lost", ".2f"),
        _ends(runs, "object_place", ".1f"),
        _ends(runs, "object_colour", ".2f"),
        _ends(runs, "object_shape", ".2f"),
        f"{median(own['seam'] for own in runs):.2f}",
        _mean(runs, "motion_ratio", ".2f"),
        _mean(runs, "clean_loss", ".4f"),
        _mean(runs, START_GAP, "+.4f"),
        _size(max(max(own.get("bank_rms", [0.0])) for own in runs)),
        *(_size(float(_mean(runs, name, "") or 0)) for name in ("injected_rms", "injected_focused_rms")),
    ]


def _size(value: float) -> str:
    """Return the size of errors; empty if there are none, or none was recorded."""
    return f"{value:.3f}" if value else ""


def _mean(runs: Sequence[dict], figure: str, form: str) -> str:
    """Return the mean of a figure over those `runs` that recorded it; empty if none did."""
    kept = [own[figure] for own in runs if figure in own]
    return _shown(mean(kept), form) if kept else ""


def _ends(runs: Sequence[dict], figure: str, form: str) -> str:
    """Return a figure's mean at the first and the last clip over those `runs` that recorded it; empty if none did."""
    kept = [own[figure] for own in runs if own.get(figure)]
    return " -> ".join(_shown(mean(values[place] for values in kept), form) for place in (0, -1)) if kept else ""


def _shown(value: float, form: str) -> str:
    """Return `value` in this format; a rounded 0 has no sign."""
    text = f"{value:{form}}"
    return text.removeprefix("-") if float(text) == 0 else text


def _tests_table(results: dict) -> str:
    """Compare every ablation with the full method, with Holm's correction over all of them; then the exploratory ones."""
    pairs = [(name, FULL) for name in results if name not in (BASE, PLAIN, FULL) and name not in BESIDE_THE_METHOD]
    found = {pair: own for pair in pairs if (own := compare(results, *pair)) is not None}
    adjusted = holm({pair: own["p"] for pair, own in found.items()})
    looked_at = {pair: own for pair in EXPLORED if (own := compare(results, *pair)) is not None}
    if not found and not looked_at:
        return "Ablations: not run in this layout."
    rows = [_test_row(pair, own, f"{adjusted[pair]:.3f}") for pair, own in found.items()]
    rows += [_test_row(pair, own, "explored") for pair, own in looked_at.items()]
    return table(["drift of", "and of", "pairs", "difference", "95 % interval", "p", "p after Holm"], rows)


def _test_row(pair: tuple[str, str], own: dict, adjusted: str) -> list:
    drifts = [f"{name}, {own[place]:.3f}" for name, place in zip(pair, ("first", "second"), strict=True)]
    return [*drifts, own["n"], f"{own['mean']:+.3f}", f"{own['low']:+.3f} to {own['high']:+.3f}", f"{own['p']:.4f}", adjusted]


def _units_table(results: dict) -> str:
    names = list(results)
    units = list(results[BASE])
    rows = [
        [unit.name, *(f"{results[n][unit]['drift']:.3f}" if unit in results[n] else "not run" for n in names)] for unit in units
    ]
    return table(["drift of every unit", *names], rows)


def _cheats(folder: Path, chain: Chain) -> dict[str, dict]:
    """Return the scores of the cheats by name; empty if they were not run."""
    path = folder / "results" / chain.name.lower() / "cheats.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _bases(study: Study, folder: Path, chain: Chain) -> dict[int, dict]:
    """Return the facts about each base, by seed."""
    paths = {seed: base_path(folder, chain, seed).with_suffix(".json") for seed in study.base_seeds}
    return {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in paths.items() if path.exists()}


def _bases_table(study: Study, folder: Path, chain: Chain) -> str:
    rows = []
    for seed, own in _bases(study, folder, chain).items():
        losses = [f"{own[f'{kind} loss']:.4f}" for kind in ("training", "held-out")]
        ratio = f"{own['held-out loss'] / own['training loss']:.2f}"
        rows.append([seed, *losses, ratio, f"{own['seconds']:.0f} s", own["commit"]])
    return table(["base", "training loss", "held-out loss", "held-out / training", "time", "commit"], rows)


def _curve(units: Mapping[Unit, dict]) -> list[tuple[float, float]]:
    values = np.mean([own["distance"] for own in units.values()], axis=0)
    return [(clip, float(values[clip - 1])) for clip in (1, 2, 3, 5, 7, 10, 14, 20) if clip <= len(values)]


def _stack_strips(strips: Sequence[tuple[str, Path]]) -> Image.Image:
    pictures = [(name, Image.open(path)) for name, path in strips]
    width, title = max(picture.width for _, picture in pictures), 24
    whole = Image.new("RGB", (width, sum(picture.height + title for _, picture in pictures)), (24, 24, 27))
    draw, top = ImageDraw.Draw(whole), 0
    for name, picture in pictures:
        draw.text((6, top + 3), name, fill=(228, 228, 231), font=ImageFont.load_default(15))
        whole.paste(picture, (0, top + title))
        top += picture.height + title
    return whole
