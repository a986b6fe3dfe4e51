"""The batch command with a real ComfyUI and tiny models: kills on the way, a server of its own, broken rows among good ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from batch import placement, run
from batch.arguments import command_line
from batch.records import OutputFolder
from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames
from tests.batch.ray_machines import needs_ray, two_machines
from tests.conftest import REPOSITORY
from tests.e2e import benchmark_stories, shipped
from tests.e2e.graphs import PROMPTS, loop_graph
from tests.e2e.shipped import FIRST, FIVE_NODES, FOLDER, UNFOLDED

pytestmark = pytest.mark.e2e

CLIPS = 3
NAMES = ("one", "two", "three")


@pytest.fixture
def own_server(environment, model_roots, tmp_path_factory):
    """A server of its own for a test that kills it."""
    with ComfyServer(environment, tmp_path_factory.mktemp("batch"), model_roots=model_roots) as started:
        yield started


def command(table: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "batch", "run", str(table), *map(str, arguments)]


def run_folder(server: ComfyServer, output: Path, story: str) -> Path:
    return server.output_directory / "svi_batch" / OutputFolder(output).name_on_servers / "runs" / story


def latents(folder: Path) -> list[tuple[str, bytes]]:
    """Return key and bytes of each clip's latent, in order."""
    keys = [clip["key"] for clip in json.loads((folder / "run.json").read_text())["clips"]]
    return [(key, load_file(folder / "clips" / f"{key}.safetensors")["latent"].numpy().tobytes()) for key in keys]


def num_finished(folder: Path) -> int:
    return len([path for path in (folder / "clips").glob("*.safetensors") if "staging" not in path.name])


def until(condition, seconds: float = 300):
    """Wait for a condition, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_batch_killed_twice_equals_an_undisturbed_one(own_server, reference_image, tmp_path, monkeypatch):
    """First the command dies in the middle of a story, then the server in the middle of another."""
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.5,) * 600)  # a busy machine starts slowly
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)  # it runs in a thread
    graph = loop_graph("example.png", steps=6, filename_prefix="svi/any")
    graph["image"]["_meta"] = {"title": "Picture"}
    (tmp_path / "workflow.json").write_text(json.dumps(graph))
    table = tmp_path / "stories.jsonl"
    rows = [
        {"name": name, "image": str(reference_image), "prompts": PROMPTS, "clips": CLIPS, "seed": n}
        for n, name in enumerate(NAMES)
    ]
    table.write_text("\n".join(json.dumps(row) for row in rows))

    def arguments(output: str) -> list[object]:
        return ["--workflow", tmp_path / "workflow.json", "--output", tmp_path / output, "--server", own_server.url]

    def options(output: str):
        return command_line().parse_args(command(table, *arguments(output))[3:])

    assert run.main(options("whole")) == 0
    with subprocess.Popen(command(table, *arguments("killed")), cwd=REPOSITORY, stderr=subprocess.DEVNULL) as killed:
        until(lambda: num_finished(run_folder(own_server, tmp_path / "killed", "two")) >= 1)
        killed.kill()
    output = OutputFolder(tmp_path / "killed")
    assert output.record("one").status == "done" and output.record("two").status == "queued"

    result: list[int] = []
    going_on = threading.Thread(target=lambda: result.append(run.main(options("killed"))))
    going_on.start()
    until(lambda: num_finished(run_folder(own_server, tmp_path / "killed", "three")) >= 1)
    own_server.kill()
    own_server.start()
    going_on.join(300)
    assert result == [0]
    logged = (output.story("two") / "log.txt").read_text()
    assert "found on" in logged and f"clip {CLIPS} of {CLIPS} is there" in logged, "the new command hears of the running story"
    assert output.record("one").attempts == output.record("two").attempts == 1, "what was made or running is not queued again"
    for name in NAMES:
        expected = latents(run_folder(own_server, tmp_path / "whole", name))
        assert len(expected) == CLIPS and latents(run_folder(own_server, tmp_path / "killed", name)) == expected
        frames = {count_frames(tmp_path / folder / f"{name}.mp4") for folder in ("whole", "killed")}
        assert frames == {9 + 4 * (CLIPS - 1)}


@needs_ray
@pytest.mark.slow
def test_twelve_stories_on_a_cluster_that_loses_a_worker_and_a_machine_equal_those_of_one_server(
    workflow_server, model_roots, reference_image, tmp_path, monkeypatch
):
    """Both deaths come while a story that has its first clip stands still, on the one machine and then on the other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table, names = benchmark_stories.write_table(workflow_server, reference_image, tmp_path)

    def main(output: str, *more: object) -> int:
        line = command(table, "--workflow", benchmark_stories.WORKFLOW, "--output", tmp_path / output, *more)
        return run.main(command_line().parse_args(line[3:]))

    assert main("alone", "--server", workflow_server.url) == 0
    output = OutputFolder(tmp_path / "cluster")
    runs = output.path / "server" / "output" / "svi_batch" / output.name_on_servers / "runs"
    lost: list[str] = []

    def stopped_in_mid_story(raylet: int) -> tuple[str, int] | None:
        """Return a story of a machine, and its ComfyUI, which stands still now."""
        for name in names:
            with suppress(OSError, ValueError):  # it has ended
                server = int((runs / name / ".owner").read_text())
                if parent(parent(server)) == raylet and num_finished(runs / name) == 1:
                    os.kill(server, signal.SIGSTOP)
                    if num_finished(runs / name) == 1:
                        return name, server
                    os.kill(server, signal.SIGCONT)
        return None

    def destroy(cluster) -> None:
        name, server = until(lambda: stopped_in_mid_story(cluster.raylets[0]), 600)
        os.kill(parent(server), signal.SIGKILL)
        os.kill(server, signal.SIGCONT)  # which notices that its worker is gone
        until(lambda: output.record(name).attempts == 2, 600)
        lost.append(name)
        name, server = until(lambda: stopped_in_mid_story(cluster.raylets[1]), 600)
        cluster.remove_node(cluster.second, allow_graceful=False)
        os.kill(server, signal.SIGCONT)
        lost.append(name)

    models = [argument for root in model_roots for argument in ("--models", root)]
    with two_machines() as cluster:
        destroyer = threading.Thread(target=destroy, args=(cluster,))
        destroyer.start()
        assert main("cluster", "--ray", cluster.address, *models) == 0
        destroyer.join()
    assert len(lost) == 2 and all(output.record(name).attempts >= 2 for name in lost)
    assert sorted(path.stem for path in output.path.glob("*.mp4")) == sorted(names)
    for name in names:
        expected = latents(run_folder(workflow_server, tmp_path / "alone", name))
        assert len(expected) == benchmark_stories.CLIPS and latents(runs / name) == expected
        assert count_frames(output.path / f"{name}.mp4") == benchmark_stories.num_frames(name)


