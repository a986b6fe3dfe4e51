"""``python -m batch table``: the table of a benchmark from a folder of images."""

from __future__ import annotations

import argparse
import sys

from batch.tables.benchmarks import BENCHMARKS
from batch.tables.build import TableSize, as_jsonl, rows
from batch.tables.language_model import LanguageModel
from batch.tables.subjects import read_subjects
from svi_core.files.atomic_file import write_bytes


def main(options: argparse.Namespace) -> int:
    """Write the table; return the exit code: 0 it is there, 2 bad arguments."""
    benchmark = BENCHMARKS[options.benchmark]
    try:
        if bool(options.llm) != bool(options.llm_model):
            raise ValueError("--llm and --llm-model belong together: give both or none")
        model = LanguageModel(options.llm, options.llm_model, options.llm_sees_images) if options.llm else None
        subjects = read_subjects(options.images)
        size = TableSize(
            options.samples or benchmark.num_samples, options.clips or benchmark.num_clips, checks_length=not options.clips
        )
        table = []
        for row in rows(benchmark, subjects, size, options.seed, model):
            table.append(row)
            if model is not None:
                sys.stderr.write(f"[svi] {len(table)} of {size.num_samples}: {row['name']}\n")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(options.output, as_jsonl(table))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"[svi] error: {error}\n")
        return 2
    images, clips = _counted(len(subjects), "image", "images"), _counted(size.num_clips, "clip", "clips")
    few = f", from {images} with several seeds each" if len(subjects) < len(table) else ""
    sys.stderr.write(f"[svi] {options.output}: {_counted(len(table), 'story', 'stories')} of {clips}{few}\n")
    return 0


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
