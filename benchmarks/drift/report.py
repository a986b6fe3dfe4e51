"""DRIFT.md's tables, curves and filmstrips, from the measurements on disk alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.chart import draw_lines
from benchmarks.loop.report import table
from svi_core.look.filmstrip import BACKGROUND, FAINT, TEXT

from .arms import BASE, FULL, GAUSSIAN, MAIN, NO_IMAGE, PLAIN
from .data import Chain
from .losses import ALL, MAIN_LOSSES, REGIMES
from .results import LEAST_PAIRS, Results, gate, read_bases, read_results, value_of
from .scoring import SHARES
from .statistics import bootstrap_interval, holm, sign_flip_p
from .study import Study, Unit, result_path
from .work import STRIP_CLIPS
from .world import WIDTH

LARGEST_P = 0.05
REGISTERED = ((FULL, PLAIN), (FULL, BASE), (FULL, NO_IMAGE), (FULL, GAUSSIAN))


def write_report(study: Study, folder: Path, output: Path, machine: Mapping[str, str]) -> str:
    """Write all measurements as JSON and the pictures to `output`, and return the tables as Markdown."""
    output.mkdir(parents=True, exist_ok=True)
    bases = read_bases(study, folder)
    parts, everything = [_bases_table(bases)], {"machine": dict(machine), "study": study.as_data(), "bases": bases}
    for chain in Chain:
        results = read_results(study, folder, chain)
        if BASE not in results:
            parts.append(f"## {chain}\n\nNot run.\n")
            continue
        arms = {name: {unit.name: own for unit, own in units.items()} for name, units in results.items()}
        everything[chain] = {"arms": arms, "cheats": _cheats(folder, chain)}
        parts.append(_chain_text(study, folder, output, chain, results, bases))
    (output / "drift.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    return "\n\n".join(parts)


def compare(results: Results, arm: str, other: str, figure: str = "loss", losses: str = MAIN_LOSSES.name) -> dict | None:
    """Compare `arm` with `other` in `figure` over the units that have both; None if there is none.

    "first" and "second" are their means over these units, "mean" that of the difference, "low" and "high" its 95 % interval,
    "p" of the exact sign-flip test, "n" the pairs.
    """
    shared = [unit for unit in results.get(arm, {}) if unit in results.get(other, {})]
    if not shared:
        return None
    first, second = ([value_of(results[name][unit], figure, losses) for unit in shared] for name in (arm, other))
    differences = np.subtract(first, second).tolist()
    low, high = bootstrap_interval(differences, [unit.base_seed for unit in shared])
    means = {"mean": mean(differences), "first": mean(first), "second": mean(second)}
    return {**means, "low": low, "high": high, "p": sign_flip_p(differences), "n": len(shared)}


def of_whole_pairs(results: Results) -> Results:
    """Return `results` with only those units of the main arms that all of these have: while the study runs, some have more.

    So the means of these arms are of the same units. The other arms keep theirs; without a shared unit nothing is left out.
    """
    shared = set.intersection(*(set(results[name]) for name in (BASE, *MAIN) if name in results))
    if not shared:
        return results
    return {
        name: {unit: own for unit, own in units.items() if name not in (BASE, *MAIN) or unit in shared}
        for name, units in results.items()
    }


def claim(results: Results, bases: Mapping[str, dict]) -> str:
    """Return what the main comparison says, or why it says nothing."""
    if closed := [text for text, passed in gate(results, bases) if not passed]:
        return f"**No claim: the gates are closed** ({'; '.join(closed)})."
    found = compare(results, FULL, PLAIN)
    if found is None or found["n"] < LEAST_PAIRS:
        return f"**No claim yet: {found['n'] if found else 0} of {LEAST_PAIRS} pairs were run.**"
    for name in (PLAIN, FULL):
        if (verdict := verdict_of(results, name)) != "valid":
            return f"**No claim: {name} is {verdict}.**"
    numbers = (
        f"quality loss {found['first']:.2f} against {found['second']:.2f}, difference {found['mean']:+.2f}, "
        f"95 % interval {found['low']:+.2f} to {found['high']:+.2f}, exact two-sided p = {found['p']:.4f}, {found['n']} pairs"
    )
    if found["p"] > LARGEST_P or found["low"] <= 0 <= found["high"]:
        return f"**No difference is shown** ({numbers})."
    word = "less" if found["mean"] < 0 else "more"
    return f"**Error recycling degrades {word} than plain fine-tuning here** ({numbers})."


def verdict_of(results: Results, arm: str) -> str:
    """Return "valid", or why the videos of `arm` cannot count as better."""
    runs = [own["chains"][MAIN_LOSSES.name]["verdict"] for own in results[arm].values()]
    invalid = [verdict for verdict in runs if verdict != "valid"]
    return f"INVALID in {len(invalid)} of {len(runs)}: {invalid[0].removeprefix('INVALID: ')}" if invalid else "valid"


def _chain_text(study: Study, folder: Path, output: Path, chain: Chain, results: Results, bases: Mapping[str, dict]) -> str:
    parts, units_table, results = [f"## {chain}"], _units_table(results), of_whole_pairs(results)
    if chain is Chain.FILM and PLAIN in results and bases:
        parts.append(claim(results, bases))
        parts.append("\n".join(f"- {'passed' if passed else 'FAILED'}: {text}" for text, passed in gate(results, bases)))
    names = [name for name in (BASE, PLAIN, FULL) if name in results]
    for figure, title in (("frechet", "Frechet distance to true clips"), ("contrast", "Contrast over that of true clips")):
        curves = {name: _curve(results[name], figure) for name in names}
        path = output / f"drift-{chain.name.lower()}-{figure}.png"
        draw_lines(f"{title}, {chain}, {MAIN_LOSSES.name}", "clip", title, curves).save(path)
        parts.append(f"![{title}]({path.name})")
    unit = next(iter(results[BASE]))
    strips = [(name, result_path(folder, chain, unit, name).with_suffix(".png")) for name in names]
    strips = [("truth", folder / "results" / chain.name.lower() / "truth.png"), *strips]
    _side_by_side([own for own in strips if own[1].exists()]).save(output / f"drift-{chain.name.lower()}-strips.png")
    parts += [
        f"![strips](drift-{chain.name.lower()}-strips.png)",
        _arms_table(results, _cheats(folder, chain)),
        _tests_table(results),
        _regimes_table(results),
        units_table,
    ]
    return "\n\n".join(part for part in parts if part)


def _arms_table(results: Results, cheats: Mapping[str, dict]) -> str:
    """Return a row for each arm, for each cheat that only looks like a long video, and for the truth."""
    rows = [_arm_row(name, verdict_of(results, name), list(units.values())) for name, units in results.items()]
    wrapped = {name: {"chains": {MAIN_LOSSES.name: own}} for name, own in cheats.items()}
    rows += [_arm_row(name, cheats[name]["verdict"], [own]) for name, own in wrapped.items()]
    head = ["arm", "verdict", "units", "quality loss", "Frechet", *SHARES, "distance", "pixels", "seam", "clean loss",
            "bank RMS", "injected RMS"]  # fmt: skip
    return table(head, rows)


def _arm_row(name: str, verdict: str, runs: Sequence[dict]) -> list:
    chains = [own["chains"][MAIN_LOSSES.name] for own in runs]
    ends = [_ends(chains, figure) for figure in ("frechet", *SHARES, "distance", "pixels")]
    seams = [own["seam"] for own in chains if own["seam"] is not None]
    rms = [max(own["bank_rms"]) for own in runs if any(own.get("bank_rms", ()))]
    return [
        name,
        verdict,
        len(runs),
        f"{mean(own['loss'] for own in chains):.2f}",
        *ends,
        f"{mean(seams):.2f}" if seams else "",
        _mean_of(runs, "clean_loss", ".4f"),
        f"{max(rms):.2f}" if rms else "",
        _mean_of(runs, "injected_rms", ".2f", skip_zero=True),
    ]


def _ends(chains: Sequence[dict], figure: str) -> str:
    """Return a figure's mean at the first and the last clip."""
    return " -> ".join(f"{mean(own[figure][place] for own in chains):.2f}" for place in (0, -1))


