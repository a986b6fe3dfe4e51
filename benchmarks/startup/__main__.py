"""Import the pack in several processes and print the times: ``python -m benchmarks.startup``."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results, command_line
from benchmarks.startup.importing import imported_pack
from dev.environment import REPOSITORY, ensure_environment, say

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
NUM_PROCESSES = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    parser = command_line("startup", "What the pack adds to ComfyUI's start.", OUTPUT)
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to publish")
    options = parser.parse_args(arguments)
    environment, count = ensure_environment(), 1 if options.quick else NUM_PROCESSES
    results = Results(options.output / "startup.json", {"count": count}, machine_facts(environment.comfyui), options.fresh)
    with tempfile.TemporaryDirectory() as folder:

        def measured() -> dict[str, float]:
            found = imported_pack(environment, Path(folder))
            ours = [name for name in found["modules"] if name.split(".")[0] == "a_pack"]
            return {"modules": len(ours), "cpu": found["cpu_seconds"], "wall": found["wall_seconds"]}

        for number in range(count + 1):
            say(f"startup: process {number} of {count}" if number else "startup: a process that writes bytecode files")
            results.get(f"process {number}", measured)
    text = report(results)
    (options.output / "startup.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def report(results: Results) -> str:
    """Return the times of all processes but the first, which had no bytecode files."""
    _, *runs = results.measured.values()
    spread = {kind: [run[kind] for run in runs] for kind in ("cpu", "wall")}
    rows = [
        (f"{kind} s to import the pack", *(f"{value:.3f}" for value in (median(times), min(times), max(times))))
        for kind, times in spread.items()
    ]
    facts = "".join(f"- {name}: {value}\n" for name, value in results.content["machine"].items())
    head = (f"{len(runs)} processes, {runs[0]['modules']} modules", "median", "least", "most")
    return f"{table(head, rows)}\n\n{facts}"


if __name__ == "__main__":
    sys.exit(main())
