"""Stories on the workers of a cluster: deaths of workers and machines lose no clip, and make none twice."""

import json
import os
import re
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partialmethod
from pathlib import Path

import pytest

import tests.batch.fake_ray
from batch import ray_cluster, ray_worker, run, run_story, servers
from batch.arguments import command_line
from batch.outcome import LOST, Outcome
from batch.prepare import prepare
from batch.ray_cluster import RayCluster
from batch.records import DONE, QUEUED, STOPPED, OutputFolder, Record
from batch.table import read_table
from batch.work import Batch
from batch.workflow.convert import read_workflow, to_api
from comfyui.client import ServerError
from comfyui.environment import Environment
from svi_core.files.sealed_json import read_sealed
from tests.batch.clips_comfyui import HOLD, ClipsComfyUI, make_tree
from tests.batch.fake_comfyui import OBJECT_INFO, workflow
from tests.batch.fake_ray import FakeActor, FakeRay, until
from tests.batch.ray_machines import needs_ray, two_machines

NAMES = [f"story-{number}" for number in range(1, 7)]
CLIPS = 4


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


def require_each_once(folder: Path) -> None:
    """Every video is there once, no clip was made twice, and all equal those of one server."""
    with ClipsComfyUI(folder / "alone", clip_seconds=0.0) as alone:
        assert main(folder, "--server", alone.url, output="expected") == 0
    for name in NAMES:
        assert [number for number, _ in made(folder, name)] == list(range(CLIPS))
        assert (folder / "videos" / f"{name}.mp4").read_bytes() == (folder / "expected" / f"{name}.mp4").read_bytes()
    assert sorted(path.stem for path in (folder / "videos").glob("*.mp4")) == NAMES
    assert not list((folder / "videos" / "server").glob("seen-by-all-*"))


@pytest.fixture
def fake_ray(monkeypatch) -> FakeRay:
    """Two machines without a GPU."""
    fake = FakeRay({"CPU": 2.0}, {"CPU": 2.0})
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_cluster, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(ray_cluster.signal, "signal", lambda *_: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return fake


def when_a_story_is_half_made(folder: Path, act) -> threading.Thread:
    thread = threading.Thread(
        target=lambda: (until(lambda: any(1 <= len(made(folder, name)) < CLIPS for name in NAMES)), act())
    )
    thread.start()
    return thread


def test_stories_are_spread_and_a_dead_worker_costs_no_clip(folder: Path, fake_ray: FakeRay, capsys):
    deaths = when_a_story_is_half_made(folder, lambda: next(actor for actor in fake_ray.actors if actor.is_making()).die())
    assert main(folder, "--ray") == 0
    deaths.join()
    require_each_once(folder)
    told = capsys.readouterr().err
    assert "workers: 2, as many as machines, on the CPU" in told and "it is restarting; it is started again" in told
    assert [room["num_cpus"] for room in fake_ray.room] == [1, 1] and fake_ray.address is None
    assert len({process for name in NAMES for _, process in made(folder, name)}) == 1, "in threads of this process"
    facts = read_sealed(folder / "videos" / "batch.json")
    assert {server.split(" on ")[0] for server in facts["servers"]} == {"worker-1", "worker-2"}


def test_each_gpu_has_a_worker_also_one_that_comes_later(folder: Path, fake_ray: FakeRay, capsys):
    fake_ray.machines = [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}, {}]
    joining = when_a_story_is_half_made(folder, lambda: fake_ray.machines.append({"CPU": 8.0, "GPU": 1.0}))
    assert main(folder, "--ray", "head:6379") == 0
    joining.join()
    assert [(room["num_gpus"], room["num_cpus"]) for room in fake_ray.room] == [(1, 0)] * 2
    assert fake_ray.address == "head:6379"
    assert "workers: 1, one for each GPU" in capsys.readouterr().err
    require_each_once(folder)


