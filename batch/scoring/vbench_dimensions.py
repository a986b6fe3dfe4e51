"""VBench++'s dimensions, by VBench itself and its local models. Missing ones are named, never approximated.

VBench (https://github.com/Vchitect/VBench) pins old versions of its requirements, so it is no requirement of ours: install it
yourself and put its models into `VBENCH_CACHE_DIR` or ~/.cache/vbench.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batch.scoring import vbench_process
from batch.scoring.sample import Sample, link_or_copy
from svi_core.files.sealed_json import read_sealed, write_sealed

DIMENSIONS = {
    "subject_consistency": ("dino_model/facebookresearch_dino_main", "dino_model/dino_vitbase16_pretrain.pth"),
    "background_consistency": ("clip_model/ViT-B-32.pt",),
    "aesthetic_quality": ("clip_model/ViT-L-14.pt", "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"),
    "imaging_quality": ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",),
    "dynamic_degree": ("raft_model/models/raft-things.pth",),
    "motion_smoothness": ("amt_model/amt-s.pth",),
}
"""The dimensions that the paper reports, and the files that each needs below the cache folder.

The names are those that VBench 0.1.5 asks for (vbench/utils.py, vbench/aesthetic_quality.py). What it does not find
it would download; so nothing is measured whose files are not all there.
"""
_BY_TORCH_HUB = {"subject_consistency": "dino_vitbase16_pretrain.pth"}
"""Weights that a network asks torch.hub for by their address: not there, they would be downloaded.

Source: https://github.com/facebookresearch/dino, hubconf.py: VBench builds its DINO by it, and fills it with these first.
"""
_IN_PERCENT = ("imaging_quality",)  # VBench gives it per video from 0 to 100, all others from 0 to 1

Evaluate = Callable[[str, Path, Path], Any]  # (dimension, folder of videos, folder for its files) -> VBench's results


def cache_folder() -> Path:
    """Return the folder of VBench's models."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


def missing_for(dimension: str) -> str | None:
    """Return what `dimension` lacks on this machine; None if it can be measured."""
    if importlib.util.find_spec("vbench") is None:
        return "the package vbench is not installed"
    absent = [name for name in DIMENSIONS[dimension] if not (cache_folder() / name).exists()]
    if absent:
        return f"{', '.join(absent)} not in {cache_folder()}"
    if dimension in _BY_TORCH_HUB and not (path := _hub_checkpoint(_BY_TORCH_HUB[dimension])).is_file():
        return f"{path} is not there"
    return None


def _hub_checkpoint(name: str) -> Path:
    """Return where torch.hub keeps weights that it loads by their address."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / name


def judge(dimension: str, samples: Sequence[Sample], folder: Path, evaluate: Evaluate | None = None) -> dict[str, float] | str:
    """Return the values of videos in one dimension, 0 to 1, by name; or what is missing to judge.

    Args:
        dimension: one of DIMENSIONS.
        samples: the videos.
        folder: where values are kept, by the sha256 of the video, and where VBench writes its own files.
        evaluate: by default VBench itself.
    """
    missing = missing_for(dimension)
    if missing is not None:
        return missing
    known = _known(folder / f"{dimension}.json")
    new = [sample for sample in samples if sample.sha256 not in known]
    if new:
        known |= _judged(dimension, new, folder, evaluate or vbench_process.evaluate)
        write_sealed(folder / f"{dimension}.json", known)
    return {sample.name: known[sample.sha256] for sample in samples}


def _known(path: Path) -> dict[str, float]:
    try:
        return read_sealed(path)
    except (OSError, ValueError):
        return {}  # nothing is judged yet


def _judged(dimension: str, samples: Sequence[Sample], folder: Path, evaluate: Evaluate) -> dict[str, float]:
    """Return the values of VBench by sha256. It judges all videos of a folder, so they are linked into one."""
    links = folder / "videos.staging"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    for number, sample in enumerate(samples):
        link_or_copy(sample.video, links / f"{number:05d}.mp4")  # VBench goes by this suffix, its decoder by the content
    results = evaluate(dimension, links, folder)[dimension][1]
    values = {int(Path(result["video_path"]).stem): float(result["video_results"]) for result in results}
    shutil.rmtree(links, ignore_errors=True)
    scale = 100.0 if dimension in _IN_PERCENT else 1.0
    return {sample.sha256: values[number] / scale for number, sample in enumerate(samples)}
