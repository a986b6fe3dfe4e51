"""The life of a server process, with a small stand-in for ComfyUI's main.py: it starts, dies and is never left behind."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from comfyui.client import ServerError
from comfyui.links import link_folder, model_folder
from comfyui.server import ComfyServer
from dev.environment import REPOSITORY, Environment

STAND_IN = """
import argparse, http.server, json, sys
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
options, others = parser.parse_known_args()
print("stand-in", json.dumps(sys.argv), flush=True)
{extra}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"argv": sys.argv, "path": sys.path[0]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
"""


def stand_in_server(folder: Path, extra: str = "", **options) -> ComfyServer:
    """Return a server, not yet started, of a ComfyUI tree whose main.py only answers requests."""
    (folder / "tree").mkdir(parents=True)
    (folder / "tree" / "main.py").write_text(STAND_IN.format(extra=extra), encoding="utf-8")
    return ComfyServer(Environment(Path(sys.executable), folder / "tree"), folder / "base", **{"custom_nodes": {}, **options})


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_starts_in_any_folder_and_ends_with_its_block(tmp_path: Path):
    models = tmp_path / "$HOME ~ modèles"
    (models / "vae").mkdir(parents=True)
    with stand_in_server(tmp_path / "a folder, ü", model_roots=[models]) as server:
        answer = server.get_json("/system_stats")
        pid = server.pid
    assert answer["path"] == str(server.environment.comfyui)
    paths = json.loads((server.base_directory / "model_paths.yaml").read_text(encoding="utf-8"))
    assert paths == {"models_0": {"vae": str(models / "vae")}}
    assert pid is not None and not is_alive(pid) and not server.is_running


def test_a_server_serves_the_front_end_of_the_environment_variable(tmp_path: Path, monkeypatch):
    front_end = tmp_path / "a front end"
    for told, wanted in ((None, []), (str(front_end), ["--front-end-root", str(front_end)])):
        monkeypatch.setenv("COMFYUI_FRONT_END", told) if told else monkeypatch.delenv("COMFYUI_FRONT_END", raising=False)
        with stand_in_server(tmp_path / str(told is None)) as server:
            argv = server.get_json("/system_stats")["argv"]
        at = argv.index("--front-end-root") if "--front-end-root" in argv else len(argv)
        assert argv[at : at + 2] == wanted


def test_a_server_ends_when_its_block_fails(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), stand_in_server(tmp_path) as server:
        raise KeyboardInterrupt
    assert not server.is_running


def test_a_killed_server_can_be_started_again(tmp_path: Path):
    with stand_in_server(tmp_path) as server:
        first = server.pid
        server.kill()
        assert not server.is_running
        with pytest.raises(OSError):
            server.get_json("/system_stats")
        server.start()
        assert server.get_json("/system_stats") and server.pid != first


def test_a_server_that_dies_while_it_starts_shows_the_end_of_its_log(tmp_path: Path):
    with pytest.raises(ServerError, match=r"(?s)ended while it started.*the disk is full"):
        stand_in_server(tmp_path, extra="sys.exit('the disk is full')").start()


def test_a_server_that_does_not_answer_is_ended(tmp_path: Path):
    server = stand_in_server(tmp_path, extra="import time; time.sleep(600)")
    with pytest.raises(ServerError, match="did not answer in time"):
        server.start(timeout=0.5)
    assert not server.is_running


def test_a_pack_that_cannot_be_imported_is_an_error(tmp_path: Path):
    pack = tmp_path / "pack"
    pack.mkdir()
    line = "   0.0 seconds (IMPORT FAILED): /somewhere/custom_nodes/my_pack"
    server = stand_in_server(tmp_path / "server", extra=f"print({line!r}, flush=True)", custom_nodes={"my_pack": pack})
    with pytest.raises(ServerError, match="could not import a pack"):
        server.start()
    assert not server.is_running


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_no_server_outlives_a_killed_parent(tmp_path: Path):
    program = """
        import os, signal, sys
        from pathlib import Path
        from dev.environment import Environment
        from comfyui.server import ComfyServer
        server = ComfyServer(Environment(Path(sys.executable), Path(sys.argv[1])), Path(sys.argv[2]), custom_nodes={})
        server.start()
        print(server.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    tree = stand_in_server(tmp_path).environment.comfyui
    command = [sys.executable, "-c", textwrap.dedent(program), str(tree), str(tmp_path / "base")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    server_pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while is_alive(server_pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(server_pid)


def test_a_link_is_renewed_but_a_real_folder_is_never_replaced(tmp_path: Path):
    for name in ("old", "new", "real"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link_folder(tmp_path / "old", link)
    link_folder(tmp_path / "new", link)
    assert link.samefile(tmp_path / "new") and (tmp_path / "old").is_dir()
    with pytest.raises(ServerError, match="is not a link"):
        link_folder(tmp_path / "new", tmp_path / "real")
    with pytest.raises(ServerError, match="is not a folder"):
        link_folder(tmp_path / "absent", link)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("tiny_wan_vae.safetensors", "vae"),
        ("tiny_umt5.safetensors", "text_encoders"),
        ("tiny_wan22_i2v_high.safetensors", "diffusion_models"),
        ("tiny_wan21_i2v_lora.safetensors", "loras"),
        ("tiny_clip_vision.safetensors", "clip_vision"),
    ],
)
def test_the_name_of_a_model_file_tells_its_folder(name: str, folder: str):
    assert model_folder(Path(name)) == folder


def test_a_model_file_whose_name_tells_nothing_is_refused():
    with pytest.raises(ServerError, match="any kind of model"):
        model_folder(Path("weights.safetensors"))


def test_a_server_that_is_started_again_keeps_its_address(tmp_path: Path):
    """A batch that waits for it, and a browser, find it again."""
    with stand_in_server(tmp_path) as server:
        url = server.url
        server.kill()
        server.start()
        assert server.url == url and server.get_json("/system_stats")
