"""Let VBench measure one dimension, in a process of its own: it holds whole videos in memory, and may be killed for that.

python -m batch.scoring.vbench_process DIMENSION FOLDER_OF_VIDEOS FOLDER_FOR_ITS_FILES
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from comfyui.environment import REPOSITORY


def evaluate(dimension: str, videos: Path, output: Path) -> Any:
    """Return VBench's results for the custom videos in a folder.

    Raises:
        ValueError: VBench failed, or was killed.
    """
    command = [sys.executable, "-m", __name__, dimension, str(videos.absolute()), str(output.absolute())]
    ended = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if ended.returncode < 0:
        raise ValueError(
            f"VBench was killed by signal {-ended.returncode}, perhaps for want of memory: it holds a whole video at once, "
            "19 GB for 250 s of 832 x 480; score shorter videos, or on a machine with more memory"
        )
    if ended.returncode != 0:
        last = " ".join(ended.stderr.decode("utf-8", "replace").strip().splitlines()[-1:])
        raise ValueError(f"VBench failed: {last}")
    return json.loads((output / f"{dimension}_eval_results.json").read_text())


def main(dimension: str, videos: str, output: str) -> None:
    """Measure, and leave the results where VBench writes them."""
    import torch
    from vbench import VBench  # pyright: ignore[reportMissingImports]

    information = Path(output, "no_prompts.json")
    information.write_text("[]")
    judges = VBench(torch.device("cuda" if torch.cuda.is_available() else "cpu"), str(information), output)
    judges.evaluate(videos_path=videos, name=dimension, dimension_list=[dimension], local=True, mode="custom_input")


if __name__ == "__main__":
    main(*sys.argv[1:])
