"""Run the drift study, or print its tables. `python -m batch score` measures any videos.

python -m benchmarks.drift run [--chain film] [--arms main]    # resumes after a stop
python -m benchmarks.drift report                              # tables and pictures of the results so far
"""

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import machine_facts
from dev.environment import REPOSITORY
from training.model.comfy_runtime import find_comfyui

from ..drift import StudyError

if TYPE_CHECKING:
    from .study import Unit

OUTPUT = REPOSITORY / ".runtime" / "drift"
CHAINS = ("film", "shot", "pro")
STUDY_NAMES = ("full", "ablations", "small")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        sys.stdout.write(_study(options))
    except StudyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _study(options: argparse.Namespace) -> str:
    """Run or report a study; return its tables."""
    from .arms import MAIN
    from .data import Chain
    from .report import write_report
    from .results import require_open_gates
    from .study import STUDIES, require_same_study
    from .work import run_study

    study = STUDIES[options.study]
    folder = options.folder or OUTPUT / study.name
    if options.command == "run":
        chains = [Chain[name.upper()] for name in CHAINS if options.chain in (name, "all")]
        names = _arm_names(options.arms, list(MAIN), list(study.arms))
        workers, units = options.workers or os.cpu_count() or 1, _units(options.bases, study.units)
        run_study(study, folder, chains, names, workers, partial(require_open_gates, study, folder), units)
    require_same_study(study, folder, record=False)
    output = options.output or folder / "report"
    text = write_report(study, folder, output, machine_facts(find_comfyui()))
    (output / "drift.md").write_text(text, encoding="utf-8")
    return text


def _arm_names(wanted: str, main: list[str], known: list[str]) -> list[str]:
    """Return the arms that --arms names; `main` are those of the claims.

    Raises:
        StudyError: an unknown arm.
    """
    names = {"main": main, "all": known}.get(wanted) or [name.strip() for name in wanted.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise StudyError(f"--arms: there is no arm {unknown[0]!r}: choose main, all, or of {', '.join(known)}.")
    return names


def _units(wanted: str, known: tuple["Unit", ...]) -> tuple["Unit", ...]:
    """Return the units of the bases that --bases names by seed; all for "all".

    Raises:
        StudyError: the study has no such base.
    """
    seeds = list(dict.fromkeys(str(unit.base_seed) for unit in known))
    names = seeds if wanted == "all" else [name.strip() for name in wanted.split(",")]
    if unknown := [name for name in names if name not in seeds]:
        raise StudyError(f"--bases: there is no base {unknown[0]!r}: choose all, or of {', '.join(seeds)}.")
    return tuple(unit for unit in known if str(unit.base_seed) in names)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    purposes = {
        "run": "run what is missing of the study",
        "report": "tables of what was run",
    }
    for name, purpose in purposes.items():
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--study", choices=STUDY_NAMES, default="full", help="ablations: four pairs; small: a trial")
        command.add_argument("--folder", type=Path, help="bases and measurements (default: one for each study)")
        command.add_argument("--output", type=Path, help="tables and pictures (default: report/ in the folder)")
    run = commands.choices["run"]
    run.add_argument("--chain", choices=(*CHAINS, "all"), default="all", help="layout of the chains")
    run.add_argument("--arms", default="all", help='main: those of the claims only; or names, such as "frozen bank, bank of 1"')
    run.add_argument("--bases", default="all", help='seeds of bases, such as "1, 2": each machine can have its own')
    run.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
