"""A plugin of pytest that records each outcome as soon as it is known, so that a killed run keeps what it has tested."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dev.commit import commit_of
from dev.matrix.results import RECORD_VARIABLE

CODE = ("*.py", "*.js", "*.css", "*.toml", "workflows", "locales")


def pytest_configure(config: pytest.Config) -> None:
    """Record into the file that the environment variable names."""
    config.pluginmanager.register(Recorder(Path(os.environ[RECORD_VARIABLE])))


class Recorder:
    """Appends JSON lines to `path`: one that names commit, date and all tests of the run, then one for each outcome."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Record the tests that there are, before a selection (-k) leaves some of them out."""
        wants_slow = config.getoption("--slow")
        tests = [item.nodeid for item in items if wants_slow or not item.get_closest_marker("slow")]
        self._write({"commit": commit_of(CODE), "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "tests": tests})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a test that ran or was skipped, and any part of a test that failed, be it the setup or the teardown."""
        if report.when == "call" or not report.passed:
            self._write({"test": report.nodeid, "outcome": report.outcome})

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as record:
            record.write("\n" + json.dumps(line))  # first the end of a line that a killed run may have cut short
