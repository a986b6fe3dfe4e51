"""What a study has measured so far, and the gates that must be open before its arms are judged."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from ..drift import StudyError
from .arms import BASE, PLAIN
from .data import Chain
from .losses import MAIN_LOSSES
from .scoring import SHARES
from .study import Study, Unit, base_path, other_losses_path, result_path
from .world import World

FADED, LEAST_GAIN, LARGEST_GAP = 0.6, 0.85, 1.05  # the gates: what is left, gain, held-out over training loss
LEAST_PAIRS = 8  # of a claim
Results = dict[str, dict[Unit, dict]]


def read_results(study: Study, folder: Path, chain: Chain) -> Results:
    """Return the measurements by arm and unit."""
    found: Results = {}
    for name in study.arms_of(chain):
        for unit in study.units_of(chain, name):
            path = result_path(folder, chain, unit, name)
            if path.exists():
                own = json.loads(path.read_text(encoding="utf-8"))
                own["commits"] = [own.pop("commit")]
                if (others := other_losses_path(path)).exists():
                    more = json.loads(others.read_text(encoding="utf-8"))
                    own["chains"] |= more["chains"]
                    own["commits"].append(more["commit"])
                found.setdefault(name, {})[unit] = own
    return found


def read_bases(study: Study, folder: Path) -> dict[str, dict]:
    """Return the facts about each base, by world and seed."""
    paths = {
        f"{world}, {seed}": base_path(folder, world, seed).with_suffix(".json") for world in World for seed in study.base_seeds
    }
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def value_of(result: dict, figure: str, losses: str = MAIN_LOSSES.name) -> float:
    """Return a figure of one run: of the whole chain, or of its last clip where each clip has one."""
    found = result[figure] if figure in result else result["chains"][losses][figure]
    return found[-1] if isinstance(found, list) else found


def gate(results: Results, bases: Mapping[str, dict]) -> list[tuple[str, bool]]:
    """Return what must hold before any arm is judged, and whether it does."""
    found = []
    for name in (BASE, PLAIN):
        left = min((mean(value_of(own, share) for own in results.get(name, {}).values()), share) for share in SHARES)
        found.append((f"{name}: {left[1]} of the last clip is {left[0]:.2f} of the truth's (below {FADED})", left[0] < FADED))
    bases = {name: own for name, own in bases.items() if name.startswith(World.ENDLESS)}
    least = min(own["diagnosis"]["gain"]["value"] for own in bases.values())
    found.append((f"of errors that chains hand over {least:.2f} or more arrive (at least {LEAST_GAIN})", least >= LEAST_GAIN))
    worst = max(own["held-out loss"] / own["training loss"] for own in bases.values())
    found.append((f"held-out loss over training loss is at most {worst:.2f} (at most {LARGEST_GAP})", worst <= LARGEST_GAP))
    return found


def require_open_gates(study: Study, folder: Path) -> None:
    """Refuse to go on if a gate is closed; a study with too few pairs for a claim has none, nor has a run without Film.

    Raises:
        StudyError: which gates are closed.
    """
    results = read_results(study, folder, Chain.FILM)
    if len(study.units) < LEAST_PAIRS or PLAIN not in results:
        return
    if closed := [text for text, passed in gate(results, read_bases(study, folder)) if not passed]:
        raise StudyError(f"no other arm is started, since gates are closed: {'; '.join(closed)}.")
