"""A drift study as data: its settings, its folder, and the paths of its bases and results."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from svi_core.files.atomic_file import write_bytes
from svi_core.recycling.config import ErrorRecyclingConfig

from ..drift import StudyError
from .arms import BASE, MAIN, Arm, make_arms
from .base import BaseTraining
from .data import Chain
from .finetune import FineTuning
from .world import World

CAPACITY, NUM_GRIDS = 100, 50


@dataclass(frozen=True)
class Unit:
    """One comparison: every arm on the same base with the same draws."""

    base_seed: int
    lora_seed: int

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        return f"base {self.base_seed}, LoRA {self.lora_seed}"


@dataclass(frozen=True)
class Study:
    """All settings of a study.

    Attributes:
        name: "full", "ablations" (its first pairs of base and LoRA only), or "small" to see that it works.
        base: training of each base.
        units: in the order of the runs; those of the main arms.
        few_units: how many of them the other arms, layouts and losses are run on.
        fine_tuning: of each LoRA.
        lengths: training steps of a LoRA: fewer, usual, more.
        num_scenes, num_clips: of each roll-out.
        strengths: at which the finished LoRA of the full method is tried, beside 1.
        recycling: of the full method: the released settings of one motion frame, with a smaller bank.
    """

    name: str
    base: BaseTraining
    units: tuple[Unit, ...]
    few_units: int
    fine_tuning: FineTuning
    lengths: tuple[int, int, int]
    num_scenes: int
    num_clips: int
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.25)
    recycling: ErrorRecyclingConfig = field(
        default_factory=lambda: ErrorRecyclingConfig(capacity=CAPACITY, num_grids=NUM_GRIDS, num_image_error_slots=1)
    )

    def as_data(self) -> dict:
        """Return the settings as plain data."""
        return json.loads(json.dumps(asdict(self), default=str))

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms, in the order of the runs."""
        return make_arms(self.recycling, self.lengths)

    def arms_of(self, chain: Chain) -> tuple[str, ...]:
        """Return the arms that are run in a layout: all with Film; elsewhere those that show what its LoRA needs."""
        return (BASE, *self.arms) if chain is Chain.FILM else (BASE, *MAIN[:2])

    def units_of(self, chain: Chain, arm: str) -> tuple[Unit, ...]:
        """Return the units that an arm is run on."""
        is_main = chain is Chain.FILM and arm in (BASE, *MAIN)
        return self.units if is_main else self.units[: self.few_units]

    @property
    def base_seeds(self) -> tuple[int, ...]:
        """Seeds of the bases."""
        return tuple(dict.fromkeys(unit.base_seed for unit in self.units))


FULL_STUDY = Study(
    name="full",
    base=BaseTraining(num_steps=3000, batch_size=32),
    units=tuple(Unit(base, lora) for lora in (1, 2) for base in (1, 2, 3, 4)),
    few_units=4,
    fine_tuning=FineTuning(batch_size=16, learning_rate=1e-3, rank=16, fill_batches=100),
    lengths=(200, 800, 2400),
    num_scenes=32,
    num_clips=30,
)
STUDIES = {
    "full": FULL_STUDY,
    # the arms that need no claim, with those of the claims beside them: a run of its own, on bases of its own
    "ablations": replace(FULL_STUDY, name="ablations", units=FULL_STUDY.units[: FULL_STUDY.few_units]),
    "small": Study(
        name="small",
        base=BaseTraining(num_steps=2, batch_size=2, save_every=1),
        units=(Unit(1, 1), Unit(1, 2)),
        few_units=1,
        fine_tuning=FineTuning(batch_size=2, learning_rate=1e-3, rank=2, fill_batches=2),
        lengths=(1, 2, 3),
        num_scenes=3,
        num_clips=4,
        strengths=(0.5,),
    ),
}


def require_same_study(study: Study, folder: Path, *, record: bool) -> None:
    """Refuse the folder of another study: bases and results are stored by name only. `record` writes down whose it is.

    Raises:
        StudyError: the folder holds another study, or no record.
    """
    path, wanted = folder / "study.json", study.as_data()
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        changes = [f"{name}: {found.get(name)} -> {wanted[name]}" for name in wanted if found.get(name) != wanted[name]]
        if changes:
            raise StudyError(
                f"{folder} holds another study ({'; '.join(changes)}): choose another --folder, or remove this one."
            )
    elif any((folder / name).exists() for name in ("bases", "results")):
        raise StudyError(f"{folder} does not say which study it holds (study.json): choose another --folder, or remove it.")
    elif record:
        write_json(path, wanted)


def base_path(folder: Path, world: World, seed: int) -> Path:
    """Return the path of a base's weights."""
    return folder / "bases" / world.name.lower() / f"{seed}.safetensors"


def result_path(folder: Path, chain: Chain, unit: Unit, arm: str) -> Path:
    """Return the path of an arm's measurements."""
    return folder / "results" / chain.name.lower() / f"{unit.base_seed}-{unit.lora_seed}" / f"{arm.replace(' ', '-')}.json"


def other_losses_path(result: Path) -> Path:
    """Return the path of the measurements of `result`'s arm with the other losses."""
    return result.with_name(f"{result.stem}.losses.json")


def write_json(path: Path, content: dict) -> None:
    """Write `content` atomically, making its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(content, indent=1).encode())
