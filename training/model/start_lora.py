"""Begin a training run from an existing LoRA file: read and check it before a model loads, then set the adapters to its change.

Source: docs/METHOD.md, 6.1 (which layers a released file changes), 6.2 (key forms), 6.3 (what must match).
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from svi_core.conditioning.dance import read_pose_encoder
from svi_core.files.fingerprint import file_sha256
from svi_core.files.safetensors_file import read_header
from svi_core.systems.layouts import Condition
from svi_core.systems.lora import LoraFile, expert_named_in, read_lora
from svi_core.systems.lora_keys import COMFY_PREFIX, canonical_key, split_key
from svi_core.systems.lora_parts import size_text
from training.model.adapters import LoraAdapters, expand_targets
from training.model.lora_pairs import LowRankPair, cut_to_rank, low_rank_pairs, squared_norm
from training.model.pose_encoder import TrainedPoses
from training.settings.sections import TrainingConfig

_MAX_NAMED = 4  # modules that a message names
_log = logging.getLogger(__name__)
Size = tuple[int, int]


@dataclass(frozen=True)
class StartRecord:
    """What a training run began from, for reports and headers.

    Attributes:
        file: name of the LoRA file.
        sha256: hash of its bytes.
        file_rank: its highest rank.
        rank: the rank of the run.
        num_layers: layers that began with its change.
        num_zero: trained layers that it does not hold, which began without a change.
        share_kept: share of the squared Frobenius norm of its change that is left at the run's rank.
    """

    file: str
    sha256: str
    file_rank: int
    rank: int
    num_layers: int
    num_zero: int
    share_kept: float

    def __str__(self) -> str:
        kept = f"rank {self.file_rank}"
        if self.share_kept < 1:
            kept += f" cut to {self.rank}, which keeps {100 * self.share_kept:.4g} % of its squared norm"
        elif self.file_rank < self.rank:
            kept += f" extended to {self.rank}"
        zero = f"; {self.num_zero} layers are not in it and begin at zero" if self.num_zero else ""
        return f"{self.file} (sha256 {self.sha256[:16]}), {self.num_layers} layers, {kept}{zero}"


@dataclass(frozen=True)
class StartLora:
    """A LoRA file that a training run begins from.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        pairs: its changes by layer, such as ``blocks.0.self_attn.q``.
        has_poses: whether it holds a pose encoder.
    """

    path: Path
    sha256: str
    pairs: Mapping[str, LowRankPair]
    has_poses: bool = False

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """Return `config` with the file's rank and alpha if it asks for them (lora.rank = 0).

        Where layers differ in rank, the highest counts; where they differ in alpha / rank, alpha becomes the rank.
        """
        if config.lora.rank:
            return config
        rank, scales = max(pair.rank for pair in self.pairs.values()), {pair.scale for pair in self.pairs.values()}
        scale = next(iter(scales)) if len(scales) == 1 and min(scales) > 0 else 1.0
        return replace(config, lora=replace(config.lora, rank=rank, alpha=rank * scale))

    def load_into(self, lora: LoraAdapters, poses: TrainedPoses | None) -> StartRecord:
        """Set `lora` to the file's change, or to the nearest one of its rank, and `poses` to the file's pose encoder.

        Args:
            lora: fresh adapters.
            poses: the pose encoder that begins as the file's; None if there is none or it begins as another file's.

        Raises:
            ValueError: the file does not fit the model.
        """
        own = {layer: (pair.up.shape[0], pair.down.shape[1]) for layer, pair in lora.pairs.items()}
        _require_fit(self.path.name, self.pairs, [], own, own)
        kept = whole = 0.0
        for layer, pair in self.pairs.items():
            cut = cut_to_rank(pair, lora.rank)
            lora.pairs[layer].begin_with(cut.down.float(), cut.up.float() * cut.scale)
            norm = squared_norm(pair)
            whole, kept = whole + norm, kept + (norm if cut is pair else squared_norm(cut))
        if poses and self.has_poses:
            self._load_poses(poses)
        file_rank = max(pair.rank for pair in self.pairs.values())
        share = kept / whole if kept < whole and file_rank > lora.rank else 1.0
        num_layers = len(self.pairs)
        return StartRecord(
            self.path.name, self.sha256, file_rank, lora.rank, num_layers, len(own) - num_layers, share_kept=share
        )

    def _load_poses(self, poses: TrainedPoses) -> None:
        encoder = read_pose_encoder(self.path)
        if encoder.dim != poses.encoder.dim:
            raise ValueError(
                f"lora.start_from: the pose encoder in {self.path.name} makes tokens of width {encoder.dim}, but the model's "
                f"tokens have width {poses.encoder.dim}: use a file for this size of Wan."
            )
        poses.encoder.load_state_dict(encoder.state_dict())


def read_start_lora(path: Path, model: Path, config: TrainingConfig) -> StartLora:
    """Return the LoRA in the file `path`. What its names say of another system or expert than `config` is a warning.

    Args:
        path: a LoRA file of any dialect.
        model: the base model's file, whose header tells the sizes of its layers.
        config: the settings of the run.

    Raises:
        ValueError: it is not a LoRA file, or `config` cannot go on with all of it; the message names the parts.
    """
    try:
        file = read_lora(path)
        pairs, others = low_rank_pairs(file.tensors)
    except ValueError as error:
        raise ValueError(f"lora.start_from: {error}") from error
    sizes = layer_sizes(model)
    targets = expand_targets(config.lora.targets)
    trained = {layer: size for layer, size in sizes.items() if layer.split(".", 2)[-1] in targets}
    if sizes:
        _require_fit(path.name, pairs, others, trained, sizes)
    bad = next((layer for layer, pair in pairs.items() if not _is_finite(pair)), None)
    if bad:
        raise ValueError(f"lora.start_from: {bad} in {path.name} holds NaN or infinity: use another copy, or an earlier file.")
    if file.num_pose_tensors and config.data.svi_layout.condition is not Condition.POSE:
        raise ValueError(
            f"lora.start_from: {path.name} holds a pose encoder, but data.layout = {config.data.layout!r} follows no poses: "
            "use preset = 'dance', or a LoRA without one."
        )
    _warn_of_contradictions(file, config)
    return StartLora(path, file_sha256(path), pairs, file.num_pose_tensors > 0)


def layer_sizes(model: Path) -> dict[str, Size | None]:
    """Return out and in features of the layers in the blocks of a model file, by bare name; None where weights are packed.

    Raises:
        ValueError: the file is not a valid safetensors file.
    """
    sizes: dict[str, Size | None] = {}
    for key, entry in read_header(model).items():
        name = canonical_key(key.removesuffix(".weight")).removeprefix(COMFY_PREFIX)
        if key.endswith(".weight") and name.startswith("blocks.") and len(entry["shape"]) == 2:
            shape = entry["shape"]
            sizes[name] = (shape[0], shape[1]) if "F" in entry["dtype"] else None
    return sizes


def _require_fit(
    file: str,
    pairs: Mapping[str, LowRankPair],
    others: list[str],
    trained: Mapping[str, Size | None],
    known: Mapping[str, Size | None],
) -> None:
    """Refuse a file that holds anything but changes of trained layers.

    Args:
        file: its name.
        pairs: its low-rank pairs.
        others: its keys that belong to no pair.
        trained: sizes of the layers that the run trains.
        known: sizes of all layers of the model's blocks.

    Raises:
        ValueError: the message names what does not fit, and counts what does.
    """
    parts: dict[str, list[str]] = {}
    for key in others:
        module, part = split_key(key)
        parts.setdefault(module, []).append(part)
    problems = [
        f"{module} ({', '.join(filter(None, names)) or 'an unknown ending'}: no low-rank pair)"
        for module, names in parts.items()
    ]
    for layer, pair in pairs.items():
        if reason := _misfit(layer, pair, trained, known):
            problems.append(f"{layer} ({reason})")
    if not problems and pairs:
        return
    total = len(parts) + len(pairs)
    named = "; ".join(problems[:_MAX_NAMED]) + ("; ..." if len(problems) > _MAX_NAMED else "")
    raise ValueError(
        f"lora.start_from: {total - len(problems)} of the {total} modules in {file} are layers that this run trains; it cannot "
        f"go on with {named or 'an empty file'}. Use a plain LoRA for this size of Wan and the layers in lora.targets, or "
        "change lora.targets."
    )


def _misfit(layer: str, pair: LowRankPair, trained: Mapping[str, Size | None], known: Mapping[str, Size | None]) -> str | None:
    """Return why the run cannot go on with a pair, or None if it can."""
    if layer not in known:
        return "no layer of the model's blocks"
    if layer not in trained:
        return "not in lora.targets"
    if pair.down.ndim != 2 or pair.up.ndim != 2:
        return "no matrices"
    size = trained[layer]
    if size is not None and pair.size != size:
        return f"{size_text(pair.size)}, but the model's is {size_text(size)}"
    return None


def _warn_of_contradictions(file: LoraFile, config: TrainingConfig) -> None:
    """Log a warning for each thing that the file says of itself and the run does otherwise. It may be meant."""
    try:
        variant = file.variant
    except ValueError as error:
        raise ValueError(f"lora.start_from: {error}") from error
    if variant and config.data.layout not in variant.layouts:
        _log.warning(
            "SVI: lora.start_from: %s is for %s, but this run trains layout %r. Set data.layout if that is not meant.",
            file.name,
            variant,
            config.data.layout,
        )
    expert = expert_named_in(file.name, file.metadata)
    if expert and config.model.expert != expert:
        _log.warning(
            "SVI: lora.start_from: %s says it is for the %s-noise expert, but model.expert is %r.",
            file.name,
            expert,
            config.model.expert,
        )


def _is_finite(pair: LowRankPair) -> bool:
    return math.isfinite(pair.scale) and all(bool(side.float().isfinite().all()) for side in (pair.down, pair.up))
