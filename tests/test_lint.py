"""The tree is clean by its own settings of ruff and pyright (pyproject.toml), and by the registry's, as `make lint` checks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    ("ruff", "check", "--no-cache", "."),
    ("ruff", "format", "--check", "--no-cache", "."),
    ("basedpyright", "--pythonpath", sys.executable),
    ("dev.archive",),
)


def test_workflows_run_actions_of_others_by_commit():
    """A branch may change under us, and the action that publishes is given the registry's token."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    used = [name for text in texts for name in re.findall(r"uses:\s*(\S+)", text)]
    assert any(name.startswith("Comfy-Org/") for name in used)
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+|[\w./-]+@[0-9a-f]{40}", name)] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_the_tree_is_clean(command: tuple[str, ...]):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
