"""``python -m batch table``: the table of a benchmark from a folder of images."""

from __future__ import annotations

import argparse
import sys

from batch.tables.benchmarks import BENCHMARKS, PRODUCTION
from batch.tables.build import TableSize, as_jsonl, rows
from batch.tables.kept_prompts import KeptPrompts
from batch.tables.language_model import LanguageModel, PromptWriter
from batch.tables.subjects import read_subjects
from batch.text_workflow import TextWorkflow
from svi_core.files.atomic_file import write_bytes


def main(options: argparse.Namespace) -> int:
    """Write the table; return the exit code: 0 it is there, 2 bad arguments."""
    benchmark, kept = BENCHMARKS[options.benchmark], KeptPrompts(options.output)
    try:
        model = _language_model(options)
        subjects = read_subjects(options.images)
        size = TableSize(
            options.samples or benchmark.num_samples, options.clips or benchmark.num_clips, checks_length=not options.clips
        )
        table = []
        for row in rows(benchmark, subjects, size, options.seed, model, kept):
            table.append(row)
            if model is not None:
                sys.stderr.write(f"[svi] {len(table)} of {size.num_samples}: {row['name']}\n")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(options.output, as_jsonl(table))
        kept.remove()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"[svi] error: {error}\n")
        if len(kept):
            sys.stderr.write(
                f"[svi] the prompts of {_counted(len(kept), 'story', 'stories')} are kept: the same command goes on\n"
            )
        return 2
    images, clips = _counted(len(subjects), "image", "images"), _counted(size.num_clips, "clip", "clips")
    few = f", from {images} with several seeds each" if len(subjects) < len(table) else ""
    sys.stderr.write(f"[svi] {options.output}: {_counted(len(table), 'story', 'stories')} of {clips}{few}\n")
    return 0


def _language_model(options: argparse.Namespace) -> PromptWriter | None:
    """Return what writes the prompts; None for SVI Storyline's templates. Raises ValueError."""
    if options.llm_sees_images and not options.llm_model:
        raise ValueError(
            "--llm-sees-images needs --llm-model; a workflow of --llm-workflow sees the image if it has Load Image"
        )
    if not options.llm and not options.llm_model and not options.llm_workflow:
        return None
    if options.benchmark == PRODUCTION:
        raise ValueError(f"the stories of {PRODUCTION} are written already: leave --llm out")
    if not options.llm or bool(options.llm_model) == bool(options.llm_workflow):
        raise ValueError("--llm needs --llm-model, or for a ComfyUI --llm-workflow, and each of them needs --llm")
    if options.llm_workflow:
        return TextWorkflow(options.llm, options.llm_workflow)
    return LanguageModel(options.llm, options.llm_model, options.llm_sees_images)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
