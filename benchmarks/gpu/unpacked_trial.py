"""Try what an archive of benchmarks.gpu.pack holds, in an empty environment: a Python, and of its packages only known ones.

Those are what the bare machine has. Stages of the benchmark run there at tiny shapes, since much is imported only when needed.
A Python without PyTorch can still load what needs none: comfy-kitchen's CUDA part, comfy-aimdo's library and ffmpeg; and it
compiles all of the source.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from comfyui.environment import clean_python_variables
from dev.setup_files import REPOSITORY, say

TARGET = "3.12"
STAGES_TRIED = [option for stage in ("loop", "users", "vae", "training") for option in ("--only", stage)]
MACHINE_HAS = (
    *("torch", "torchvision", "torchaudio", "numpy", "scipy", "einops", "safetensors", "transformers", "tokenizers"),
    *("sentencepiece", "pillow", "psutil", "tqdm", "pyyaml", "requests", "packaging", "filelock", "aiohttp", "yarl"),
)
_LIST = """
import importlib.metadata as m, json, re, sys
def fold(name):
    return re.sub("[-_.]+", "-", name).lower()
known = {fold(d.metadata["Name"]): d for d in m.distributions() if d.metadata["Name"]}
left, found, seen = list(sys.argv[1:]), {}, set()
while left:
    name = left.pop()
    if name in seen or name not in known:
        continue
    seen.add(name)
    needed = [line for line in known[name].requires or () if "extra ==" not in line]
    left += [fold(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in needed]
    tops = {f.parts[0] for f in known[name].files or () if f.parts[0] not in ("..", "__pycache__")}
    found.update({top: str(known[name].locate_file(top)) for top in tops})
sys.stdout.write(json.dumps(found))
"""
_WITHOUT_TORCH = """
import compileall, os, subprocess, sys
site, comfyui = sys.argv[1:3]
import comfy_aimdo.control, ctypes, imageio_ffmpeg, trampoline
ctypes.CDLL(os.path.join(site, "comfy_aimdo", "aimdo.so"))
sys.path.insert(0, os.path.join(site, "comfy_kitchen", "backends", "cuda"))
import _C  # of comfy-kitchen, whose package needs PyTorch
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-version"], check=True, stdout=subprocess.DEVNULL)
if not all([compileall.compile_dir(folder, quiet=1) for folder in (site, comfyui)]):
    sys.exit("a file does not compile")
"""
_WITH_TORCH = """
import importlib.util, subprocess, sys
unexpected = [name for name in ("av", "diffusers", "kornia") if importlib.util.find_spec(name)]
if unexpected:
    sys.exit(f"{unexpected} should not be here: the environment is not an empty one")
import torch, torchsde, trampoline, comfy_aimdo.control, comfy_kitchen, imageio_ffmpeg
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-version"], check=True, stdout=subprocess.DEVNULL)
from benchmarks.gpu.comfyui import load_pack
load_pack()
if torch.version.cuda:
    import fa3_fwd_interface
if torch.version.cuda and sys.version_info >= (3, 12):
    import comfy_kitchen.backends.cuda._C
"""


@dataclass(frozen=True)
class Trial:
    """Imports in an environment of one Python.

    Attributes:
        python: the interpreter.
        version: as 3.12.
        packages: by the name of their folder or file, where they are: of MACHINE_HAS, and what those need.
    """

    python: Path
    version: str
    packages: dict[str, str]

    @property
    def has_torch(self) -> bool:
        """Whether this Python has PyTorch."""
        return "torch" in self.packages

    def complaints(self, unpacked: Path) -> list[str]:
        """Import what was unpacked, and with PyTorch run stages at tiny shapes; return what went wrong, tell what was tried."""
        site, comfyui = unpacked / "site", unpacked / "ComfyUI"
        with tempfile.TemporaryDirectory() as folder:
            environment, seen = Path(folder) / "venv", Path(folder) / "seen"
            subprocess.run([str(self.python), "-m", "venv", "--without-pip", str(environment)], check=True)
            seen.mkdir()
            for name, place in self.packages.items():
                if Path(place).exists():
                    (seen / name).symlink_to(place)
            path = f"{site}:{seen}:{REPOSITORY}" if self.has_torch else str(site)
            variables = clean_python_variables() | {"PYTHONPATH": path, "COMFYUI_PATH": str(comfyui), "OMP_NUM_THREADS": "1"}
            output = ["--output", f"{folder}/results", "--work", f"{folder}/work"]
            tiny = ["-m", "benchmarks.gpu", "--shapes", "tiny", "--device", "cpu", *STAGES_TRIED, *output]
            imports = ["-c", _WITH_TORCH if self.has_torch else _WITHOUT_TORCH, str(site), str(comfyui)]
            for arguments in (imports, *([tiny] if self.has_torch else [])):
                command = [str(environment / "bin" / "python"), *arguments]
                done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
                if done.returncode:
                    failed = [line for line in done.stdout.splitlines() if ": failed: " in line]
                    last = failed or done.stderr.strip().splitlines()[-1:] or ["no message"]
                    return [f"Python {self.version} ({self._tried}): {'; '.join(last)}"]
        say(f"Python {self.version}: {self._tried}")
        return []

    @property
    def _tried(self) -> str:
        if self.has_torch:
            return "imports everything, makes clips and trains a step"
        return "without PyTorch, which this Python lacks: libraries, ffmpeg, all source"


def trials() -> list[Trial]:
    """Return a trial with this Python, and one with the machine's version if it is installed here.

    Windows and macOS cannot load what is packed, so there is none.
    """
    if sys.platform != "linux":
        say("the archive is for Linux: nothing is tried here")
        return []
    pythons = [Path(sys.executable)]
    if (target := _target()) and not sys.version.startswith(TARGET):
        pythons.append(target)
    return [_trial(python) for python in pythons]


def _target() -> Path | None:
    """Return a Python of the machine's version, if it runs."""
    found = [path for path in (shutil.which(f"python{TARGET}"), *_of_pyenv()) if path]
    for path in found:
        if subprocess.run([path, "-c", "pass"], capture_output=True).returncode == 0:
            return Path(path)
    return None


def _of_pyenv() -> list[str]:
    return [str(path) for path in sorted(Path.home().glob(f".pyenv/versions/{TARGET}*/bin/python{TARGET}"))]


def _trial(python: Path) -> Trial:
    variables = clean_python_variables()
    listed = subprocess.run([str(python), "-c", _LIST, *MACHINE_HAS], capture_output=True, text=True, check=True, env=variables)
    asked = [str(python), "-c", "import sys; sys.stdout.write('.'.join(map(str, sys.version_info[:3])))"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return Trial(python, version, json.loads(listed.stdout))
