"""Check the pack as the Comfy registry does before it takes one, and build the archive that its users get.

    python -m dev.environment --extra test --run -m dev.archive             # a check, part of `make lint`
    python -m dev.environment --extra test --run -m dev.archive node.zip    # and keep the archive

comfy-cli does both, as for `comfy node publish`: the archive holds what git tracks, less what `.comfyignore` names.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

from dev.setup_files import REPOSITORY, say

CONTENT = frozenset(
    {
        *("__init__.py", "nodes", "svi_core", "training", "batch", "comfyui", "web", "locales", "workflows", "subgraphs"),
        *("pyproject.toml", "requirements.txt", "LICENSE", "README.md", "CHANGELOG.md"),
        *("docs/METHOD.md", "docs/IMPORTING.md", "docs/COMPATIBILITY.md", "docs/BATCH.md", "docs/STORYBOARD.md", "docs/images"),
        *("benchmarks/DRIFT.md", "benchmarks/RESULTS.md"),
    }
)
MAX_BYTES = 5_000_000


def registry_complaints() -> str:
    """Return what `comfy node validate` has to say against this pack; empty if all is well.

    It names wrong fields of pyproject.toml and dangerous calls, but calls neither an error.
    """
    command = [sys.executable, "-m", "comfy_cli", "node", "validate"]
    variables = {**os.environ, "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8"
    )
    told = done.stdout + done.stderr
    passed = done.returncode == 0 and "All validation checks passed" in told and "Warning" not in told
    return "" if passed else told


def build_archive(path: Path) -> None:
    """Write the registry's archive of this pack to `path`, a zip file."""
    from comfy_cli.file_utils import zip_files
    from comfy_cli.registry.config_parser import extract_node_configuration

    path = path.absolute()
    with contextlib.chdir(REPOSITORY), contextlib.redirect_stdout(sys.stderr):
        configuration = extract_node_configuration(str(REPOSITORY / "pyproject.toml"))
        assert configuration is not None, "pyproject.toml was read by `comfy node validate`"
        zip_files(path, configuration.tool_comfy.includes)


def archive_complaints(path: Path) -> list[str]:
    """Return what is wrong with the archive at `path`: its size, and files that no user needs."""
    with ZipFile(path) as archive:
        names = archive.namelist()
    foreign = [name for name in names if CONTENT.isdisjoint((name, *map(str, PurePosixPath(name).parents)))]
    complaints = [f"the archive holds {name}: name it in .comfyignore, or in CONTENT of dev/archive.py" for name in foreign]
    if (size := path.stat().st_size) >= MAX_BYTES:
        complaints.append(f"the archive has {size / 1e6:.1f} MB; {MAX_BYTES / 1e6:.0f} MB are too many: see `unzip -lv {path}`")
    return complaints


def main(arguments: Sequence[str] | None = None) -> int:
    """Check pack and archive; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if complaint := registry_complaints():
        say(f"error: `comfy node validate` complains:\n{complaint}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments[0]) if arguments else Path(folder) / "node.zip"
        build_archive(path)
        complaints = archive_complaints(path)
        for complaint in complaints:
            say(f"error: {complaint}")
        say(f"the registry's archive has {path.stat().st_size / 1e6:.1f} MB{f': {path}' if arguments else ''}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