def test_a_worker_that_lacks_something_is_named_and_leaves_stories_to_others(
    folder: Path, fake_ray: FakeRay, monkeypatch, capsys
):
    start = ray_worker.Worker.start

    def start_without_lora(worker: ray_worker.Worker, mark: str) -> ray_worker.Started:
        started = start(worker, mark)
        if worker._server.base_directory.name == "worker-1":
            until(lambda: len(fake_ray.actors) == 2 and fake_ray.actors[1].worker._info)  # the other one makes the offer
            worker._info = json.loads(json.dumps(worker._info))
            worker._info["SVILora"]["input"]["required"]["lora"][1]["options"] = ["other.safetensors"]
        return started

    monkeypatch.setattr(ray_worker.Worker, "start", start_without_lora)
    assert main(folder, "--ray") == 0
    require_each_once(folder)
    told = capsys.readouterr().err
    lacking = (
        r"worker-1 on \S+ leaves story-\d to others: lora of node 2 \(SVI LoRA\): 'svi_high.safetensors' is not on the server"
    )
    assert len(re.findall(lacking, told)) == 1, "once for all stories"


def lacking_for_the_first(graph: dict, _: object) -> str:
    return "lost.png is not there" if graph["4"]["inputs"]["seed"] == 0 else ""


def failing_for_the_first(graph: dict, _: object) -> str:
    return "" if graph["4"]["inputs"]["seed"] else graph["lost"]


@pytest.mark.parametrize(
    ("look", "reason"), [(lacking_for_the_first, "lost.png is not there"), (failing_for_the_first, "KeyError: 'lost'")]
)
def test_a_story_that_no_worker_can_make_fails_alone(folder: Path, fake_ray: FakeRay, monkeypatch, capsys, look, reason: str):
    monkeypatch.setattr(ray_worker, "what_is_lacking", look)
    assert main(folder, "--ray") == 1
    assert sorted(path.stem for path in (folder / "videos").glob("*.mp4")) == NAMES[1:]
    assert (folder / "videos" / "problems.txt").read_text() == f"story-1: {reason}\n"
    assert "is left out" not in capsys.readouterr().err


def test_a_worker_that_cannot_start_as_nobody_foresaw_is_left_out(folder: Path, fake_ray: FakeRay, monkeypatch, capsys):
    info = servers.ComfyServer.object_info

    def strange(server: servers.ComfyServer) -> dict:
        return {}["no"] if server.base_directory.name == "worker-1" else info(server)

    monkeypatch.setattr(servers.ComfyServer, "object_info", strange)
    assert main(folder, "--ray") == 0
    assert re.search(r"worker-1 on \S+ is left out: KeyError: 'no'", capsys.readouterr().err)
    require_each_once(folder)


def test_a_worker_that_loses_story_after_story_is_left_out_and_none_fails(folder: Path, fake_ray: FakeRay, monkeypatch, capsys):
    """Its ComfyUI takes each story and dies, while the other worker is busy with a long one."""
    try_story = ray_worker.try_story

    def lost(prepared, server, output, control) -> Outcome:
        if server.base_directory.name == "worker-2":
            return try_story(prepared, server, output, control)
        output.write_record(prepared.story.name, Record(QUEUED, prepared.key, prompt_id=str(uuid.uuid4())))
        return Outcome(LOST, reason="it burns")

    hold = runs(folder).parents[2] / HOLD
    hold.parent.mkdir(parents=True)
    hold.touch()
    monkeypatch.setattr(ray_worker, "try_story", lost)
    release = threading.Thread(target=lambda: (until(lambda: fake_ray.actors and fake_ray.actors[0].is_gone), hold.unlink()))
    release.start()
    assert main(folder, "--ray") == 0
    release.join()
    require_each_once(folder)
    assert re.search(r"worker-1 on \S+ is left out: .*it burns", capsys.readouterr().err)


@pytest.mark.parametrize("for_good", [False, True])
def test_an_idle_worker_that_dies_is_noticed(folder: Path, fake_ray: FakeRay, monkeypatch, capsys, for_good: bool):
    """Before it says what it offers, and again before it gets a story."""
    look, make = RayCluster._look, RayCluster.make

    def look_and_die(cluster: RayCluster, batch: Batch | None = None) -> None:
        look(cluster, batch)
        if cluster.names and not deaths:
            deaths.append(0)
            fake_ray.actors[int(cluster.names[0][7]) - 1].die(for_good)

    def die_and_make(cluster: RayCluster, batch: Batch) -> None:
        until(lambda: look(cluster) or len(cluster.names) == len(cluster._hired))
        for actor in fake_ray.actors:
            actor.die(for_good=actor.is_gone)
        make(cluster, batch)

    deaths: list[int] = []
    monkeypatch.setattr(RayCluster, "_look", look_and_die)
    monkeypatch.setattr(RayCluster, "make", die_and_make)
    assert main(folder, "--ray") == 0
    assert deaths and "its process died while it had no story; it is started again" in capsys.readouterr().err
    require_each_once(folder)


