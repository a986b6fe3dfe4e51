"""The campaign of a test run: two minutes for all families together, unless `python -m tests.fuzz` says otherwise."""

import os
from collections import Counter

import pytest

from tests.fuzz.campaign import Campaign
from tests.nodes.conftest import model, pack  # noqa: F401
from tests.training.conftest import one_thread, training_mode, wan_folder  # noqa: F401

SEED, MINUTES = "14", "2"


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """The seed, and this test's share of its family's share of the time: a family is a file."""
    tests = Counter(item.path for item in request.session.items if "campaign" in getattr(item, "fixturenames", ()))
    seconds = 60 * float(os.environ.get("SVI_FUZZ_MINUTES", MINUTES)) / len(tests) / tests[request.path]
    return Campaign(int(os.environ.get("SVI_FUZZ_SEED", SEED)), seconds, int(os.environ.get("SVI_FUZZ_BATCHES", "0")))
