"""Faults on a real ComfyUI process: memory, disk, interrupt, a second server, damaged files, names that lead elsewhere."""

import json
import shutil
from pathlib import Path

import pytest

from comfyui.client import ExecutionFailed, ExecutionInterrupted, PromptRejected
from comfyui.server import ComfyServer
from svi_core.schedule.spec import MAX_CLIPS
from svi_core.video.frame_times import count_frames
from tests.e2e.faults import FAULT_NODES, fault, require_sound, wait_until_there
from tests.e2e.graphs import loop_graph, node
from tests.e2e.test_resume import finished, result
from tests.small_disk import fill, free, set_writable, small_disk

pytestmark = pytest.mark.e2e

IN_CLIP_2 = 5  # call of the model, at three steps a clip
STORY = ["a cat", "a woman", "a city"]


@pytest.fixture(scope="module")
def server(environment, model_roots, tmp_path_factory):
    """A server in which faults can be placed."""
    with ComfyServer(
        environment, tmp_path_factory.mktemp("faults"), model_roots=model_roots, custom_nodes=FAULT_NODES
    ) as started:
        yield started


def story(server: ComfyServer, image: Path, name: str, clips: int = 3, **options) -> dict:
    return loop_graph(server.add_input(image), clips=clips, prompts=STORY, filename_prefix=f"svi/{name}", **options)


def folder_of(server: ComfyServer, name: str) -> Path:
    return server.output_directory / "svi" / name


def forget(server: ComfyServer) -> None:
    """Empty ComfyUI's own cache, so that it is the run's folder that answers."""
    server.post_json("/free", {"unload_models": True, "free_memory": True})


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """(key, latent, hash of the frames) of each clip of an undisturbed run."""
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "reference.png"
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(path)
    server.run(story(server, path, "whole"))
    return path, result(server, "whole")


def shows(found: list[tuple], expected: list[tuple]) -> bool:
    """Whether each clip has the expected key, latent and frames; a stopped run has also left it another ending."""
    return all(clip[:2] == other[:2] and set(other[2]) <= set(clip[2]) for clip, other in zip(found, expected, strict=True))


def goes_on(server: ComfyServer, whole, name: str) -> None:
    """Run `name` again and check that what was finished stays and that the result is that of the undisturbed run."""
    image, expected = whole
    folder = folder_of(server, name)
    before = finished(folder) if folder.exists() else {}
    outputs = server.run(story(server, image, name))
    assert shows(result(server, name), expected)
    assert before == {key: born for key, born in finished(folder).items() if key in before}
    assert count_frames(server.saved_file(outputs["saved"]["images"][0])) == 17


@pytest.mark.parametrize("kind", ["OutOfMemoryError", "RuntimeError", "MemoryError"])
def test_memory_that_runs_out_while_sampling_names_the_clip_its_size_and_what_helps(server, whole, kind):
    with fault(server, "model", IN_CLIP_2, kind), pytest.raises(ExecutionFailed) as caught:
        server.run(story(server, whole[0], kind))
    assert caught.value.exception_type.endswith(kind)
    assert "clip 2 of 9 frames of 64 x 64 pixels: memory ran out. Finished clips" in caught.value.exception_message
    assert "--lowvram" in caught.value.exception_message
    require_sound(folder_of(server, kind), 1)
    goes_on(server, whole, kind)


def test_memory_that_runs_out_while_decoding_gives_tiles(server, whole):
    """The latents are those of the undisturbed run; tiles differ from a whole decode in their frames only."""
    with fault(server, "decoder", 2, "RuntimeError"):
        server.run(story(server, whole[0], "tiles"))
    assert "using spatial tiles" in server.log_path.read_text()
    assert [clip[:2] for clip in result(server, "tiles")] == [clip[:2] for clip in whole[1]]


def test_an_interrupt_in_the_middle_of_a_step_keeps_what_is_finished(server, whole):
    with fault(server, "model", IN_CLIP_2, "stand still") as standing_still:
        prompt_id = server.queue(story(server, whole[0], "interrupted"))
        wait_until_there(standing_still, server)
        server.interrupt()
        with pytest.raises(ExecutionInterrupted):
            server.wait(prompt_id)
    require_sound(folder_of(server, "interrupted"), 1)
    goes_on(server, whole, "interrupted")


