"""Run a real ComfyUI process with this pack, for the demo and the tests; comfyui/client.py talks to it over HTTP.

    with ComfyServer(environment, base_directory, model_roots=[models]) as server:
        outputs = server.run(graph)          # API format

The process is ComfyUI's own main.py, on the CPU unless told otherwise. It has its own base directory and writes nothing into
the ComfyUI tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from comfyui.client import ComfyClient, ServerError
from comfyui.environment import REPOSITORY, Environment, process_variables
from comfyui.links import link_file, link_folder, model_folder

PACK_NAME = "ComfyUI-StableVideoInfinity"
PACK_NODES = {PACK_NAME: REPOSITORY, "svi_tiny_encoders": REPOSITORY / "demo" / "tiny_encoders"}
MODEL_FOLDERS = (
    "diffusion_models",
    "vae",
    "text_encoders",
    "clip_vision",
    "loras",
    "datasets",
    "audio_encoders",
    "model_patches",
)
START_SECONDS = 300.0
STOP_SECONDS = 15.0

# The server's standard input is a pipe from us that stays empty. It closes when we end, even by SIGKILL, and then the server
# exits. os.read takes no lock, so the waiting thread does not disturb a normal exit.
LAUNCHER = """
import os, runpy, sys, threading
def leave_with_parent():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=leave_with_parent, daemon=True).start()
main = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(main)
runpy.run_path(main, run_name="__main__")
"""


class ComfyServer(ComfyClient):
    """One ComfyUI process with a base directory of its own; a context manager that leaves no process behind.

    Args:
        environment: the Python and the ComfyUI tree to run.
        base_directory: created if absent; holds input, output, temp, user, models and custom_nodes.
        model_roots: folders that contain ComfyUI's model folders, or model files whose names tell their kind (MODEL_KINDS).
        custom_nodes: name in custom_nodes/ -> folder linked there; by default this pack and the tiny encoders.
        pack_folder: a folder of further packs; one that cannot be imported does not matter.
        on_cpu: else ComfyUI chooses the device.
        arguments: further command-line arguments of main.py.
    """

    def __init__(
        self,
        environment: Environment,
        base_directory: Path,
        *,
        model_roots: Sequence[Path] = (),
        custom_nodes: Mapping[str, Path] | None = None,
        pack_folder: Path | None = None,
        on_cpu: bool = True,
        arguments: Sequence[str] = (),
    ) -> None:
        self.environment = environment
        self.base_directory = base_directory.absolute()
        self.model_roots = [root.absolute() for root in model_roots]
        self.custom_nodes = dict(PACK_NODES if custom_nodes is None else custom_nodes)
        self.pack_folder = pack_folder
        self.on_cpu = on_cpu
        self.arguments = list(arguments)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's address, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """The file that receives everything the server prints; that of the process before it is server.previous.log."""
        return self.base_directory / "server.log"

    @property
    def output_directory(self) -> Path:
        return self.base_directory / "output"

    @property
    def pid(self) -> int | None:
        """The process id of the server; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the process and return once it answers and every linked pack was imported.

        Args:
            timeout: seconds to wait; generous, because a loaded machine may need a minute.

        Raises:
            ServerError: it died, did not answer in time, or could not import a pack; the message ends with its log.
        """
        if self.is_running:
            raise ServerError(f"the server is running already, as process {self.pid}")
        self._prepare_base_directory()
        try:
            for attempt in range(3):
                if attempt or not self.port:
                    self.port = _free_port()  # else it was started before: whoever knows its address finds it again
                self._launch()
                if self._wait_until_ready(time.monotonic() + timeout):
                    break
                if "address already in use" not in self.log_tail() or attempt == 2:
                    raise self._error_with_log("ComfyUI ended while it started")
            self._check_packs()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask the process to end, and kill it after STOP_SECONDS. Does nothing if it is not running."""
        if self._process is None:
            return
        if self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the process at once (SIGKILL), as a crash or a power cut would."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def log_tail(self, num_lines: int = 40) -> str:
        """Return the last lines of the server's log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])

    def add_input(self, path: Path, name: str | None = None) -> str:
        """Copy a file into the input folder; return the name under which a LoadImage node finds it."""
        name = name or path.name
        shutil.copyfile(path, self.base_directory / "input" / name)
        return name

    def saved_file(self, saved: Mapping[str, Any]) -> Path:
        """Return the path of one file of a node's outputs ({"filename", "subfolder", "type"})."""
        return self.base_directory / str(saved["type"]) / str(saved["subfolder"]) / str(saved["filename"])

    def require_alive(self, error: BaseException) -> None:
        """Raise ServerError, with the end of the log, if the process has ended, as `error` suggests."""
        if not self.is_running:
            raise self._error_with_log("ComfyUI died") from error

    def _launch(self) -> None:
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_name("server.previous.log"))  # which says why that one ended
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self.environment.python), "-u", "-c", LAUNCHER, *self._main_arguments()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base_directory,  # not the repository root, whose nodes/ would shadow ComfyUI's nodes.py
                env=process_variables(self.environment),
                # Ctrl-C is for us: we interrupt the run, keep finished clips, and then stop the server ourselves.
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def _main_arguments(self) -> list[str]:
        arguments = [str(self.environment.comfyui / "main.py"), *(["--cpu"] if self.on_cpu else [])]
        arguments += ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        arguments += ["--base-directory", str(self.base_directory), "--database-url", "sqlite:///:memory:"]
        if front_end := os.environ.get("COMFYUI_FRONT_END"):
            arguments += ["--front-end-root", front_end]
        if self.model_roots or self.pack_folder:
            arguments += ["--extra-model-paths-config", str(self._write_model_paths())]
        return arguments + self.arguments

    def _write_model_paths(self) -> Path:
        """Write the list of model folders as JSON, which is YAML too; absolute paths are taken literally ('$', '~')."""
        paths = {
            f"models_{number}": {folder.name: str(folder) for folder in _visible_folders(root)}
            for number, root in enumerate(self.model_roots)
        }
        if self.pack_folder:
            paths["packs"] = {"custom_nodes": str(self.pack_folder)}
        config = self.base_directory / "model_paths.yaml"
        config.write_text(json.dumps(paths, indent=1), encoding="utf-8")
        return config

    def _prepare_base_directory(self) -> None:
        for name in ("custom_nodes", "input", "output", "temp", "user/default", *(f"models/{m}" for m in MODEL_FOLDERS)):
            (self.base_directory / name).mkdir(parents=True, exist_ok=True)
        for name, folder in self.custom_nodes.items():
            link_folder(folder, self.base_directory / "custom_nodes" / name)
        for root in self.model_roots:
            for file in root.glob("*.safetensors"):
                link_file(file, self.base_directory / "models" / model_folder(file) / file.name)

    def _wait_until_ready(self, deadline: float) -> bool:
        while self.is_running:
            try:
                self.get_json("/system_stats", timeout=5)
                return True
            except (OSError, ValueError):
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise self._error_with_log("ComfyUI did not answer in time")
            time.sleep(0.1)
        return False

    def _check_packs(self) -> None:
        log = self.log_path.read_text(encoding="utf-8", errors="replace")
        failed = [line for line in log.splitlines() if "(IMPORT FAILED)" in line]
        if any(name in line for line in failed for name in self.custom_nodes):
            raise self._error_with_log("ComfyUI could not import a pack", num_lines=120)

    def _error_with_log(self, what: str, num_lines: int = 40) -> ServerError:
        return ServerError(f"{what}; the end of {self.log_path}:\n{self.log_tail(num_lines)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _visible_folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_")))
