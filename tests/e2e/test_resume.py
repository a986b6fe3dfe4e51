"""kill -9 in the middle of a run, then Run again: the finished clips are reused, the result is that of an undisturbed run."""

import json
import time
from pathlib import Path
from random import Random

import pytest
from safetensors.torch import load_file

from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames
from tests.e2e.graphs import PROMPTS, loop_graph
from tests.kill.campaign import Kills

pytestmark = pytest.mark.e2e

CLIPS = 6


@pytest.fixture
def server(comfy_server):
    return comfy_server


@pytest.fixture
def killed_server(environment, model_roots, tmp_path_factory):
    """A server of its own for a test that kills it."""
    with ComfyServer(environment, tmp_path_factory.mktemp("killed"), model_roots=model_roots) as started:
        yield started


def graph(server: ComfyServer, image: Path, name: str, **options) -> dict:
    return loop_graph(server.add_input(image), clips=CLIPS, filename_prefix=f"svi/{name}", **options)


def result(server: ComfyServer, name: str) -> list[tuple]:
    """Return (key, bytes of the latent, hash of the frames) of each clip of the last run, in order."""
    folder = server.output_directory / "svi" / name
    keys = [clip["key"] for clip in json.loads((folder / "run.json").read_text())["clips"]]
    records = [json.loads((folder / "clips" / f"{key}.json").read_text()) for key in keys]
    latents = [load_file(folder / "clips" / f"{key}.safetensors")["latent"].numpy().tobytes() for key in keys]
    frames = [sorted(facts["frames_sha256"] for facts in record["segments"].values()) for record in records]
    return list(zip(keys, latents, frames, strict=True))


def finished(folder: Path) -> dict[str, int]:
    """Return the inode of each finished clip's latent file: a file that was made again has another."""
    return {path.stem: path.stat().st_ino for path in (folder / "clips").glob("*.safetensors") if "staging" not in path.name}


def kill_after(server: ComfyServer, queued: dict, folder: Path, num_finished: int, seconds: float) -> None:
    server.queue(queued)
    deadline = time.monotonic() + 120
    while len(finished(folder)) < num_finished:
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.01)
    time.sleep(seconds)
    server.kill()


def test_a_run_that_began_on_another_day_goes_on_in_its_folder(comfy_server, reference_image):
    """The name holds the date; a run is told from others by its first clip."""

    def run(**options):
        prefix = "dated/%date:yyyy-MM-dd%/%width%_%UNETLoader.weight_dtype%"
        comfy_server.run(loop_graph(comfy_server.add_input(reference_image), filename_prefix=prefix, **options))

    def manifests():
        found = sorted((comfy_server.output_directory / "dated").glob("**/run.json"))
        return {path.parent.parent.name: len(json.loads(path.read_text())["clips"]) for path in found}

    days = [time.strftime("%Y-%m-%d")]  # midnight may pass
    run(clips=1)
    days.append(time.strftime("%Y-%m-%d"))
    [today] = manifests()
    assert today in days
    assert (comfy_server.output_directory / "dated" / today / "64_default" / "run.json").is_file()
    (comfy_server.output_directory / "dated" / today).rename(comfy_server.output_directory / "dated/2001-02-03")
    run(clips=2)
    assert manifests() == {"2001-02-03": 2}
    run(clips=1, seed=6)
    days.append(time.strftime("%Y-%m-%d"))
    found = manifests()
    assert found.pop("2001-02-03") == 2 and list(found.values()) == [1] and set(found) <= set(days)


@pytest.mark.slow
def test_runs_killed_at_any_moment_go_on_where_they_were(killed_server, reference_image):
    """A few rounds, each with one start of the server; `python -m tests.kill comfyui` makes more."""
    server = killed_server

    def steps_to_kill_in(name: str) -> dict:
        return graph(server, reference_image, name, steps=12)

    server.run(steps_to_kill_in("whole"))
    kills = Kills.of_this_process()

    def check(chance: Random) -> None:
        name = f"killed{chance.getrandbits(32)}"
        folder = server.output_directory / "svi" / name
        kill_after(server, steps_to_kill_in(name), folder, chance.randint(1, 4), chance.uniform(0, 0.4))
        before = finished(folder)
        kills.num_killed.append(int(len(before) < CLIPS))  # a fast machine may have ended the run
        server.start()
        outputs = server.run(steps_to_kill_in(name))
        after = finished(folder)
        assert before and before == {key: after.get(key) for key in before}, "finished clips are not made again"
        assert result(server, name) == result(server, "whole")
        assert not list(folder.rglob("*staging*")) and not (folder / "set_aside").exists()
        assert count_frames(server.saved_file(outputs["saved"]["images"][0])) == 9 + 4 * (CLIPS - 1)

    kills.each_round("comfyui", check)


def sampled_clips(server: ComfyServer, queued: dict) -> int:
    """Run `queued` and return how many new clips it stored."""
    folder = server.output_directory / queued["generate"]["inputs"]["filename_prefix"]
    before = set(finished(folder)) if folder.exists() else set()
    server.run(queued)
    return len(set(finished(folder)) - before)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0),
        ({"prompts": [*PROMPTS[:2], "another ending"]}, CLIPS - 2),
        ({"prompts": ["another beginning", *PROMPTS[1:]]}, CLIPS),
        ({"seed": 6}, CLIPS),
        ({"seed_mode": "fixed"}, CLIPS - 1),
        ({"cfg": 2.5}, CLIPS),
        ({"boundary": 0.95}, CLIPS),
        ({"scheduler": "beta"}, CLIPS),
        ({"num_motion_frames": 8, "num_frames": 13}, CLIPS),
        ({"low": None}, CLIPS),
    ],
    ids=str,
)
def test_what_is_made_again_follows_from_what_changed(server, reference_image, change, expected):
    """The clips before the first difference are reused, none after it."""
    if not (server.output_directory / "svi" / "whole").exists():
        server.run(graph(server, reference_image, "whole"))
    server.post_json("/free", {"unload_models": True, "free_memory": True})  # ComfyUI's own cache must not answer
    assert sampled_clips(server, graph(server, reference_image, "whole", **change)) == expected


def test_a_damaged_clip_is_set_aside_and_made_again(server, reference_image):
    name = "damaged"
    server.run(graph(server, reference_image, name))
    expected = result(server, name)
    folder = server.output_directory / "svi" / name
    victim = folder / "clips" / f"{expected[3][0]}.safetensors"
    victim.write_bytes(victim.read_bytes()[:-5])
    queued = graph(server, reference_image, name)
    queued["generate"]["inputs"]["num_clips"] = CLIPS + 1  # another graph, so that ComfyUI's own cache does not answer
    server.run(queued)
    for old, new in zip(expected, result(server, name), strict=False):
        assert old[:2] == new[:2] and set(old[2]) <= set(new[2])  # a clip that another follows is shown differently as well
    assert [path.name.endswith(victim.name) for path in (folder / "set_aside").iterdir()] == [True]


def test_a_folder_in_use_is_refused_by_the_other_process(server, reference_image):
    from svi_core.store.run_store import RunStore

    folder = server.output_directory / "svi" / "busy"
    with RunStore(folder), pytest.raises(Exception, match="in use by process"):
        server.run(graph(server, reference_image, "busy"))
