"""A drift study as data: its settings, its folder, and the paths of its bases and results."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from svi_core.files.atomic_file import write_bytes
from svi_core.recycling.config import ErrorRecyclingConfig, ImageErrorGrids

from ..drift import StudyError
from .arms import BASE, CAPACITY, FULL, NUM_GRIDS, PLAIN, Arm, make_arms
from .data import Chain, Source
from .finetune import FineTuning


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
        name: "full", "real", or "small" to see that it works.
        source: of the clips.
        num_stories: for training.
        base_steps, base_batch: of each base.
        units: in the order of the runs.
        fine_tuning: of each LoRA.
        recycling: of the full method.
        num_scenes, num_clips: of each roll-out.
        sample_steps: of each clip.
    """

    name: str
    source: Source
    num_stories: int
    base_steps: int
    base_batch: int
    units: tuple[Unit, ...]
    fine_tuning: FineTuning
    num_scenes: int
    num_clips: int
    sample_steps: int
    recycling: ErrorRecyclingConfig = field(default_factory=lambda: RECYCLING)

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The possible layouts: windows of real clips overlap by one frame, and 2.0 Pro needs five."""
        return tuple(Chain) if self.source is Source.TINY_WORLD else (Chain.ONE_FRAME,)

    def as_data(self) -> dict:
        """Return the settings as plain data."""
        return json.loads(json.dumps(asdict(self), default=str))

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms, in the order of the runs."""
        return make_arms(self.recycling)

    @property
    def base_seeds(self) -> tuple[int, ...]:
        """Seeds of the bases."""
        return tuple(dict.fromkeys(unit.base_seed for unit in self.units))


RECYCLING = ErrorRecyclingConfig(
    clean_prob=0.5,
    capacity=CAPACITY,
    num_grids=NUM_GRIDS,
    num_image_error_slots=1,
    image_error_grids=ImageErrorGrids.RANGE,
    image_error_range=(14, NUM_GRIDS),  # sigma 0.68 and below
)
"""Chosen on validation stories with a base of its own, see docs/DECISIONS.md."""
_FULL = Study(
    name="full",
    source=Source.TINY_WORLD,
    num_stories=600,
    base_steps=6000,
    base_batch=16,
    units=tuple(Unit(base, lora) for lora in (1, 2, 3, 4) for base in (11, 0)),
    fine_tuning=FineTuning(num_steps=200, batch_size=16, learning_rate=5e-4, rank=16, fill_batches=100),
    num_scenes=64,
    num_clips=20,
    sample_steps=4,
)
STUDIES = {
    "full": _FULL,
    "real": replace(_FULL, name="real", source=Source.REAL_CLIPS),
    "small": Study(
        name="small",
        source=Source.TINY_WORLD,
        num_stories=4,
        base_steps=2,
        base_batch=2,
        units=(Unit(1, 1), Unit(1, 2)),
        fine_tuning=FineTuning(num_steps=2, batch_size=2, learning_rate=1e-3, rank=2, fill_batches=2),
        num_scenes=6,
        num_clips=3,
        sample_steps=1,
    ),
}


def require_same_study(study: Study, folder: Path) -> None:
    """Record the study of the folder, or refuse the folder of another one: bases and results are stored by name only.

    Raises:
        StudyError: the folder holds another study, other clips, or no record; or there are no clips.
    """
    wanted = study.as_data() | {"clips": study.source.clip_names()}
    _require_same(folder, wanted)
    if not (folder / "study.json").exists():
        write_json(folder / "study.json", wanted)


def require_same_settings(study: Study, folder: Path) -> None:
    """Like :func:`require_same_study`, for reading results, whose clips may be gone."""
    _require_same(folder, study.as_data())


def _require_same(folder: Path, wanted: dict) -> None:
    path = folder / "study.json"
    if not path.exists():
        if any((folder / name).exists() for name in ("data", "bases", "results")):
            raise StudyError(f"{folder} does not say which study it holds (study.json): choose another --folder, or remove it.")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        changes = "; ".join(f"{name}: {found.get(name)} -> {wanted[name]}" for name in differing)
        raise StudyError(f"{folder} holds another study ({changes}): choose another --folder, or remove this one.")


def base_path(folder: Path, chain: Chain, seed: int) -> Path:
    """Return the path of a base's weights."""
    return folder / "bases" / chain.name.lower() / f"{seed}.safetensors"


def result_path(folder: Path, chain: Chain, unit: Unit, arm: str) -> Path:
    """Return the path of an arm's measurements."""
    return folder / "results" / chain.name.lower() / f"{unit.base_seed}-{unit.lora_seed}" / f"{arm.replace(' ', '-')}.json"


def arm_order(study: Study) -> list[str]:
    """Return the names of all arms: base, plain, full, then the ablations."""
    return [BASE, PLAIN, FULL, *(name for name in study.arms if name not in (PLAIN, FULL))]


def write_json(path: Path, content: dict) -> None:
    """Write `content` atomically, making its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(content, indent=1).encode())