def _mean_of(runs: Sequence[dict], figure: str, form: str, skip_zero: bool = False) -> str:
    """Return the mean of a figure over those `runs` that have it; empty if none has."""
    kept = [own[figure] for own in runs if figure in own and not (skip_zero and own[figure] == 0)]
    return f"{mean(kept):{form}}" if kept else ""


def _tests_table(results: Results) -> str:
    """Compare the registered pairs, with Holm's correction, then every other arm with the full method, with intervals only."""
    others = [(name, FULL) for name in results if name not in (BASE, *MAIN)]
    rows = []
    for family, pairs in (("registered", REGISTERED), ("ablations", others)):
        found = {pair: own for pair in pairs if (own := compare(results, *pair)) is not None}
        adjusted = holm({pair: own["p"] for pair, own in found.items()}) if pairs is REGISTERED else {}
        rows += [_test_row(family, pair, own, adjusted.get(pair)) for pair, own in found.items()]
    head = ["family", "quality loss of", "and of", "pairs", "difference", "95 % interval", "p", "p after Holm"]
    return table(head, rows) if rows else ""


def _test_row(family: str, pair: tuple[str, str], own: dict, adjusted: float | None) -> list:
    names = [f"{name}, {own[place]:.2f}" for name, place in zip(pair, ("first", "second"), strict=True)]
    interval = f"{own['low']:+.2f} to {own['high']:+.2f}"
    tested = ["", ""] if adjusted is None else [f"{own['p']:.4f}", f"{adjusted:.4f}"]
    return [family, *names, own["n"], f"{own['mean']:+.2f}", interval, *tested]


