"""Sync-C and Sync-D by SyncNet's own programs, if the user has them with their models.

Source: https://github.com/joonson/syncnet_python. Clone it, run its download_model.sh, and name the folder in `SYNCNET_DIR`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from batch.scoring.sample import link_or_copy

NEEDED = ("run_pipeline.py", "run_syncnet.py", "data/syncnet_v2.model", "detectors/s3fd/weights/sfd_face.pth")
_VARIABLE = "SYNCNET_DIR"

Program = Callable[[list[str], Path], str]  # (command, working folder) -> what it printed


def missing() -> str | None:
    """Return what is lacking; None if lip movements can be judged."""
    folder = os.environ.get(_VARIABLE)
    if not folder:
        return f"SyncNet's folder is not named in {_VARIABLE}"
    absent = [name for name in NEEDED if not (Path(folder) / name).exists()]
    return f"{', '.join(absent)} not in {folder}" if absent else None


def confidence_and_distance(video: Path, run: Program | None = None) -> tuple[float, float]:
    """Return Sync-C and Sync-D of a video, means over its face tracks.

    Raises:
        ValueError: a program failed, or found no face.
    """
    run = run or _run
    folder = Path(os.environ[_VARIABLE]).absolute()
    with tempfile.TemporaryDirectory(prefix="svi_sync_") as work:
        if os.name == "posix" and shlex.quote(work) != work:
            raise ValueError(f"SyncNet cannot work in {work!r}, whose name a shell would change: set TMPDIR to a plain path")
        plain = _plainly_named(video, Path(work))
        arguments = ["--videofile", str(plain), "--reference", "video", "--data_dir", work]
        run([sys.executable, "run_pipeline.py", *arguments], folder)
        said = run([sys.executable, "run_syncnet.py", *arguments], folder)
    found = [[float(value) for value in re.findall(rf"{name}:\s*([-\d.]+)", said)] for name in ("Confidence", "Min dist")]
    if not found[0] or len(found[0]) != len(found[1]):
        raise ValueError(f"SyncNet found no face in {video.name}")
    confidence, distance = (sum(values) / len(values) for values in found)
    return confidence, distance


def _plainly_named(video: Path, folder: Path) -> Path:
    """Return a link to `video`, or a copy: SyncNet puts the name that it is given into a shell's command line."""
    link = folder / f"input.{re.sub('[^a-z0-9]', '', video.suffix.lower()) or 'mp4'}"
    link_or_copy(video, link)
    return link


def _run(command: list[str], folder: Path) -> str:
    ended = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if ended.returncode != 0:
        last = " ".join(ended.stderr.strip().splitlines()[-1:])
        raise ValueError(f"{command[1]} of SyncNet ended with {ended.returncode}: {last}")
    return ended.stdout
