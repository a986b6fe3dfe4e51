"""``python -m tests``: workers for the whole suite, none for a part of it, and what the user says comes last."""

from types import SimpleNamespace

import pytest

from tests.__main__ import WORKERS, pytest_arguments
from tests.conftest import REPOSITORY, file_or_room, pytest_collection_modifyitems


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def collected(room, *marks):
    return SimpleNamespace(path=REPOSITORY / "tests" / room / "test_x.py", get_closest_marker=lambda name: name in marks)


def configured(slow):
    left_out = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    return SimpleNamespace(getoption=lambda name: slow, hook=hook, left_out=left_out)


@pytest.mark.parametrize(
    "arguments", [[], ["--slow"], ["-k", "a_killed_run"], ["-m", "not browser", "-x"], ["-n", "0"], ["-n0"]], ids=str
)
def test_the_suite_is_shared_out_and_the_users_options_win(arguments):
    assert pytest_arguments(arguments) == [*WORKERS, *arguments]


@pytest.mark.parametrize("path", ["tests/core", "tests/test_command.py", "tests/test_command.py::test_x", "."])
def test_a_path_is_tested_in_one_process(path):
    assert pytest_arguments(["-x", path]) == ["-x", path]


def test_the_slowest_rooms_are_collected_first():
    items = [collected(room) for room in ("core", "e2e", "nodes", "browser")]
    pytest_collection_modifyitems(configured(slow=False), items)
    assert [item.path.parent.name for item in items] == ["browser", "e2e", "core", "nodes"]


def test_slow_tests_run_when_they_are_asked_for():
    quick, slow = collected("core"), collected("kill", "slow")
    for asked_for, kept, left_out in ((True, [slow, quick], []), (False, [quick], [slow])):
        items, config = [quick, slow], configured(asked_for)
        pytest_collection_modifyitems(config, items)
        assert items == kept and config.left_out == left_out


def test_one_worker_has_all_of_the_browser():
    files = ["tests/browser/test_plan.py", "tests/browser/test_front_end.py", "tests/e2e/test_plan.py", "tests/test_lint.py"]
    assert [file_or_room(file) for file in files] == ["tests/browser", "tests/browser", *files[2:]]
