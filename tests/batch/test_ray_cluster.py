"""Stories on the workers of a cluster: deaths of workers and machines lose no clip, and make none twice."""

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch import ray_cluster, run, servers
from batch.arguments import command_line
from batch.records import OutputFolder
from comfyui.environment import Environment
from tests.batch.clips_comfyui import ClipsComfyUI, make_tree
from tests.batch.fake_comfyui import workflow
from tests.batch.fake_ray import FakeRay

NAMES = [f"story-{number}" for number in range(1, 7)]
CLIPS = 4

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: python -m dev.environment --extra test --extra ray"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    tree = make_tree(tmp_path / "tree")
    monkeypatch.setattr(servers, "demo_environment", lambda: Environment(Path(sys.executable), tree))
    monkeypatch.setattr(servers, "_has_accelerator", lambda: False)
    (tmp_path / "workflow.json").write_text(json.dumps(workflow()))
    rows = [{"name": name, "prompts": f"tale {name}", "clips": CLIPS, "seed": n} for n, name in enumerate(NAMES)]
    (tmp_path / "stories.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def main(folder: Path, *more: str, output: str = "videos") -> int:
    places = ["--workflow", str(folder / "workflow.json"), "--output", str(folder / output)]
    return run.main(command_line().parse_args(["run", str(folder / "stories.jsonl"), *places, *more]))


def runs(folder: Path) -> Path:
    output = OutputFolder(folder / "videos")
    return output.path / "server" / "output" / "svi_batch" / output.name_on_servers / "runs"


def made(folder: Path, story: str) -> list[tuple[int, int]]:
    """Return number and process of each clip that was made of a story."""
    try:
        lines = (runs(folder) / story / "made.txt").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(number), int(process)) for number, process in map(str.split, lines)]


def require_each_once(folder: Path, capsys) -> None:
    """Every video is there once, no clip was made twice, and all equal those of one server."""
    told = capsys.readouterr().err
    with ClipsComfyUI(folder / "alone", clip_seconds=0.0) as alone:
        assert main(folder, "--server", alone.url, output="expected") == 0
    for name in NAMES:
        assert [number for number, _ in made(folder, name)] == list(range(CLIPS)), told
        assert (folder / "videos" / f"{name}.mp4").read_bytes() == (folder / "expected" / f"{name}.mp4").read_bytes()
    assert sorted(path.stem for path in (folder / "videos").glob("*.mp4")) == NAMES
    assert not list((folder / "videos" / "server").glob("seen-by-all-*"))


def in_mid_story(folder: Path, is_wanted=lambda process: True) -> int:
    """Wait until a wanted process has made a part of a story; return it."""
    deadline = time.monotonic() + 120
    while True:
        for name in NAMES:
            clips = made(folder, name)
            if 1 <= len(clips) < CLIPS and is_wanted(clips[-1][1]) and Path(f"/proc/{clips[-1][1]}").exists():
                return clips[-1][1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """A Ray cluster of two machines in processes, which notices soon that one is gone."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 300, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    machine = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False, "_system_config": soon})
    try:
        cluster.second = cluster.add_node(**machine)
        yield cluster
    finally:
        cluster.shutdown()


@needs_ray
def test_a_killed_worker_and_a_removed_machine_lose_no_clip(folder: Path, cluster, capsys):
    removed = threading.Event()

    def destroy() -> None:
        os.kill(in_mid_story(folder), signal.SIGKILL)
        (raylet,) = cluster.second.all_processes["raylet"]
        in_mid_story(folder, lambda process: parent_of(process) == raylet.process.pid)
        cluster.remove_node(cluster.second, allow_graceful=False)
        removed.set()

    destroyer = threading.Thread(target=destroy)
    destroyer.start()
    assert main(folder, "--ray", cluster.address) == 0
    destroyer.join(10)
    assert removed.is_set()
    require_each_once(folder, capsys)
