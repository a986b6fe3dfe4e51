"""What importing the pack costs ComfyUI's start: its own modules and one small package, and nothing is registered or started.

Half of the import's time once went into one operator for the compiler, which most users never need.
"""

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from comfyui.environment import process_variables

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
    import json, sys, threading
    root, tree = sys.argv[1:3]
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

    modules, known, threads = set(sys.modules), operators(), threading.active_count()
    spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
    pack = importlib.util.module_from_spec(spec)
    sys.modules["a_pack"] = pack
    spec.loader.exec_module(pack)
    print(json.dumps({
        "modules": sorted(set(sys.modules) - modules),
        "operators": sorted(operators() - known),
        "threads": threading.active_count() - threads,
    }))
"""


@pytest.fixture(scope="module")
def imported(environment, tmp_path_factory) -> dict:
    """What the import of the pack adds to a process that has ComfyUI's core."""
    folder = tmp_path_factory.mktemp("import")
    command = [str(environment.python), "-c", textwrap.dedent(PROGRAM), str(ROOT), str(environment.comfyui)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=process_variables(environment))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_operator_is_registered_and_no_thread_started(imported):
    assert imported["operators"] == [] and imported["threads"] == 0


def test_no_package_is_imported_but_the_small_ones_that_are_needed_at_once(imported):
    """Not training's, not the plots', and no part of PyTorch that ComfyUI's core leaves alone, such as its compiler."""
    ours = [name for name in imported["modules"] if name.split(".")[0] == "a_pack"]
    packages = {name.split(".")[0] for name in imported["modules"]} - {"a_pack"}
    assert "a_pack.nodes.generate" in ours and "a_pack.training" not in ours
    assert packages <= {"imageio_ffmpeg", "comfy", "comfy_api", "av"}, imported["modules"]
