"""Train on fake examples in a process of its own, slowly enough to be interrupted.

python -m tests.training.train_fake CONFIG.json [resume]
"""

import json
import sys
from pathlib import Path

import torch

from tests.training.fakes import SlowDataset
from training.method.distributed import join_group
from training.run.session import run_training
from training.settings.reader import config_from


def open_data(config, per_step):
    return SlowDataset()


def main() -> int:
    torch.set_num_threads(1)
    config = config_from(json.loads(Path(sys.argv[1]).read_text()))
    group = join_group()
    try:
        return run_training(config, group, open_data, resume="resume" in sys.argv[2:])
    finally:
        group.close()


if __name__ == "__main__":
    sys.exit(main())
