"""List the benchmarks: ``python -m benchmarks``."""

import ast
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def benchmarks(folder: Path = FOLDER) -> dict[str, str]:
    """Return the first docstring line of each benchmark, by the name of its folder."""
    packages = [path.parent for path in sorted(folder.glob("*/__main__.py"))]
    described = {package.name: ast.get_docstring(ast.parse((package / "__init__.py").read_text())) for package in packages}
    return {name: (text or "").split("\n")[0] for name, text in described.items()}


def main() -> None:
    """Print one line for each benchmark."""
    for name, purpose in benchmarks().items():
        sys.stdout.write(f"python -m benchmarks.{name}\n    {purpose}\n")


if __name__ == "__main__":
    main()