def test_a_full_disk_is_told_with_its_path_and_the_run_goes_on_once_there_is_space(server, whole):
    """Leave more and more room until the run gets through, so that every kind of file is the one that does not fit."""
    stopped_after = []
    with small_disk(folder_of(server, "disk"), 256) as disk:
        for free_pages in range(0, 256, 13):
            fill(disk, free_pages)
            try:
                server.run(story(server, whole[0], "disk/full"))
                break
            except ExecutionFailed as error:
                assert str(disk) in error.exception_message and "space" in error.exception_message
            free(disk)
            clips = disk / "full" / "clips"
            stopped_after.append(sorted({path.suffix for path in clips.iterdir()}) if clips.is_dir() else [])
            goes_on(server, whole, "disk/full")
            assert not list(disk.rglob("*staging*")) and not (disk / "full" / "set_aside").exists()
            shutil.rmtree(disk / "full")
    assert free_pages < 250 and [] in stopped_after and [".json", ".mp4", ".safetensors"] in stopped_after


def test_a_read_only_folder_is_told_before_anything_is_sampled(server, whole):
    with small_disk(folder_of(server, "readonly"), 256) as disk:
        set_writable(disk, False)
        with pytest.raises(ExecutionFailed, match=f"Read-only file system.*{disk}"):
            server.run(story(server, whole[0], "readonly/run"))
        set_writable(disk, True)
        goes_on(server, whole, "readonly/run")


def test_a_folder_that_vanishes_in_the_middle_of_a_run_is_named(server, whole):
    folder = folder_of(server, "vanished")
    with fault(server, "model", IN_CLIP_2, "stand still") as standing_still:
        prompt_id = server.queue(story(server, whole[0], "vanished"))
        wait_until_there(standing_still, server)
        shutil.rmtree(folder)
        standing_still.unlink()
        with pytest.raises(ExecutionFailed, match=f"No such file or directory.*{folder}"):
            server.wait(prompt_id)
    goes_on(server, whole, "vanished")


def test_a_second_server_is_told_who_works_in_the_folder_and_takes_over_when_that_one_is_killed(
    server, whole, environment, model_roots, tmp_path
):
    """A restarted server needs nothing but the folder."""
    arguments = ["--output-directory", str(server.output_directory)]
    with ComfyServer(environment, tmp_path, model_roots=model_roots, arguments=arguments) as second:
        image = second.add_input(whole[0])
        graph = loop_graph(image, prompts=STORY, filename_prefix="svi/shared")
        with fault(server, "model", IN_CLIP_2, "stand still") as standing_still:
            server.queue(story(server, whole[0], "shared"))
            wait_until_there(standing_still, server)
            with pytest.raises(ExecutionFailed, match=f"svi/shared is in use by process {server.pid}: wait for it"):
                second.run(graph)
            server.kill()
        born = finished(folder_of(server, "shared"))
        second.run(graph)
    assert len(born) == 1 and born.items() <= finished(folder_of(server, "shared")).items()
    assert result(server, "shared") == whole[1]
    server.start()
    goes_on(server, whole, "shared")


def test_two_queued_runs_of_one_name_share_their_clips(server, whole):
    first = server.queue(story(server, whole[0], "queued twice"))
    second = server.queue(story(server, whole[0], "queued twice", clips=4))
    server.wait(first)
    server.wait(second)
    assert shows(result(server, "queued twice")[:3], whole[1]) and len(finished(folder_of(server, "queued twice"))) == 4


def files_of(folder: Path, keys: list[str], suffix: str) -> list[Path]:
    return [next((folder / "clips").glob(f"{key}*{suffix}")) for key in keys]


def cut_off(folder, keys, suffix):
    path = files_of(folder, keys, suffix)[1]
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_bit(folder, keys, suffix):
    path = files_of(folder, keys, suffix)[1]
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 4
    path.write_bytes(content)


def rename(folder, keys, suffix):
    first, second, _ = files_of(folder, keys, suffix)
    first.replace(second)


def swap(folder, keys, suffix):
    first, second, _ = files_of(folder, keys, suffix)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


