"""Apply LoRA files of any dialect to a Wan model or a pair of experts, and report what matched."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..svi_core.files.fingerprint import large_file_fingerprint
from ..svi_core.files.safetensors_file import read_header
from ..svi_core.schedule.spec import LoraStrength
from ..svi_core.systems.lora import LoraFile, LoraReport, read_lora, report_match, stacking_warning
from ..svi_core.systems.lora_variant import LoraVariant, variant_of_lora
from ..svi_core.systems.variants import VARIANTS, WAN21, WAN22
from .bridge import models
from .bridge.applied_loras import attach_lora
from .bridge.lora_patches import match_lora
from .bridge.node_ids import LORA_STACK
from .bridge.schemas import svi_schema

NONE = "none"
LoraRows = io.Custom("SVI_LORAS")
CLAIMS_KEY = "svi_claims"  # attachment of a MODEL, kept by its clones: what its LoRAs were trained for
ReadLora = Callable[[Path, str], LoraFile]


@dataclass(frozen=True)
class LoraRow:
    """One row of a LoRA stack: a file and a strength for each expert."""

    name: str
    strength: float
    name_low_noise: str
    strength_low_noise: float

    @property
    def sides(self) -> tuple[tuple[str, float], tuple[str, float]]:
        """(file, strength) for the model or the high-noise expert, then for the low-noise one."""
        return (self.name, self.strength), (self.name_low_noise, self.strength_low_noise)


def row_inputs() -> tuple[io.Input, io.Input, io.Input]:
    """Return the inputs that every row has: two files, and the rows before it."""
    files = [NONE, *folder_paths.get_filename_list("loras")]
    low = {"display_name": "low-noise LoRA", "tooltip": "LoRA of the low-noise expert (Wan 2.2); none for Wan 2.1."}
    return (
        io.Combo.Input("lora", options=files, tooltip="LoRA of the model, or of the high-noise expert."),
        io.Combo.Input("lora_low_noise", options=files, **low),
        LoraRows.Input("loras", optional=True, tooltip="The rows before this one. All rows add up."),
    )


def rows_output() -> io.Output:
    """Return the output of every row."""
    return LoraRows.Output("stack", display_name="loras", tooltip="All rows so far, for the next row or SVI LoRA Stack.")


class SVILora(io.ComfyNode):
    """Add a LoRA, or a high / low pair, to a stack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        high_file, low_file, earlier_rows = row_inputs()
        strength = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01}
        return svi_schema(
            node_id="SVILora",
            display_name="SVI LoRA",
            description="One row of a LoRA stack. Chain any number of rows and connect the last one to SVI LoRA Stack.",
            category="models",
            search_aliases=["lora row", "high low lora"],
            inputs=[
                high_file,
                io.Float.Input("strength", tooltip="1: as in training. LightX2V, high noise: 0.5 to 0.6.", **strength),
                low_file,
                io.Float.Input("strength_low_noise", display_name="its strength", tooltip="1: as in training.", **strength),
                earlier_rows,
            ],
            outputs=[rows_output()],
        )

    @classmethod
    def execute(cls, lora, strength, lora_low_noise, strength_low_noise, loras=()) -> io.NodeOutput:
        return io.NodeOutput((*(loras or ()), lora_row(lora, strength, lora_low_noise, strength_low_noise)))


class SVILoraStack(io.ComfyNode):
    """Apply a stack of LoRAs and report what matched."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=LORA_STACK,
            display_name="SVI LoRA Stack",
            description="Apply LoRAs to one Wan model or to both Wan 2.2 experts. Reads official SVI 1.0 and 2.x files, "
            "kijai's repacks, and files of DiffSynth, kohya and diffusers. A file that would change nothing is an error.",
            category="models",
            search_aliases=["load lora", "svi lora", "lora key not loaded"],
            inputs=[
                io.Model.Input("model", tooltip="The Wan model, or the high-noise expert of Wan 2.2."),
                LoraRows.Input("loras", tooltip="From SVI LoRA."),
                io.Model.Input("model_low_noise", optional=True, tooltip="The low-noise expert of Wan 2.2."),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="The model with its LoRAs."),
                io.Model.Output("model_low_noise_out", display_name="model_low_noise", tooltip="The expert with its LoRAs."),
                io.String.Output("report", tooltip="What of each file is merged, and what is not."),
            ],
        )

    @classmethod
    def execute(cls, model, loras, model_low_noise=None) -> io.NodeOutput:
        model, model_low_noise, reports = apply_rows(model, model_low_noise, loras)
        log_reports(reports)
        return io.NodeOutput(model, model_low_noise, "\n".join(map(str, reports)) or "no LoRA applied")


def lora_row(lora: str, strength: float, lora_low_noise: str, strength_low_noise: float) -> LoraRow:
    """Return the row that the widgets of SVI LoRA describe.

    Raises:
        ValueError: a strength that is not a finite number.
    """
    for name, value in (("strength", strength), ("strength_low_noise", strength_low_noise)):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}: use a number, 1 as in training.")
    return LoraRow(lora, strength, lora_low_noise, strength_low_noise)


def apply_rows(
    model, model_low_noise, rows: tuple[LoraRow, ...], read: ReadLora = read_lora
) -> tuple[object, object, list[LoraReport]]:
    """Return clones of both models (the second may be None) with `rows` applied in order, and a report per file.

    `read` opens a file; pass a caching one to apply the same files several times.

    Raises:
        ValueError: a low-noise file without a low-noise model, or a file that :func:`apply_lora` refuses.
    """
    stray = [row.name_low_noise for row in rows if row.name_low_noise != NONE and model_low_noise is None]
    if stray:
        raise ValueError(
            f"lora_low_noise is {stray[0]!r}, but no model_low_noise is connected: connect the low-noise expert, or choose "
            "'none' for a model without experts (Wan 2.1)."
        )
    expert = "model" if model_low_noise is None else "high"
    model, reports = _apply_files(model, expert, [(row.name, row.strength) for row in rows], read)
    if model_low_noise is not None:
        low_files = [(row.name_low_noise, row.strength_low_noise) for row in rows]
        model_low_noise, more = _apply_files(model_low_noise, "low", low_files, read)
        reports += more
    return model, model_low_noise, reports


def log_reports(reports: list[LoraReport]) -> None:
    """Write `reports` to the server's log."""
    for report in reports:
        logging.log(logging.INFO if report.is_complete else logging.WARNING, "SVI LoRA Stack: %s", report)


