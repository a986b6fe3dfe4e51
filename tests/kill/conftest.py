"""The kills of a test run: a few fixed rounds, unless `python -m tests.kill` says otherwise."""

import pytest

from tests.kill.campaign import Kills
from tests.training.conftest import one_thread, training_mode, wan_folder  # noqa: F401


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> Kills:
    """Which rounds of kills to make; the tests of a file share its time."""
    sharing = [item for item in request.session.items if item.path == request.path and "kills" in item.fixturenames]
    return Kills.of_this_process(len(sharing))