@pytest.mark.parametrize("suffix", [".safetensors", ".mp4"])
@pytest.mark.parametrize(
    ("damage", "num_aside"),
    [(cut_off, 1), (flip_a_bit, 1), (rename, 1), (swap, 2)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_clip_is_set_aside_and_the_video_is_as_before(server, whole, damage, num_aside, suffix):
    name = f"{damage.__name__} {suffix}"
    folder = folder_of(server, name)
    shutil.copytree(folder_of(server, "whole"), folder)
    damage(folder, [key for key, _, _ in whole[1]], suffix)
    forget(server)
    server.run(story(server, whole[0], name))
    assert result(server, name) == whole[1]
    assert len(list((folder / "set_aside").iterdir())) == num_aside


@pytest.mark.parametrize("pattern", ["run.json", "clips/*.json"])
def test_damaged_records_cost_no_sampling(server, whole, pattern):
    name = f"records {pattern[0]}"
    folder = folder_of(server, name)
    shutil.copytree(folder_of(server, "whole"), folder)
    for path in folder.glob(pattern):
        path.write_bytes(b'{"key": 1')
    forget(server)
    goes_on(server, whole, name)


LEADING_ELSEWHERE = ["../elsewhere", "/tmp/svi_elsewhere", "a/../../elsewhere", "..\\elsewhere", "C:\\elsewhere", "a\0b", ""]


@pytest.mark.parametrize("text", LEADING_ELSEWHERE)
@pytest.mark.parametrize("where", [("SVIGenerate", "filename_prefix"), ("SVILiveSchedule", "file")], ids=str)
def test_names_that_lead_elsewhere_are_refused_when_queued_and_later(server, whole, where, text):
    """By the widget, and by a link, whose value is known only when the node runs."""
    before = set(server.base_directory.parent.rglob("*elsewhere*"))
    for linked in (False, True):
        graph = story(server, whole[0], "traversal", clips=1)
        if where[0] == "SVILiveSchedule":
            graph["prompts"] = node("SVILiveSchedule", clip=["clip", 0], file="x.txt", until_stopped=False)
        target = next(entry for entry in graph.values() if entry["class_type"] == where[0])
        graph["text"] = node("PrimitiveString", value=text)
        target["inputs"][where[1]] = ["text", 0] if linked else text
        with pytest.raises((PromptRejected, ExecutionFailed)) as caught:
            server.run(graph)
        assert where[1].split("_")[0] in json.dumps(getattr(caught.value, "node_errors", "")) + str(caught.value)
    assert set(server.base_directory.parent.rglob("*elsewhere*")) == before
    assert not list(Path("/tmp").glob("svi_elsewhere*"))


def test_unicode_spaces_and_long_names_reach_every_file(server, whole, tmp_path):
    name = "ü 文字 🎬 it's 100%d/" + "long" * 30
    picture = shutil.copy(whole[0], tmp_path / "bild ü 文 'x'.png")
    graph = loop_graph(server.add_input(Path(picture)), prompts=STORY, filename_prefix=f"svi/{name}")
    graph["saved"]["inputs"]["filename_prefix"] = "video/ü 文字 it's"
    outputs = server.run(graph)
    assert result(server, name) == whole[1]
    assert count_frames(server.saved_file(outputs["saved"]["images"][0])) == 17


def test_a_schedule_of_ten_thousand_clips_is_accepted(server, whole):
    """Up to the first step of the second clip, where it is interrupted; svi_core's tests go through a thousand."""
    text = "\n\n".join(f"[seed {index}]\nprompt {index % 50}" for index in range(MAX_CLIPS))
    with fault(server, "model", IN_CLIP_2, "stand still") as standing_still:
        graph = loop_graph(server.add_input(whole[0]), clips=MAX_CLIPS, prompts=[text], filename_prefix="svi/ten thousand")
        prompt_id = server.queue(graph)
        wait_until_there(standing_still, server)
        server.interrupt()
        with pytest.raises(ExecutionInterrupted):
            server.wait(prompt_id)
    require_sound(folder_of(server, "ten thousand"), 1)
    with pytest.raises(PromptRejected, match="10001 clips: at most 10000"):
        server.queue(loop_graph(server.add_input(whole[0]), prompts=[text + "\n\none more"]))