def _regimes_table(results: Results) -> str:
    """Return each chain's losses and each strength of the LoRA, for the arms that were measured with them."""
    rows = []
    names = [own.name for own in REGIMES] + sorted({n for r in _runs(results) for n in r["chains"] if n.startswith("strength")})
    for regime in names:
        for arm, units in results.items():
            runs = [own["chains"][regime] for own in units.values() if regime in own["chains"]]
            if not runs or (arm not in (BASE, PLAIN, FULL) and regime not in (ALL.name,)):
                continue
            ends = [_ends(runs, figure) for figure in ("frechet", *SHARES, "distance")]
            rows.append([regime, arm, len(runs), f"{mean(own['loss'] for own in runs):.2f}", *ends])
    return table(["losses of the chain", "arm", "units", "quality loss", "Frechet", *SHARES, "distance"], rows)


def _runs(results: Results) -> list[dict]:
    return [own for units in results.values() for own in units.values()]


def _units_table(results: Results) -> str:
    names = list(results)
    rows = [
        [unit.name, *(f"{value_of(results[n][unit], 'loss'):.2f}" if unit in results[n] else "" for n in names)]
        for unit in results[BASE]
    ]
    commits = sorted({commit for own in _runs(results) for commit in own["commits"]})
    return f"Measured by the code of {', '.join(commits)}.\n\n" + table(["quality loss of every unit", *names], rows)


def _cheats(folder: Path, chain: Chain) -> dict[str, dict]:
    """Return the scores of the cheats by name; empty if they were not run."""
    path = folder / "results" / chain.name.lower() / "cheats.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _bases_table(bases: Mapping[str, dict]) -> str:
    rows = [
        [name, *(f"{own[loss]:.4f}" for loss in ("training loss", "held-out loss")), f"{own['diagnosis']['gain']['value']:.2f}",
         f"{own['gain of noise']:.2f}", own["diagnosis"]["verdict"].splitlines()[0], f"{own['seconds']:.0f} s", own["commit"]]
        for name, own in bases.items()
    ]  # fmt: skip
    return table(["base", "training loss", "held-out loss", "gain", "gain of noise", "diagnosis", "time", "commit"], rows)


def _curve(units: Mapping[Unit, dict], figure: str) -> list[tuple[float, float]]:
    values = np.mean([own["chains"][MAIN_LOSSES.name][figure] for own in units.values()], axis=0)
    return [(clip, float(values[clip - 1])) for clip in (1, 2, 3, 5, 7, 10, 14, 20, 25, 30) if clip <= len(values)]


def _side_by_side(strips: Sequence[tuple[str, Path]]) -> Image.Image:
    """Put the pictures beside each other under their names, with the clips' numbers above the columns."""
    pictures = [(name, Image.open(path).convert("RGB")) for name, path in strips]
    gap, title = 12, 44
    width, height = sum(picture.width + gap for _, picture in pictures) - gap, max(picture.height for _, picture in pictures)
    whole, left = Image.new("RGB", (width, height + title), BACKGROUND), 0
    draw = ImageDraw.Draw(whole)
    for name, picture in pictures:
        draw.text((left + 4, 3), name, fill=TEXT, font=ImageFont.load_default(15))
        for column in range(picture.width // (2 * WIDTH)):
            text = f"clip {STRIP_CLIPS[column] + 1}"
            draw.text((left + 4 + column * 2 * WIDTH, 24), text, fill=FAINT, font=ImageFont.load_default(12))
        whole.paste(picture, (left, title))
        left += picture.width + gap
    return whole
