"""The kills of a test run: a few fixed rounds, unless `python -m tests.kill` says otherwise."""

import os

import pytest

from tests.kill.campaign import Kills
from tests.training.conftest import one_thread, training_mode, wan_folder  # noqa: F401


@pytest.fixture
def kills() -> Kills:
    """Which rounds of kills to make."""
    seconds = 60 * float(os.environ.get("SVI_KILL_MINUTES", "0"))
    seed, rounds = int(os.environ.get("SVI_KILL_SEED", "14")), int(os.environ.get("SVI_KILL_ROUNDS", "3"))
    return Kills(seed, seconds, rounds, by_time=os.environ.get("SVI_KILL_BY_TIME") == "1")