@pytest.mark.parametrize("kind", ["ActorUnavailableError", "RayTaskError", "OutOfMemoryError", "ActorUnschedulableError"])
def test_an_error_of_ray_costs_no_story_though_what_it_tells_of_goes_on(
    folder: Path, fake_ray: FakeRay, monkeypatch, capsys, kind: str
):
    """The worker that was taken for lost ends its try, and whoever has the story now waits for that."""
    monkeypatch.setattr(run_story, "_REST_SECONDS", 0.02)
    error = getattr(tests.batch.fake_ray, kind)("The worker.\nis away")
    failures = when_a_story_is_half_made(
        folder, lambda: next(actor for actor in fake_ray.actors if actor.is_making()).fail(error)
    )
    assert main(folder, "--ray") == 0
    failures.join()
    told = capsys.readouterr().err
    assert ("is left out: is away" if kind == "ActorUnschedulableError" else "is away; it is started again") in told
    require_each_once(folder)


def test_a_worker_that_was_taken_for_lost_ends_its_story_for_the_one_that_has_it_now(folder: Path, monkeypatch):
    monkeypatch.setattr(run_story, "_REST_SECONDS", 0.02)
    output = OutputFolder(folder / "videos")
    hold = runs(folder).parents[2] / HOLD
    hold.parent.mkdir(parents=True)
    hold.touch()
    story = read_table(folder / "stories.jsonl")[0][0]
    flow = to_api(read_workflow(folder / "workflow.json"), OBJECT_INFO)
    prepared = prepare(story, flow, OBJECT_INFO, output.name_on_servers)
    old, new = (ray_worker.Worker(servers.own_comfyui([]), output.path, f"worker-{number}", "1") for number in (1, 2))
    outcomes: dict[str, Outcome] = {}
    try:
        assert not old.start("server/output/hold").problem and not new.start("server/output/hold").problem
        threads = [
            threading.Thread(target=lambda: outcomes.update(old=old.make(prepared))),
            threading.Thread(target=lambda: outcomes.update(new=new.make(prepared))),
        ]
        threads[0].start()
        until(lambda: made(folder, story.name))
        threads[1].start()
        log = output.story(story.name) / "log.txt"
        until(lambda: log.read_text().count("is in use by process") > 5)
        assert not old.start("server/output/hold").problem
        threads[0].join(5)
        assert outcomes["old"].status == STOPPED
        hold.unlink()
        threads[1].join(60)
        assert outcomes["new"].status == DONE and output.record(story.name).status == DONE
        assert [number for number, _ in made(folder, story.name)] == list(range(CLIPS))
    finally:
        for worker in (old, new):
            worker._server.kill()


def test_a_gpu_that_joins_a_cluster_without_one_is_used(folder: Path, fake_ray: FakeRay):
    fake_ray.machines = [{"CPU": 8.0}]
    joining = when_a_story_is_half_made(folder, lambda: fake_ray.machines.append({"CPU": 8.0, "GPU": 1.0}))
    assert main(folder, "--ray") == 0
    joining.join()
    assert [sorted(room) for room in fake_ray.room] == [
        ["max_concurrency", "max_restarts", "num_cpus", "scheduling_strategy"],
        ["max_concurrency", "max_restarts", "num_cpus", "num_gpus"],
    ]
    require_each_once(folder)


def test_an_output_folder_that_a_machine_does_not_see_is_named(folder: Path, fake_ray: FakeRay, monkeypatch, capsys):
    monkeypatch.setattr(RayCluster, "_hire", partialmethod(_hire_with_another_mark, RayCluster._hire))
    assert main(folder, "--ray") == 1
    told = capsys.readouterr().err
    assert "no worker of the cluster can make anything: worker-1: " in told
    assert f"{folder / 'videos'} is another folder there: --output must be on storage that all machines share" in told


def _hire_with_another_mark(cluster: RayCluster, hire) -> None:
    cluster._mark = cluster._output / "server" / "of another storage"
    hire(cluster)


