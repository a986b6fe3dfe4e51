"""Import the pack in a process of its own, as ComfyUI does, and look at what that added."""

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from comfyui.environment import process_variables
from dev.environment import Environment
from dev.setup_files import REPOSITORY

_PROGRAM = """
    import json, sys, threading, time
    root, tree, bytecode = sys.argv[1:4]
    sys.path.insert(0, tree)
    import comfy.options
    comfy.options.enable_args_parsing(False)
    import comfy.cli_args
    comfy.cli_args.args.cpu = True
    import comfy.sd, execution, nodes, server, torch
    import comfy_api.latest
    import importlib.util

    def operators():
        return set(torch._C._dispatch_get_all_op_names())

    sys.dont_write_bytecode, sys.pycache_prefix = False, bytecode
    modules, known, threads = set(sys.modules), operators(), threading.active_count()
    spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
    pack = importlib.util.module_from_spec(spec)
    sys.modules["a_pack"] = pack
    cpu, wall = time.process_time(), time.perf_counter()
    spec.loader.exec_module(pack)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({
        "modules": sorted(set(sys.modules) - modules),
        "operators": sorted(operators() - known),
        "threads": threading.active_count() - threads,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
    }))
"""


def imported_pack(environment: Environment, folder: Path) -> dict[str, Any]:
    """Return what the import adds to a process that has ComfyUI's core: modules, operators, threads, and seconds.

    Args:
        folder: the process's working directory, and where it reads and writes bytecode files, as ComfyUI does beside the pack,
            whatever the environment variables of this machine say: without them most of the time is compiling.

    Raises:
        RuntimeError: the process failed.
    """
    command = [str(environment.python), "-c", textwrap.dedent(_PROGRAM)]
    command += [str(path) for path in (REPOSITORY, environment.comfyui, folder / "bytecode")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=process_variables(environment))
    if done.returncode:
        raise RuntimeError(f"the pack could not be imported:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