@pytest.mark.slow
def test_a_template_of_five_nodes_makes_the_video_of_its_unfolded_form(
    comfy_server, tiny_models, reference_image, tmp_path, monkeypatch
):
    """Its subgraph is flattened, and the widgets on it and inside it are columns."""
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    common = {"image": str(reference_image), "prompts": PROMPTS[:2], "BasicScheduler.steps": 2, "SVI Layout.num_frames": 13}
    folded = "SVI 2.0 Pro (Wan 2.2)"
    rows = {
        FIRST: common | {f"{folded}.width": 64, "5.height": 64, f"{folded}.seed": 5, f"{folded}.num_clips": 2},
        UNFOLDED[FIRST]: common | {"SVI Anchor Encode.width": 64, "SVI Anchor Encode.height": 64, "seed": 5, "clips": 2},
    }
    made = []
    for number, (workflow, row) in enumerate(rows.items()):
        output, table = tmp_path / str(number), tmp_path / f"{number}.jsonl"
        table.write_text(json.dumps({"name": "tale", **row}))
        line = command(table, "--workflow", FOLDER / f"{workflow}.json", "--output", output, "--server", comfy_server.url)
        assert run.main(command_line().parse_args(line[3:])) == 0
        assert count_frames(output / "tale.mp4") == 2 * 8 + 5
        made.append([latent for _, latent in latents(run_folder(comfy_server, output, "tale"))])
    assert len(made[0]) == 2 and made[0] == made[1]


@pytest.mark.parametrize("workflow", FIVE_NODES)
def test_the_templates_of_five_nodes_take_every_column(
    workflow_server, reference_image, tmp_path, monkeypatch, capsys, workflow
):
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    inputs = workflow_server.base_directory / "input"
    row = {"image": str(reference_image), "prompts": PROMPTS[:2], "seed": 5, "SVI Generate.cfg": 2.0}
    types = {node["type"] for node in shipped.all_nodes(shipped.read(workflow))}
    for kind, column, file in (("LoadAudio", "sound", "speech.wav"), ("LoadVideo", "pose", "pose.mp4")):
        if kind in types:
            row[column] = str(inputs / file)
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    line = command(tmp_path / "t.jsonl", "--check", "--workflow", FOLDER / f"{workflow}.json", "--output", tmp_path / "out")
    assert run.main(command_line().parse_args([*line[3:], "--server", workflow_server.url])) == 0, capsys.readouterr().err


def test_a_server_of_its_own_and_a_broken_row_image_and_lora(environment, tiny_models, reference_image, tmp_path):
    """The shipped workflow, as the front end saves it, with the widgets that make it small as columns."""
    shutil.copyfile(reference_image, tmp_path / "cat.png")
    (tmp_path / "broken.png").write_bytes(reference_image.read_bytes()[:80])
    small = {
        "SVI Anchor Encode.width": 64,
        "SVI Anchor Encode.height": 64,
        "SVI Layout.num_frames": 13,
        "BasicScheduler.steps": 2,
    }
    rows = [
        {"name": "first", "image": "cat.png", "prompts": PROMPTS[:2]},
        {"name": "row", "image": "cat.png", "prompts": PROMPTS[:2], "clips": "two"},
        {"name": "image", "image": "broken.png", "prompts": PROMPTS[:2]},
        {"name": "lora", "image": "cat.png", "prompts": PROMPTS[:2], "SVI 2.0 Pro LoRA.lora": "not_here.safetensors"},
        {"name": "last", "image": "cat.png", "prompts": PROMPTS[:1], "layout": "2.0 Pro", "seed": 3},
    ]
    (tmp_path / "stories.jsonl").write_text("\n".join(json.dumps(row | small) for row in rows))
    line = command(tmp_path / "stories.jsonl", "--output", tmp_path / "videos", "--models", tiny_models)
    line += ["--workflow", str(REPOSITORY / "workflows" / "Unfolded 2.0 Pro.json")]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 1, done.stderr
    missing = (tmp_path / "videos" / "problems.txt").read_text().splitlines()
    assert [entry.split(":")[0] for entry in missing] == ["row", "image", "lora"], done.stderr
    assert "line 2, column 4 (clips): 'two' is no whole number" in missing[0] and "not_here.safetensors" in missing[2]
    assert {path.stem: count_frames(path) for path in (tmp_path / "videos").glob("*.mp4")} == {"first": 2 * 8 + 5, "last": 13}
    log = (tmp_path / "videos" / "server" / "server.log").read_text(errors="replace")
    assert "Traceback" not in log
