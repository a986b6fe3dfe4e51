"""VBench's dimensions, by VBench itself and its local models. Missing ones are named, never approximated.

VBench (https://github.com/Vchitect/VBench) pins old versions of its requirements, so it is no requirement of ours: install it
yourself and put its models into `VBENCH_CACHE_DIR` or ~/.cache/vbench.
"""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

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


def cache_folder() -> Path:
    """Return the folder of VBench's models."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


def missing_for(dimension: str) -> str | None:
    """Return what `dimension` lacks on this machine; None if it can be measured."""
    if importlib.util.find_spec("vbench") is None:
        return "the package vbench is not installed"
    absent = [name for name in DIMENSIONS[dimension] if not (cache_folder() / name).exists()]
    return f"{', '.join(absent)} not in {cache_folder()}" if absent else None


def measure(videos: Path, output: Path, evaluate: Callable[..., dict] | None = None) -> dict[str, float | str]:
    """Return each dimension's mean over the videos in a folder, or "not run: " and what is missing.

    Args:
        videos: folder of mp4 files.
        output: where VBench writes its own files.
        evaluate: (dimension, videos, output) -> VBench's result; by default VBench's own.
    """
    found: dict[str, float | str] = {}
    for dimension in DIMENSIONS:
        missing = missing_for(dimension)
        if missing is not None:
            found[dimension] = f"not run: {missing}"
        else:
            found[dimension] = float((evaluate or _evaluate)(dimension, videos, output)[dimension][0])
    return found


def _evaluate(dimension: str, videos: Path, output: Path) -> dict:
    """Let VBench measure one dimension on custom videos."""
    import torch
    from vbench import VBench

    output.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    information = output / "no_prompts.json"
    information.write_text("[]")
    judge = VBench(torch.device(device), str(information), str(output))
    judge.evaluate(videos_path=str(videos), name=dimension, dimension_list=[dimension], local=True, mode="custom_input")
    return json.loads((output / f"{dimension}_eval_results.json").read_text())
