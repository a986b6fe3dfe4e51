"""The registry's archive, unpacked into a real ComfyUI's custom_nodes as ComfyUI-Manager and `comfy node install` do."""

import subprocess
import urllib.request
from collections.abc import Iterator
from zipfile import ZipFile

import pytest

from comfyui.environment import process_variables
from comfyui.server import PACK_NAME, PACK_NODES, ComfyServer
from dev.archive import build_archive
from tests.conftest import draw_reference
from tests.e2e import shipped
from tests.e2e.graphs import loop_graph

pytestmark = pytest.mark.e2e
COMMANDS = ("cache", "diagnose", "erft", "bank", "convert", "report")
NAME = "stable-video-infinity"  # the folder's name, which both take from pyproject.toml


@pytest.fixture(scope="module")
def installed(environment, model_roots, tmp_path_factory) -> Iterator[ComfyServer]:
    """A ComfyUI in a folder with spaces and foreign letters; the archive is unpacked, the tiny models' loader linked."""
    folder = tmp_path_factory.mktemp("installed") / "My ComfyUI ü 视频"
    path = tmp_path_factory.mktemp("archive") / "node.zip"
    build_archive(path)
    with ZipFile(path) as archive:
        archive.extractall(folder / "custom_nodes" / NAME)
    others = {name: linked for name, linked in PACK_NODES.items() if name != PACK_NAME}
    with ComfyServer(environment, folder, model_roots=model_roots, custom_nodes=others) as server:
        yield server


def ours(definitions: dict) -> dict:
    return {name: node for name, node in definitions.items() if name.startswith("SVI")}


def test_all_nodes_are_there_with_their_help_pages_workflows_and_texts(installed, comfy_server):
    nodes = ours(installed.object_info())
    assert {node["python_module"] for node in nodes.values()} == {f"custom_nodes.{NAME}"}
    assert nodes.keys() == ours(comfy_server.object_info()).keys()
    for name in nodes:
        with urllib.request.urlopen(f"{installed.url}/extensions/{NAME}/docs/{name}.md") as page:
            assert page.read().startswith(f"# {nodes[name]['display_name']}".encode())
    workflows = installed.get_json("/workflow_templates")[NAME]
    assert sorted(workflows) == shipped.TEMPLATES
    blueprints = [entry for entry in installed.get_json("/global_subgraphs").values() if NAME in entry["info"]["node_pack"]]
    assert sorted(entry["name"] for entry in blueprints) == shipped.BLUEPRINTS
    assert nodes.keys() <= installed.get_json("/i18n")["en"]["nodeDefs"].keys()


def test_it_makes_a_video(installed, tmp_path):
    image = installed.add_input(draw_reference(tmp_path / "reference.png"))
    outputs = installed.run(loop_graph(image, clips=1, steps=1))
    assert installed.saved_file(outputs["saved"]["images"][0]).stat().st_size > 1000


def test_the_commands_of_the_training_run_from_it(installed, environment):
    """Their modules need no ComfyUI before a command begins; the folder is not below one here."""
    folder = installed.base_directory / "custom_nodes" / NAME
    program = f"import {', '.join(f'training.{command}' for command in COMMANDS)}; training.erft.main(['--help'])"
    variables = {name: value for name, value in process_variables(environment).items() if name != "COMFYUI_PATH"}
    words = [str(environment.python), "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=variables)
    assert done.returncode == 0 and "--resume" in done.stdout, done.stdout + done.stderr