def with_strengths(rows: tuple[LoraRow, ...], changes: tuple[LoraStrength, ...]) -> tuple[LoraRow, ...]:
    """Return `rows` with the strengths of one clip's schedule, where a name is any part of a row's file name.

    Raises:
        ValueError: a name that no row's file name contains.
    """
    for change in changes:
        hits = [change.name.lower() in f"{row.name} {row.name_low_noise}".lower() for row in rows]
        if not any(hits):
            known = ", ".join(row.name for row in rows) or "none"
            remedy = "write a part of one of these names" if rows else "connect SVI LoRA to the loras input of SVI Generate"
            raise ValueError(f"the schedule changes LoRA {change.name!r}, but the rows are {known}: {remedy}.")
        changed = [replace(row, strength=change.high, strength_low_noise=change.low) for row in rows]
        rows = tuple(new if hit else row for row, new, hit in zip(rows, changed, hits, strict=True))
    return rows


def attached_variants(model) -> tuple[LoraVariant, ...]:
    """Return what the LoRAs that SVI LoRA Stack put on `model` were trained for."""
    return model.get_attachment(CLAIMS_KEY) or ()


def variants_of_rows(rows: tuple[LoraRow, ...]) -> dict[str, LoraVariant]:
    """Return, by file, what the files of `rows` were trained for, where their headers or names say.

    Raises:
        ValueError: a damaged safetensors file, or an unknown SVI system.
    """
    names = dict.fromkeys(name for row in rows for name, _ in row.sides if name != NONE)
    claims = {name: variant_of_lora(name, read_header(_lora_path(name)).get("__metadata__", {})) for name in names}
    return {name: claim for name, claim in claims.items() if claim}


def lora_files_fingerprint(rows: tuple[LoraRow, ...]) -> list[str]:
    """Return a hash of each file of `rows`, in order."""
    names = [name for row in rows for name in (row.name, row.name_low_noise)]
    return [NONE if name == NONE else large_file_fingerprint(_lora_path(name)) for name in names]


def apply_lora(model, lora: LoraFile, expert: str, strength: float) -> tuple[object, LoraReport]:
    """Return a clone of `model` with `lora` patched in through ComfyUI's ModelPatcher, and the report.

    Raises:
        ValueError: it would change nothing (a LoRA for Wan 1.3B on 14B, say), or replaces weights by some of another size.
    """
    patches, match = match_lora(model, lora)
    report = report_match(lora, match, expert, strength)
    patched = model.clone()
    patched.add_patches(patches, strength)
    if warning := _base_warning(model, report.variant):
        report = replace(report, warnings=(*report.warnings, warning))
    attach_lora(patched, lora.name, report.variant, patches)
    if report.variant:
        patched.set_attachments(CLAIMS_KEY, (*attached_variants(model), report.variant))
    return patched, report


def _base_warning(model, claim: LoraVariant | None) -> str | None:
    """Return a warning if a LoRA's name says that it was trained on the other version of Wan.

    Source: docs/METHOD.md, 6.3: do not apply a Wan 2.1 SVI LoRA to Wan 2.2; each needs its own training.
    """
    if claim is None or claim.is_certain:
        return None
    bases = {VARIANTS[name].base for name in claim.layouts}
    base = WAN21 if models.needs_clip_vision(model) else WAN22
    return None if base in bases else f"it is for {' or '.join(sorted(bases))}, but this model is {base}."


def _apply_files(model, expert: str, files: list[tuple[str, float]], read: ReadLora) -> tuple[object, list[LoraReport]]:
    """Apply (file name, strength) rows in order, skipping 'none' and strength 0."""
    models.require_i2v(model, "model_low_noise" if expert == "low" else "model")
    reports, applied = [], []
    for name, strength in files:
        if name == NONE or strength == 0.0:
            continue
        lora = read(_lora_path(name), name)
        model, report = apply_lora(model, lora, expert, strength)
        if warning := stacking_warning(lora, applied):
            report = replace(report, warnings=(*report.warnings, warning))
        applied.append(replace(lora, tensors={}))
        reports.append(report)
    return model, reports


def _lora_path(name: str) -> Path:
    return Path(folder_paths.get_full_path_or_raise("loras", name))
