"""Fixtures of the whole suite: the environment, tiny random models, one ComfyUI process, and comfy in this process.

In pytest's process the repository root is on sys.path, where nodes/ shadows ComfyUI's nodes.py: never import ComfyUI's
`nodes`, `comfy_extras` or `comfy_execution.graph` here. `comfy.*` and `comfy_api.latest` are safe, by the `comfy` fixture.
"""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from comfyui.environment import process_variables
from comfyui.server import ComfyServer
from dev.environment import Environment, Layout, SetupError, find_environment

REPOSITORY = Path(__file__).resolve().parent.parent
TINY_MODELS_SCRIPT = REPOSITORY / "tests" / "e2e" / "tiny_models.py"
TINY_TALK_MODELS_SCRIPT = TINY_MODELS_SCRIPT.with_name("tiny_talk_models.py")
DEMO_MODELS = REPOSITORY / "demo" / "models"
SLOWEST_ROOMS = ("browser", "e2e", "benchmarks", "training", "demo", "kill", "fuzz")

hypothesis.settings.register_profile("svi", deadline=None)  # a busy machine is slow, not wrong
hypothesis.settings.load_profile("svi")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs all there is."""
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow, as CI does once a week")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless they are asked for, and put the rooms with the longest files first.

    Workers take files in this order, and the short ones fill the end.
    """
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    rooms = [REPOSITORY / "tests" / room for room in SLOWEST_ROOMS]
    items.sort(key=lambda item: next((place for place, room in enumerate(rooms) if room in item.path.parents), len(rooms)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Give whole files to the workers, and the room browser as if it were one file: two Chromiums at once wait for CPU."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return file_or_room(super()._split_scope(nodeid))

    return ByFile(config, log)


def file_or_room(file: str) -> str:
    """Return what goes to one worker together with the tests of `file`."""
    return "tests/browser" if file.startswith("tests/browser/") else file


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The environment that `make test` set up; pytest installs nothing itself."""
    try:
        found = find_environment(["test"])
    except SetupError as error:
        pytest.exit(str(error), returncode=4)
    if found is None:
        pytest.exit("the environment is not set up, or not up to date: run `python -m tests` once", returncode=4)
    return found


@pytest.fixture(scope="session")
def comfyui_path(environment: Environment) -> Path:
    """The ComfyUI tree."""
    return environment.comfyui


@pytest.fixture(scope="session")
def tiny_models(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny random models in the real Wan architectures, in ComfyUI's folders, under the published names."""
    output = tmp_path_factory.mktemp("tiny_models")
    command = [str(environment.python), str(TINY_MODELS_SCRIPT), str(environment.comfyui), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=output, env=process_variables(environment))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def talk_models(environment: Environment, tiny_models: Path) -> Path:
    """The folder of tiny models, with those of SVI-Talk; by themselves, since one of them has 190 MB."""
    command = [str(environment.python), str(TINY_TALK_MODELS_SCRIPT), str(environment.comfyui), str(tiny_models)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tiny_models, env=process_variables(environment))
    assert done.returncode == 0, done.stderr
    return tiny_models


@pytest.fixture(scope="session")
def model_roots(tiny_models: Path) -> list[Path]:
    """The model folders of the test server: the tiny random models, and the demo's trained ones where they exist."""
    has_demo_models = DEMO_MODELS.is_dir() and any(DEMO_MODELS.rglob("*.safetensors"))
    return [tiny_models, *([DEMO_MODELS] if has_demo_models else [])]


@pytest.fixture(scope="session")
def comfy_server(
    environment: Environment, model_roots: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """One real ComfyUI process for the whole run, with this pack and the tiny models in it."""
    folder = tmp_path_factory.mktemp("comfyui")
    with ComfyServer(environment, folder, model_roots=model_roots, arguments=["--preview-method", "latent2rgb"]) as server:
        yield server


@pytest.fixture(scope="session")
def workflow_server(comfy_server: ComfyServer, talk_models: Path, tmp_path_factory: pytest.TempPathFactory) -> ComfyServer:
    """The server, with every model, image, video and sound that the shipped workflows name."""
    from tests.e2e import shipped

    shipped.add_images(comfy_server, draw_reference(tmp_path_factory.mktemp("picture") / "reference.png"))
    return comfy_server


@pytest.fixture(scope="session")
def comfy(comfyui_path: Path) -> ModuleType:
    """ComfyUI's `comfy` package in this process, on CPU; import its modules with `importlib` or in the test's body."""
    if comfyui_path != Layout().comfyui:
        sys.dont_write_bytecode = True  # a user's own tree is only read
    if str(comfyui_path) not in sys.path:
        sys.path.append(str(comfyui_path))  # at the end: our own packages come first
    importlib.import_module("comfy.options").enable_args_parsing(False)
    importlib.import_module("comfy.cli_args").args.cpu = True  # read when model_management is imported
    importlib.import_module("comfy.model_management")
    return sys.modules["comfy"]


@pytest.fixture
def reference_image(tmp_path: Path) -> Path:
    """A small picture with structure in it; see :func:`draw_reference`."""
    return draw_reference(tmp_path / "reference.png")


def draw_reference(path: Path) -> Path:
    """Draw 96 x 64 pixels, a colour ramp with a bright square, into the file `path` and return it."""
    import numpy
    from PIL import Image

    rows, columns = numpy.mgrid[0:64, 0:96]
    pixels = numpy.stack([columns * 2, rows * 3, 255 - columns * 2], axis=-1).astype(numpy.uint8)
    pixels[20:40, 30:50] = 240
    Image.fromarray(pixels).save(path)
    return path