def test_workers_that_die_for_good_leave_their_stories_with_a_reason(folder: Path, fake_ray: FakeRay):
    def destroy() -> None:
        for actor in fake_ray.actors:
            actor.die(for_good=True)

    deaths = when_a_story_is_half_made(folder, destroy)
    assert main(folder, "--ray") == 1
    deaths.join()
    lines = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert lines and all("no server was left to make it (cluster: worker-" in line for line in lines)
    assert all(line.count("its machine burns") == 2 for line in lines), "of both, in the order of their deaths"
    fake_ray.actors.clear()
    assert main(folder, "--ray") == 0, "the same command goes on"
    require_each_once(folder)


def test_a_cluster_without_a_ready_worker_is_not_waited_for_for_ever(folder: Path, fake_ray: FakeRay, monkeypatch, capsys):
    monkeypatch.setattr(ray_cluster, "PATIENCE_SECONDS", 0.0)
    fake_ray.machines = [{"CPU": 0.5}]
    assert main(folder, "--ray") == 1
    said = "can make anything: it has neither a GPU nor a machine with a whole CPU: add one with `ray start`"
    assert said in capsys.readouterr().err


def test_a_worker_of_a_machine_that_joins_late_has_its_own_time_to_start(folder: Path, fake_ray: FakeRay, monkeypatch):
    monkeypatch.setattr(RayCluster, "_hire", partialmethod(_hire_when_patience_ends, RayCluster._hire))
    assert main(folder, "--ray") == 0
    require_each_once(folder)


def _hire_when_patience_ends(cluster: RayCluster, hire) -> None:
    if not cluster._hired:
        cluster._seen -= ray_cluster.PATIENCE_SECONDS
    hire(cluster)


@pytest.mark.parametrize(("machine", "needs"), [({"CPU": 2.0}, "CPU"), ({"CPU": 2.0, "GPU": 1.0}, "GPU")])
def test_workers_that_ray_puts_nowhere_end_the_command_with_what_they_need(
    folder: Path, fake_ray: FakeRay, monkeypatch, capsys, machine: dict, needs: str
):
    monkeypatch.setattr(ray_cluster, "PATIENCE_SECONDS", 0.0)
    fake_ray.machines, fake_ray.num_free = [machine], 0
    assert main(folder, "--ray") == 1
    why = f"no {needs} was free for it in 0 minutes: end what else holds one, or add a machine (see `ray status`)"
    assert f"error: no worker of the cluster can make anything: worker-1: {why}" in capsys.readouterr().err


def test_a_story_waits_no_longer_for_a_worker_that_ray_puts_nowhere_once_nothing_else_goes_on(
    folder: Path, fake_ray: FakeRay, monkeypatch
):
    """The other worker lacks what the story needs, and makes the rest; before that nobody's patience ends."""

    def lacking(graph: dict, info: object) -> str:
        monkeypatch.setattr(ray_cluster, "PATIENCE_SECONDS", 0.3)
        return lacking_for_the_first(graph, info)

    fake_ray.num_free = 1
    monkeypatch.setattr(ray_worker, "what_is_lacking", lacking)
    assert main(folder, "--ray") == 1
    assert sorted(path.stem for path in (folder / "videos").glob("*.mp4")) == NAMES[1:]
    (line,) = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert line.startswith("story-1: lost.png is not there; no CPU was free for it in 0 minutes: ")


