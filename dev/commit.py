"""The commit that a measurement or a test run belongs to."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dev.setup_files import REPOSITORY


def commit_of(code: Sequence[str]) -> str:
    """Return the short hash of the checked-out commit, and whether the files of `code` (git's pathspecs) have changed.

    SVI_COMMIT gives it for files that were copied without their history.
    """
    if told := os.environ.get("SVI_COMMIT"):
        return told
    done = git(REPOSITORY, "rev-parse", "--short", "HEAD")
    if done is None:
        return "not a git checkout"
    changed = git(REPOSITORY, "status", "--porcelain", "--untracked-files=no", "--", *code)
    return done + (" with uncommitted changes" if changed else "")


def git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints in `folder`; None if it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()
