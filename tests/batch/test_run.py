"""The whole command against a stand-in for ComfyUI: what is made, retried, reused, refused and told."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from batch import placement, run, run_story, servers
from batch.arguments import command_line
from batch.records import OutputFolder, Record
from comfyui.client import ComfyClient, ServerError
from comfyui.environment import Environment
from svi_core.files.sealed_json import read_sealed
from tests.batch.fake_comfyui import LORAS, FakeComfyUI, workflow
from tests.conftest import REPOSITORY, draw_reference


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.02,) * 3000)  # however slowly a machine starts it
    monkeypatch.setattr(run_story, "_REST_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workflow.json").write_text(json.dumps(workflow()))
    draw_reference(tmp_path / "cat.png")
    (tmp_path / "stories.csv").write_text("name,image,prompts,seed\none,cat.png,a cat,1\ntwo,cat.png,a dog,2\nthree,,a fox,3\n")
    return tmp_path


def options(folder: Path, *servers: FakeComfyUI, table: str = "stories.csv", more: tuple[str, ...] = ()) -> argparse.Namespace:
    urls = [argument for server in servers for argument in ("--server", server.url)]
    places = ["--workflow", str(folder / "workflow.json"), "--output", str(folder / "videos")]
    return command_line().parse_args(["run", str(folder / table), *places, *urls, *more])


def seeds(server: FakeComfyUI) -> list[int]:
    return [graph["4"]["inputs"]["seed"] for graph in server.queued]


def test_every_row_becomes_a_video_and_a_record(folder: Path):
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 0
        names = ["one", "two", "three"]
        output = OutputFolder(folder / "videos")
        assert {path.name for path in output.path.glob("*.mp4")} == {f"{name}.mp4" for name in names}
        for name, seed in zip(names, (1, 2, 3), strict=True):
            record = output.record(name)
            assert record.status == "done" and record.num_clips == 1 and record.attempts == 1 and record.files == ("row.png",)
            assert record.values["seed"] == str(seed) and record.server == server.url
            graph = json.loads((output.story(name) / "graph.json").read_text())
            assert graph["4"]["inputs"]["filename_prefix"] == f"svi_batch/{output.name_on_servers}/runs/{name}"
            assert graph["5"]["inputs"]["filename_prefix"] == f"svi_batch/{output.name_on_servers}/saved/{name}/story"
            assert f"saved/{name}" in (output.path / f"{name}.mp4").read_text()
            log = (output.story(name) / "log.txt").read_text()
            assert "queued on" in log and "clip 1 of 1 is there" in log and "done in" in log
        image = server.queued[0]["1"]["inputs"]["image"]
        assert server.uploads[image] == (folder / "cat.png").read_bytes()
        assert [entry["name"] for entry in read_sealed(output.path / "batch.json")["stories"]] == names
        assert not (output.path / "problems.txt").exists()


@pytest.mark.parametrize("num_clips", [2, 0])
def test_the_log_of_a_story_counts_the_clips_of_its_runs(folder: Path, num_clips: int):
    """Also if the prompts decide their number, and of two runs in one workflow."""
    graph = workflow()
    graph["4"]["inputs"]["num_clips"] = num_clips
    graph["3"]["inputs"]["text"] = "a cat\n\na dog"
    (folder / "stories.csv").write_text("name,seed\none,1\n")
    for number in range(2):
        (folder / "workflow.json").write_text(json.dumps(graph))
        with FakeComfyUI() as server:
            assert run.main(options(folder, server)) == 0
        graph["7"] = {**graph["4"], "_meta": {"title": "Second"}, "inputs": graph["4"]["inputs"] | {"seed": 9}}
        (folder / "stories.csv").write_text("name,4.seed\none,1\n")
        log = (folder / "videos" / "stories" / "one" / "log.txt").read_text()
        if number == 0:
            assert "clip 1 of 2 is there\n" in log and "clip 2 of 2 is there, made before\n" in log and "clip 8" not in log
        else:
            assert "clip 2 of node 4 is there, made before" in log and "clip 1 of node 7 is there\n" in log


def test_clips_are_logged_whose_events_come_after_the_history_has_the_end(folder: Path):
    (folder / "stories.csv").write_text("name,seed\none,1\n")
    with FakeComfyUI() as server:
        server.outcome = lambda graph: "late events"
        assert run.main(options(folder, server)) == 0
    log = (folder / "videos" / "stories" / "one" / "log.txt").read_text()
    assert log.index("clip 3 of 3 is there\n") < log.index("done in")


def test_a_linked_prefix_fails_no_story(folder: Path):
    """What it brings is not known here, so the clips of that run are not logged; those of another run are."""
    graph = workflow()
    graph["7"] = {**graph["4"], "inputs": graph["4"]["inputs"] | {"filename_prefix": ["3", 0]}}
    (folder / "workflow.json").write_text(json.dumps(graph))
    (folder / "stories.csv").write_text("name,4.seed\none,1\n")
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 0 and seeds(server) == [1]
    log = (folder / "videos" / "stories" / "one" / "log.txt").read_text()
    assert "clip 1 of node 4 is there\n" in log and "node 7" not in log


def test_run_again_makes_only_what_changed_or_is_damaged(folder: Path):
    with FakeComfyUI() as server:
        run.main(options(folder, server))
        assert run.main(options(folder, server)) == 0
        assert len(server.queued) == 3
        (folder / "stories.csv").write_text(
            "name,image,prompts,seed\none,cat.png,a cat,1\ntwo,cat.png,a dog,5\nthree,,a fox,3\n"
        )
        (folder / "videos" / "three.mp4").write_bytes(b"cut")
        assert run.main(options(folder, server)) == 0
        assert seeds(server)[3:] == [5, 3]
        record = folder / "videos" / "stories" / "one" / "story.json"
        record.write_bytes(record.read_bytes()[:-9])
        assert run.main(options(folder, server)) == 0
        assert seeds(server)[5:] == [1] and list((record.parent / "set_aside").iterdir())
        draw_reference(folder / "cat.png")
        (folder / "cat.png").write_bytes((folder / "cat.png").read_bytes() + b"\0")  # another image under the same name
        assert run.main(options(folder, server)) == 0
        assert sorted(seeds(server)[6:]) == [1, 5]


def test_a_broken_row_image_and_lora_are_listed_and_all_others_made(folder: Path, capsys):
    (folder / "broken.png").write_bytes((folder / "cat.png").read_bytes()[:60])
    rows = [
        "good,cat.png,a cat,,",
        "row,cat.png,a cat,many,",
        "image,broken.png,a cat,,",
        "lora,cat.png,a cat,,lost.safetensors",
    ]
    (folder / "stories.csv").write_text("\n".join(["name,image,prompts,clips,SVI LoRA.lora", *rows, "last,cat.png,a cat,2,"]))
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 1
        assert len(server.queued) == 2
    told = capsys.readouterr().err
    assert "stories.csv, line 3, column 4 (clips): 'many' is no whole number from 1 on" in told
    assert told.index("line 3") < told.index("1 of 2"), "named before anything starts"
    problems = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in problems] == ["row", "image", "lora"], "in the order of the table"
    assert "broken.png is not a readable picture" in problems[1]
    assert "'lost.safetensors' is not on the server: there is svi_" in problems[2]
    assert {path.stem for path in (folder / "videos").glob("*.mp4")} == {"good", "last"}
    (folder / "stories.csv").write_text("\n".join(["name,image,prompts,clips,SVI LoRA.lora", rows[0]]))
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 0 and not server.queued
    assert not (folder / "videos" / "problems.txt").exists()


def test_a_row_may_name_a_workflow_of_its_own(folder: Path, capsys):
    other = workflow()
    other["4"]["inputs"]["seed"] = 77
    (folder / "other.json").write_text(json.dumps(other))
    (folder / "torn.json").write_text("{")
    strange = {"nodes": [{"id": 1, "type": "Strange", "mode": 0, "inputs": [], "widgets_values": []}], "links": []}
    (folder / "strange.json").write_text(json.dumps(strange))
    rows = ["a,a cat,", "b,a cat,other.json", "c,a cat,lost.json", "d,a cat,torn.json", "e,a cat,strange.json"]
    (folder / "stories.csv").write_text("\n".join(["name,prompts,workflow", *rows]))
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 1
        assert seeds(server) == [7, 77]
    problems = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in problems] == ["c", "d", "e"]
    assert "line 4, column 3 (workflow)" in problems[0] and "lost.json" in problems[0]
    assert "line 6, column 3 (workflow)" in problems[2] and "no server can run" in problems[2]
    assert f"cannot run {folder / 'strange.json'}: " in capsys.readouterr().err


def test_a_second_row_of_a_name_is_listed_beside_the_first(folder: Path):
    (folder / "stories.csv").write_text("name,prompts\ngood,a cat\ngood,a dog\n")
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 1 and len(server.queued) == 1
    assert (folder / "videos" / "problems.txt").read_text().startswith("good (line 3): ")
    entries = read_sealed(folder / "videos" / "batch.json")["stories"]
    assert [(entry["name"], entry["video"]) for entry in entries] == [("good", "good.mp4"), ("good (line 3)", None)]


@pytest.mark.parametrize("more", [("--check",), ("--strict",)])
def test_check_and_strict_make_nothing_of_a_table_with_a_problem(folder: Path, more: tuple[str, ...]):
    (folder / "stories.csv").write_text("name,prompts,clips\ngood,a cat,1\nbad,a cat,0\n")
    with FakeComfyUI() as server:
        assert run.main(options(folder, server, more=more)) == 1 and not server.queued
        (folder / "stories.csv").write_text("name,prompts,clips\ngood,a cat,1\n")
        assert run.main(options(folder, server, more=more)) == 0
        assert len(server.queued) == (more == ("--strict",))


@pytest.mark.parametrize(
    ("outcome", "tries", "reason"),
    [
        ("reject", 1, "Value not in list"),
        ("half valid", 1, "a part of the graph is not valid"),
        ("error", 1, "ValueError: error"),
        ("no video", 1, "add SVI Show Video or Save Video to it"),
        ("out of memory", 3, "OutOfMemoryError"),
    ],
)
def test_a_failed_story_never_stops_the_others(folder: Path, outcome: str, tries: int, reason: str):
    with FakeComfyUI(lambda graph: outcome if graph["4"]["inputs"]["seed"] == 1 else "ok") as server:
        assert run.main(options(folder, server)) == 1
        assert seeds(server) == [1] * tries + [2, 3] and server.freed == tries - 1
        assert reason in (folder / "videos" / "problems.txt").read_text()
        record = OutputFolder(folder / "videos").record("one")
        assert record.status == "failed" and reason in record.error
        server.outcome = lambda _: "ok"
        assert run.main(options(folder, server)) == 0
        assert seeds(server)[tries + 2 :] == [1]


def test_a_lack_of_memory_that_passes_costs_one_more_attempt(folder: Path):
    with FakeComfyUI() as server:
        server.outcome = lambda graph: "out of memory" if not server.freed else "ok"
        assert run.main(options(folder, server)) == 0
        assert seeds(server) == [1, 1, 2, 3] and OutputFolder(folder / "videos").record("one").attempts == 2


def test_a_result_that_the_server_no_longer_has_is_made_again(folder: Path):
    with FakeComfyUI(lambda _: "gone") as server:
        assert run.main(options(folder, server)) == 0
        assert seeds(server) == [1, 1, 2, 3]


def test_a_download_that_was_cut_is_fetched_again_without_a_new_run(folder: Path):
    with FakeComfyUI() as server:
        server.cuts_downloads = 2
        assert run.main(options(folder, server)) == 0
        assert seeds(server) == [1, 2, 3] and b"half" not in (folder / "videos" / "one.mp4").read_bytes()


def test_a_mistake_of_ours_fails_one_story(folder: Path, monkeypatch):
    written = OutputFolder.take_video

    def full_disk(self, name, fetched):
        if name == "two":
            raise OSError(28, "No space left on device", "two.mp4")
        return written(self, name, fetched)

    monkeypatch.setattr(OutputFolder, "take_video", full_disk)
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 1 and seeds(server) == [1, 2, 3]
    assert (folder / "videos" / "problems.txt").read_text().startswith("two: OSError: [Errno 28] No space left on device")


def test_a_file_that_the_server_refuses_fails_its_stories_only(folder: Path):
    with FakeComfyUI() as server:
        server.largest_upload = 10
        assert run.main(options(folder, server)) == 1 and seeds(server) == [3]
    problems = (folder / "videos" / "problems.txt").read_text()
    assert problems.count("start it with a larger --max-upload-size") == 2


def test_a_moved_or_renamed_folder_keeps_its_finished_stories(folder: Path):
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 0
        (folder / "videos").rename(folder / "moved")
        moved = options(folder, server)
        moved.output = folder / "moved"
        assert run.main(moved) == 0 and len(server.queued) == 3


def test_folders_of_one_name_have_runs_of_their_own(tmp_path: Path):
    names = {OutputFolder(tmp_path / parent / "videos").name_on_servers for parent in ("a", "b", "a/../a")}
    assert len(names) == 2 and all(name.startswith("videos-") for name in names)
    assert len(OutputFolder(tmp_path / ("ж" * 90)).name_on_servers.encode()) < 120


def test_a_server_that_answers_late_is_not_taken_for_lost(folder: Path, monkeypatch):
    monkeypatch.setattr(run_story, "POLL_SECONDS", 0.01)
    asked = []

    def late(server: object, prompt_id: str) -> dict | None:
        asked.append(prompt_id)
        if len(asked) % 3:
            raise TimeoutError("timed out")
        return history(server, prompt_id)

    history = ComfyClient.history
    monkeypatch.setattr(ComfyClient, "history", late)
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 0 and seeds(server) == [1, 2, 3]


@pytest.mark.parametrize(
    ("own", "models", "has_gpu", "expected"),
    [
        (False, [], True, ("DEMO", True, True)),
        (False, ["mine"], True, ("mine", False, True)),
        (False, ["mine"], False, ("mine", True, True)),
        (True, [], True, ("tree/models", False, True)),
        (True, [], False, ("tree/models", True, False)),
    ],
)
def test_a_server_of_our_own_runs_as_its_models_want(tmp_path: Path, monkeypatch, own, models, has_gpu, expected):
    """`expected`: models, whether on the CPU, and whether this pack is linked."""
    tree = tmp_path / "tree" if own else servers.PINNED_COMFYUI
    for name in ("tree/models", "mine", "tree/custom_nodes", *([] if has_gpu else ["tree/custom_nodes/svi/svi_core"])):
        (tmp_path / name).mkdir(parents=True)
    started = []

    class Server(servers.ComfyServer):
        def __enter__(self):
            started.append(self)
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(servers, "demo_environment", lambda: Environment(Path(sys.executable), tree))
    monkeypatch.setattr(servers, "ComfyServer", Server)
    monkeypatch.setattr(servers, "_has_accelerator", lambda: has_gpu)
    told = []
    with servers.open_servers([], [tmp_path / name for name in models], tmp_path / "server", told.append):
        (server,) = started
    roots = [servers.DEMO_MODELS] if expected[0] == "DEMO" else [tmp_path / expected[0]]
    assert (server.model_roots, server.on_cpu, servers.PACK_NAME in server.custom_nodes) == (roots, *expected[1:])
    assert server.pack_folder == (tree / "custom_nodes" if own else None)
    assert f"on the {'CPU' if expected[1] else 'GPU'}" in told[0] and ("COMFYUI_PATH" in told[0]) == (expected[0] == "DEMO")


def test_a_folder_of_models_that_is_not_there_is_named(folder: Path, capsys, monkeypatch):
    monkeypatch.setattr(servers, "demo_environment", lambda: Environment(Path(sys.executable), folder))
    assert run.main(options(folder, more=("--models", str(folder / "lost")))) == 1
    assert f"{folder / 'lost'} is no folder: let --models name one" in capsys.readouterr().err


def test_models_for_a_server_of_the_user_are_refused(folder: Path, capsys):
    with FakeComfyUI() as server:
        assert run.main(options(folder, server, more=("--models", str(folder)))) == 2 and not server.queued
    said = "error: --models is of a ComfyUI that this command starts: leave it out, or --server"
    assert said in capsys.readouterr().err


def in_background(function, *arguments) -> tuple[threading.Thread, list]:
    result: list = []
    thread = threading.Thread(target=lambda: result.append(function(*arguments)))
    thread.start()
    return thread, result


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def no_signals(monkeypatch):
    """A thread cannot take the signals of a process."""
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)


def test_a_server_that_restarts_loses_no_story(folder: Path, no_signals):
    with FakeComfyUI(lambda graph: "hang" if graph["4"]["inputs"]["seed"] == 2 else "ok") as server:
        thread, result = in_background(run.main, options(folder, server))
        until(lambda: seeds(server) == [1, 2])
        server.kill()
        time.sleep(0.1)
        server.outcome = lambda _: "ok"
        server.start()
        thread.join(120)
        assert result == [0] and seeds(server) == [1, 2, 2, 3]
        assert OutputFolder(folder / "videos").record("two").attempts == 2


@pytest.mark.parametrize("num_failures", [2, 100])
def test_a_server_of_ours_is_started_again_and_lost_for_the_reason_of_its_last_start(
    folder: Path, no_signals, monkeypatch, capsys, num_failures: int
):
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.01,) * 3)
    tries = []

    class Own(servers.ComfyServer):
        port = property(lambda _: fake.port, lambda *_: None)
        is_running = property(lambda _: fake.thread.is_alive())

        def start(self, timeout: float = 0.0) -> None:
            tries.append(timeout)
            if len(tries) <= num_failures:
                raise ServerError(f"ComfyUI did not answer in time {len(tries)}; the end of server.log:\nand so on")
            fake.start()

    with FakeComfyUI(lambda graph: "hang" if graph["4"]["inputs"]["seed"] == 2 else "ok") as fake:
        own = Own(Environment(Path(sys.executable), folder), folder / "server")
        monkeypatch.setattr(run, "open_servers", lambda *_: nullcontext([own]))
        thread, result = in_background(run.main, options(folder))
        until(lambda: seeds(fake) == [1, 2])
        fake.kill()
        fake.outcome = lambda _: "ok"
        thread.join(120)
    said = "ComfyUI does not start again: ComfyUI did not answer in time {}; the end of server.log"
    told = capsys.readouterr().err
    assert f"{said.format(1)}; trying again in 0 s" in told and f"{said.format(2)}; trying again in 0 s" in told
    if num_failures == 2:
        assert result == [0] and seeds(fake) == [1, 2, 2, 3] and len(tries) == 3
        return
    assert result == [1] and f"{own.url} stays away: {said.format(3)}" in told
    why = f"no server was left to make it ({own.url}: {said.format(3)}): the same command goes on"
    assert (folder / "videos" / "problems.txt").read_text().splitlines() == [f"two: {why}", f"three: {why}"]
    assert [story["reason"] for story in read_sealed(folder / "videos" / "batch.json")["stories"]] == ["", why, why]


def test_stories_that_kill_their_server_each_time_fail_alone(folder: Path, monkeypatch):
    """However often: the server came back each time, so it is not lost."""
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.01,) * 4)
    with FakeComfyUI(lambda graph: "crash" if graph["4"]["inputs"]["seed"] < 3 else "ok") as server:
        assert run.main(options(folder, server)) == 1
        assert seeds(server) == [1] * 5 + [2] * 5 + [3]
    problems = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert len(problems) == 2 and all("its server was lost 5 times while it was made" in line for line in problems)
    assert "has forgotten the story" in problems[0]


def test_a_broken_server_is_dropped_and_its_stories_are_made_elsewhere(folder: Path, monkeypatch, capsys):
    """It takes each story and dies at once, while the good server is busy with a long one; no story fails for it."""
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.01,) * 4)
    monkeypatch.setattr(placement, "IDLE_SECONDS", 0.01)
    (folder / "stories.csv").write_text("seed\n" + "".join(f"{number}\n" for number in range(1, 9)))
    with FakeComfyUI() as good, FakeComfyUI(lambda _: "crash") as broken:
        good.outcome = lambda _: "hang" if len(broken.queued) < 15 else "ok"
        release = threading.Thread(target=lambda: (until(lambda: len(broken.queued) == 15), end_all(good)))
        release.start()
        assert run.main(options(folder, good, broken)) == 0
        release.join()
        assert sorted(seeds(good)) == list(range(1, 9)) and len(broken.queued) == 15
        told = capsys.readouterr().err
        assert f"{broken.url} is not asked any more: 3 stories were given up there, one after the other" in told


def end_all(server: FakeComfyUI) -> None:
    for key, graph in list(server.running.items()):
        server.end(key, "ok", graph)


def test_a_story_that_kills_every_server_fails_after_a_second_set_of_losses(folder: Path, monkeypatch):
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.01,) * 4)
    (folder / "stories.csv").write_text("name,seed\nkiller,1\n")
    with FakeComfyUI(lambda _: "crash") as first, FakeComfyUI(lambda _: "crash") as second:
        assert run.main(options(folder, first, second)) == 1
        assert len(first.queued) + len(second.queued) in (5, 10), "5 if both were lost"
    (line,) = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert re.match(r"killer: its server was lost (5|10) times while it was made", line)
    assert OutputFolder(folder / "videos").record("killer").status == "failed"


@pytest.mark.parametrize("written", ["log", "write_record"])
def test_a_full_disk_while_a_failure_is_noted_hangs_no_batch(folder: Path, monkeypatch, written: str):
    """Story two dies with its server each time, one is refused: both are noted where nothing can be written any more."""
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.01,) * 4)
    write = getattr(OutputFolder, written)

    def full_disk(self: OutputFolder, name: str, what: Record | str) -> None:
        if what.error if isinstance(what, Record) else name == "two":
            raise OSError(28, "No space left on device")
        write(self, name, what)

    monkeypatch.setattr(OutputFolder, written, full_disk)
    with FakeComfyUI(lambda graph: {1: "reject", 2: "crash"}.get(graph["4"]["inputs"]["seed"], "ok")) as server:
        assert run.main(options(folder, server)) == 1 and seeds(server)[-1] == 3
    lines = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["one", "two"]


def test_a_server_that_never_takes_a_story_is_lost_and_not_the_stories(folder: Path, monkeypatch):
    """It answers, but fails before a story is queued."""
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.01,) * 4)

    def refused(*_: object) -> None:
        raise ConnectionResetError("reset")

    monkeypatch.setattr(ComfyClient, "upload", refused)
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 1 and not server.queued
    assert (folder / "videos" / "problems.txt").read_text().count("no server was left to make it") == 3


def test_the_run_folder_of_a_killed_server_is_waited_for(folder: Path):
    """Its process may hold the lock for minutes, while another server has the story already; that costs no attempt."""
    outcomes = iter(["in use"] * 5 + ["out of memory"] * 2 + ["in use"] + ["ok"] * 3)
    with FakeComfyUI(lambda _: next(outcomes)) as server:
        assert run.main(options(folder, server)) == 0 and seeds(server) == [1] * 9 + [2, 3]
        assert server.freed == 2


def test_a_run_folder_that_stays_in_use_fails_its_story(folder: Path, monkeypatch):
    monkeypatch.setattr(run_story, "_IN_USE_SECONDS", 0.3)
    with FakeComfyUI(lambda graph: "in use" if graph["4"]["inputs"]["seed"] == 1 else "ok") as server:
        assert run.main(options(folder, server)) == 1 and seeds(server)[-2:] == [2, 3] and server.freed == 0
    (line,) = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert line.startswith("one: ") and line.endswith("is in use by process 7")


def test_a_server_goes_on_with_the_models_that_it_holds(folder: Path):
    low, high = LORAS[1], LORAS[0]
    (folder / "stories.csv").write_text(f"seed,SVI LoRA.lora\n1,{high}\n2,{low}\n3,{high}\n4,{low}\n")
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 0 and seeds(server) == [1, 3, 2, 4]


def test_stories_are_spread_and_those_of_a_lost_server_go_to_the_other(folder: Path, no_signals, monkeypatch):
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (300.0,))
    with FakeComfyUI(lambda _: "hang") as first, FakeComfyUI() as second:
        thread, result = in_background(run.main, options(folder, first, second))
        until(lambda: len(second.queued) == 2)
        assert len(first.queued) == 1
        first.kill()
        thread.join(120)  # which ends with the last story, long before the lost server is asked again
        assert result == [0] and len(second.queued) == 3
        assert set(seeds(second)) == {1, 2, 3}


def test_a_mistake_of_the_workflow_is_said_once_for_all_rows(folder: Path, capsys):
    (folder / "stories.csv").write_text("seed\n1\n2\n3\n")
    with FakeComfyUI() as server:
        server.loras = ["other.safetensors"]
        assert run.main(options(folder, server)) == 1 and not server.queued
    told = capsys.readouterr().err
    assert told.split("0 stories can be made")[0].count("is not on the server") == 1
    assert "line 2 and 2 other rows: lora of node 2 (SVI LoRA): 'svi_high.safetensors' is not on the server" in told
    assert len((folder / "videos" / "problems.txt").read_text().splitlines()) == 3


def test_a_long_list_of_what_is_missing_is_in_the_file(folder: Path, capsys):
    (folder / "stories.csv").write_text("seed\n" + "-1\n" * 25)
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 1
    told = capsys.readouterr().err
    assert told.count("  without a video: ") == 20 and "and 5 others: all are in problems.txt" in told
    assert len((folder / "videos" / "problems.txt").read_text().splitlines()) == 25


def test_stories_of_servers_that_stay_away_say_why(folder: Path, no_signals, monkeypatch):
    monkeypatch.setattr(placement, "BACK_OFF_SECONDS", (0.05,))
    with FakeComfyUI(lambda _: "hang") as server:
        thread, result = in_background(run.main, options(folder, server))
        until(lambda: seeds(server) == [1])
        server.kill()
        thread.join(120)
    assert result == [1]
    lines = (folder / "videos" / "problems.txt").read_text().splitlines()
    assert len(lines) == 3 and all(f"no server was left to make it ({server.url}: " in line for line in lines)


def test_a_server_without_a_node_of_a_saved_workflow_is_left_out(folder: Path, capsys):
    node = {"id": 1, "type": "LoadImage", "mode": 0, "inputs": [], "widgets_values": ["example.png"]}
    video = {"id": 5, "type": "SaveVideo", "mode": 0, "inputs": [], "widgets_values": ["svi/story"]}
    (folder / "workflow.json").write_text(json.dumps({"nodes": [node, video], "links": []}))
    (folder / "stories.csv").write_text("name,image\na,cat.png\n")
    with FakeComfyUI() as whole, FakeComfyUI() as bare:
        bare.is_bare = True
        assert run.main(options(folder, bare, whole)) == 0
        assert len(whole.queued) == 1 and not bare.queued
        assert f"{bare.url} cannot run" in capsys.readouterr().err
        (folder / "stories.csv").write_text("name,image\nb,cat.png\n")
        assert run.main(options(folder, bare)) == 1
        assert "no server can run the workflow" in capsys.readouterr().err


def test_a_story_goes_to_a_server_that_has_its_lora(folder: Path):
    (folder / "stories.csv").write_text("name,SVI LoRA.lora\na,svi_high.safetensors\nb,special.safetensors\n")
    with FakeComfyUI() as first, FakeComfyUI() as second:
        second.loras = ["special.safetensors"]
        assert run.main(options(folder, first, second)) == 0
        assert [graph["2"]["inputs"]["lora"] for graph in first.queued] == ["svi_high.safetensors"]
        assert [graph["2"]["inputs"]["lora"] for graph in second.queued] == ["special.safetensors"]


def command(folder: Path, server: FakeComfyUI) -> subprocess.Popen:
    places = ["--workflow", str(folder / "workflow.json"), "--output", str(folder / "videos"), "--server", server.url]
    line = [sys.executable, "-m", "batch", "run", str(folder / "stories.csv"), *places]
    return subprocess.Popen(line, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def test_a_killed_command_goes_on_and_waits_for_what_the_server_still_runs(folder: Path):
    with FakeComfyUI(lambda graph: "hang" if graph["4"]["inputs"]["seed"] == 2 else "ok") as server:
        with command(folder, server) as killed:
            until(lambda: seeds(server) == [1, 2], 120)
            killed.kill()
            assert killed.stderr is not None
            killed.stderr.read()
        (running,) = server.running
        thread = threading.Timer(0.5, server.end, (running, "ok", server.queued[1]))
        thread.start()
        assert run.main(options(folder, server)) == 0
        thread.join()
        assert seeds(server) == [1, 2, 3], "neither the finished story nor the running one is queued again"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_interrupts_the_running_story_and_says_how_to_go_on(folder: Path):
    with FakeComfyUI(lambda graph: "hang" if graph["4"]["inputs"]["seed"] == 2 else "ok") as server:
        with command(folder, server) as stopped:
            until(lambda: seeds(server) == [1, 2], 120)
            stopped.send_signal(signal.SIGINT)
            _, told = stopped.communicate(timeout=60)
        assert stopped.returncode == 130 and len(server.interrupted) == 1 and not server.running
        assert "1 of 3 videos are in" in told and "the same command goes on: python -m batch run " in told
        assert OutputFolder(folder / "videos").record("two").status == "stopped"
        server.outcome = lambda _: "ok"
        assert run.main(options(folder, server)) == 0
        assert seeds(server) == [1, 2, 2, 3]


def test_two_commands_do_not_share_a_folder(folder: Path, capsys):
    from svi_core.files.folder_lock import lock_folder

    (folder / "videos").mkdir()
    lock = lock_folder(folder / "videos", "")
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 2 and not server.queued
    lock.release()
    assert "is in use by another batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,colour\na,red\n", "line 1, column 2: there is no column 'colour'"),
        ("name,name\na,b\n", "line 1, column 2: the column 'name' is there twice"),
        ('name,prompts\na,"b\n', "line 2: unexpected end of data"),
        ("name,prompts\n", "holds no story"),
    ],
)
def test_a_malformed_table_is_refused(folder: Path, capsys, table: str, message: str):
    (folder / "stories.csv").write_text(table)
    with FakeComfyUI() as server:
        assert run.main(options(folder, server)) == 2 and not server.queued
    assert message in capsys.readouterr().err


def test_servers_that_do_not_answer_are_named(folder: Path, capsys):
    with FakeComfyUI() as server:
        assert run.main(options(folder, server, more=("--server", "http://127.0.0.1:9"))) == 0
        assert "no ComfyUI answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert run.main(options(folder, more=("--server", "http://127.0.0.1:9"))) == 1
    assert "no ComfyUI answers: start one, or correct --server" in capsys.readouterr().err