def test_a_worker_whose_comfyui_never_answers_is_left_out_with_its_log(folder: Path, fake_ray: FakeRay, monkeypatch, capsys):
    released = threading.Event()
    monkeypatch.setattr(ray_cluster, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(servers.ComfyServer, "start", lambda _: released.wait(60))
    fake_ray.machines = [{"CPU": 2.0}]
    assert main(folder, "--ray") == 1
    released.set()
    log = folder / "videos" / "server" / "worker-1" / "server.log"
    assert f"worker-1 is left out: its ComfyUI did not start in 0 minutes: {log} may say why" in capsys.readouterr().err


def test_a_worker_that_ray_starts_again_and_again_is_left_out_with_what_ray_says(
    folder: Path, fake_ray: FakeRay, monkeypatch, capsys
):
    def restarting(*_: object) -> Future:
        job: Future = Future()
        job.set_exception(tests.batch.fake_ray.ActorUnavailableError("The actor is unavailable.\nit was killed: no memory"))
        return job

    monkeypatch.setattr(ray_cluster, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(FakeActor, "_run", restarting)
    fake_ray.machines = [{"CPU": 2.0}]
    assert main(folder, "--ray") == 1
    log = folder / "videos" / "server" / "worker-1" / "server.log"
    told = capsys.readouterr().err
    assert f"worker-1: its process died, and none stayed, or found a CPU, in 0 minutes: {log} may say why; Ray says: " in told
    assert told.endswith("Ray says: it was killed: no memory\n")


@pytest.mark.parametrize("num_failures", [2, 100])
def test_a_comfyui_that_does_not_start_is_started_again_and_left_out_in_the_end(
    folder: Path, fake_ray: FakeRay, monkeypatch, capsys, num_failures: int
):
    start, tries = servers.ComfyServer.start, []
    done = threading.Event()

    def failing(server: servers.ComfyServer) -> None:
        if server.base_directory.name == "worker-2":
            assert done.wait(60)
        elif len(tries) <= num_failures:
            tries.append(0)
            if len(tries) > min(num_failures, ray_cluster.MOST_LOSSES):
                done.set()
            if len(tries) <= num_failures:
                raise ServerError("ComfyUI did not answer in time; the end of its log:\nand so on")
        start(server)

    monkeypatch.setattr(servers.ComfyServer, "start", failing)
    assert main(folder, "--ray") == 0
    require_each_once(folder)
    told = capsys.readouterr().err
    again = re.findall(
        r"worker-1: its ComfyUI does not start on \S+: ComfyUI did not answer in time; .*; it is started again", told
    )
    assert len(again) == min(num_failures, ray_cluster.MOST_LOSSES)
    left_out = "worker-1 is left out: its ComfyUI does not start" in told
    assert left_out == (num_failures == 100) and len(tries) == min(num_failures, ray_cluster.MOST_LOSSES) + 1


def test_ctrl_c_keeps_the_clips_of_a_cluster(folder: Path, fake_ray: FakeRay, capsys):
    fake_ray.interrupts_at = lambda: any(1 <= len(made(folder, name)) < CLIPS for name in NAMES)
    assert main(folder, "--ray") == 130
    told = capsys.readouterr().err
    assert "ending: the clips that are finished are kept" in told and "the same command goes on" in told
    records = [OutputFolder(folder / "videos").record(name) for name in NAMES]
    assert "stopped" in {record.status for record in records if record}
    assert main(folder, "--ray") == 0
    require_each_once(folder)


def test_without_ray_or_a_cluster_one_sentence_says_so(folder: Path, fake_ray: FakeRay, monkeypatch, capsys):
    assert main(folder, "--ray", "nowhere:1") == 1
    assert "no Ray cluster at nowhere:1: nothing there" in capsys.readouterr().err
    assert main(folder, "--ray", "--server", "http://127.0.0.1:9") == 2
    assert "--ray starts a ComfyUI for each GPU of the cluster: leave --server out" in capsys.readouterr().err
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda _: None)
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    assert main(folder, "--ray") == 2
    lacking = f"[svi] error: --ray needs the package ray, which {sys.executable} lacks: "
    assert capsys.readouterr().err == f"{lacking}python -m dev.environment --extra ray\n"
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    assert main(folder, "--ray") == 2
    assert capsys.readouterr().err == f"{lacking}{sys.executable} -m pip install 'ray>=2.40,<3'\n"


@pytest.fixture
def cluster() -> Iterator:
    with two_machines() as cluster:
        yield cluster


@needs_ray
def test_a_killed_worker_and_a_removed_machine_lose_no_clip(folder: Path, cluster):
    output = OutputFolder(folder / "videos")
    hold = runs(folder).parents[2] / HOLD
    hold.parent.mkdir(parents=True)
    hold.touch()

    def holder(name: str) -> int:
        return made(folder, name)[-1][1] if made(folder, name) else 0

    def destroy() -> None:
        until(lambda: holder(NAMES[0]) and holder(NAMES[1]), 120)
        os.kill(holder(NAMES[0]), signal.SIGKILL)
        until(lambda: output.record(NAMES[0]).attempts == 2, 120)
        cluster.remove_node(cluster.second, allow_graceful=False)
        hold.unlink()

    destroyer = threading.Thread(target=destroy)
    destroyer.start()
    assert main(folder, "--ray", cluster.address) == 0
    destroyer.join(10)
    assert not hold.exists()
    require_each_once(folder)


@needs_ray
def test_without_an_address_ray_starts_on_this_machine(folder: Path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    assert main(folder, "--ray") == 0
    assert "worker-1 on " in capsys.readouterr().err
    require_each_once(folder)
