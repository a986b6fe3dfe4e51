"""A story in a workflow: which inputs its columns set, as which type, and what cannot be."""

import contextlib
import copy
import os
import wave
from pathlib import Path

import pytest

from batch.media import check_image, name_by_content
from batch.prepare import prepare
from batch.story import Cell, Place, Story, StoryError
from batch.workflow.convert import Workflow
from tests.batch.fake_comfyui import OBJECT_INFO, workflow
from tests.conftest import draw_reference

INFO = {
    **OBJECT_INFO,
    "LoadAudio": {"input": {"required": {"audio": [["speech.wav"], {"audio_upload": True}]}}},
    "Flag": {"input": {"required": {"on": ["BOOLEAN", {}], "value": ["FLOAT", {"min": 0, "max": 2}]}}},
}


def story(folder: Path = Path("."), **values: object) -> Story:
    cells = {name: Cell(value, Place("t.csv", 4, column, name)) for column, (name, value) in enumerate(values.items(), start=1)}
    return Story("tale", Place("t.csv", 4), cells, folder)


def graph_of(told: Story, graph: dict | None = None) -> dict:
    return prepare(told, Workflow(graph or workflow()), INFO, "b").graph


def test_columns_set_their_inputs_as_the_type_that_the_server_wants(tmp_path: Path):
    graph = workflow() | {"6": {"class_type": "Flag", "inputs": {"on": False, "value": 1.0}}}
    image = draw_reference(tmp_path / "Cat.PNG")
    values = {
        "image": "Cat.PNG",
        "prompts": "a\n\nb",
        "seed": "5",
        "Flag.on": "yes",
        "6.value": "0.5",
        "SVI LoRA.lora": "svi_low.safetensors",
    }
    prepared = prepare(story(tmp_path, **values), Workflow(graph), INFO, "b")
    assert prepared.graph["4"]["inputs"]["seed"] == 5 and prepared.graph["6"]["inputs"] == {"on": True, "value": 0.5}
    assert prepared.graph["2"]["inputs"]["lora"] == "svi_low.safetensors" and prepared.graph["3"]["inputs"]["text"] == "a\n\nb"
    assert prepared.uploads == {name_by_content(image): image}
    assert prepared.graph["1"]["inputs"]["image"] == f"svi_batch/{name_by_content(image)}" and image.suffix == ".PNG"
    assert graph["4"]["inputs"]["seed"] == 7, "the workflow itself stays as it is"


def test_an_image_of_many_rows_is_decoded_once(tmp_path: Path, monkeypatch):
    opened = []
    monkeypatch.setattr("PIL.Image.open", lambda path: opened.append(path) or contextlib.nullcontext(Picture()))

    class Picture:
        def load(self) -> None:
            pass

    image = draw_reference(tmp_path / "cat.png")
    for seed in range(3):
        prepare(story(tmp_path, image="cat.png", seed=seed), Workflow(workflow()), INFO, "b")
    assert opened == [image]
    os.utime(image, ns=(1, 1))  # another one under the same name
    prepare(story(tmp_path, image="cat.png"), Workflow(workflow()), INFO, "b")
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("values", "saved", "expected"),
    [
        ({"prompts": "a\n\nb"}, 3, 2),  # as many as the prompts
        ({"prompts": "[x4]\na\n\nb"}, 3, 5),
        ({"prompts": "a\n\nb", "clips": "7"}, 3, 7),
        ({"prompts": "a\n\nb", "Loop.num_clips": "6"}, 3, 6),
        ({"prompts": "a\n\nb"}, 0, 0),  # the node counts by itself
        ({"prompts": "a\n\nb"}, ["3", 1], ["3", 1]),  # as linked
        ({"seed": "1"}, 3, 3),
    ],
)
def test_the_number_of_clips(values: dict, saved: object, expected: object):
    graph = workflow()
    graph["4"]["inputs"]["num_clips"] = saved
    prepared = prepare(story(**values), Workflow(graph), INFO, "b")
    assert prepared.graph["4"]["inputs"]["num_clips"] == expected
    assert prepared.num_clips == (expected if isinstance(expected, int) and expected else 2), "what the time left is told by"


def test_a_sound_decides_the_length_by_itself(tmp_path: Path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    graph = workflow() | {"6": {"class_type": "LoadAudio", "inputs": {"audio": "speech.wav"}}}
    found = graph_of(story(tmp_path, prompts="a", sound="a.wav"), graph)
    assert found["4"]["inputs"]["num_clips"] == 3 and found["6"]["inputs"]["audio"].endswith(".wav")


def test_the_image_is_that_of_the_anchor_where_there_are_several(tmp_path: Path):
    draw_reference(tmp_path / "cat.png")
    graph = workflow() | {"6": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Other"}}}
    found = graph_of(story(tmp_path, image="cat.png"), graph)
    assert found["1"]["inputs"]["image"].startswith("svi_batch/") and found["6"]["inputs"]["image"] == "example.png"


def test_a_widget_of_a_subgraph_sets_all_that_it_leads_to():
    panels = {"8": ("Film", {"weight": [("2", "strength"), ("6", "strength")]})}
    graph = workflow() | {"6": copy.deepcopy(workflow()["2"])}
    for address in ("Film.weight", "8.weight"):
        found = prepare(story(**{address: "0.5"}), Workflow(graph, panels), INFO, "b").graph
        assert found["2"]["inputs"]["strength"] == found["6"]["inputs"]["strength"] == 0.5


def test_the_key_changes_with_what_the_video_depends_on(tmp_path: Path):
    def key(name: str = "cat.png", **values: object) -> str:
        return prepare(story(tmp_path, image=name, **values), Workflow(workflow()), INFO, "b").key

    draw_reference(tmp_path / "cat.png")
    (tmp_path / "same.png").write_bytes((tmp_path / "cat.png").read_bytes())
    first = key()
    assert first == key("same.png") == key(seed="7") != key(seed="8")
    called = workflow()
    called["2"]["_meta"]["title"] = "My LoRA"
    called["5"]["inputs"]["filename_prefix"] = "elsewhere"
    assert first == prepare(story(tmp_path, image="cat.png"), Workflow(called), INFO, "another folder").key
    draw_reference(tmp_path / "cat.png")
    (tmp_path / "cat.png").write_bytes((tmp_path / "cat.png").read_bytes() + b"\0")
    assert key() != first


@pytest.mark.parametrize(
    ("values", "column", "message"),
    [
        ({"image": "lost.png"}, "image", "lost.png is not there"),
        ({"image": "text.png"}, "image", "text.png is not a readable picture"),
        ({"prompts": "[seeed 3]\na"}, "prompts", "line 1, column"),
        ({"prompts": "# nothing"}, "prompts", "prompt"),
        ({"seed": "-1"}, "seed", "-1 is not in 0 to"),
        ({"layout": "2.0 Pro"}, "layout", "the workflow has no SVILayout with 'variant', which layout sets"),
        ({"sound": "a.wav"}, "sound", "has no LoadAudio"),
        ({"Looop.seed": "1"}, "Looop.seed", "there is Loop.seed"),
        ({"Loop.model": "1"}, "Loop.model", "is no widget: it takes a link"),
        ({"SVI LoRA.strength": "strong"}, "SVI LoRA.strength", "'strong' is no number"),
        ({"SVI LoRA.strength": "10"}, "SVI LoRA.strength", "10 is not in -9 to 9"),
        ({"SVI LoRA.lora": "svi_hihg.safetensors"}, "SVI LoRA.lora", "is not on the server: there is svi_high.safetensors"),
        ({"Loop.seed": "1.5"}, "Loop.seed", "'1.5' is no whole number"),
    ],
)
def test_what_cannot_be_is_named_with_its_cell(tmp_path: Path, values: dict, column: str, message: str):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(StoryError) as caught:
        graph_of(story(tmp_path, **values))
    assert str(caught.value).startswith(f"t.csv, line 4, column 1 ({column}): ") and message in str(caught.value)


def test_prompts_that_a_link_splits_or_writes_are_not_counted():
    graph = workflow()
    graph["3"]["inputs"]["split"] = ["9", 0]
    assert prepare(story(prompts="a\n\nb"), Workflow(graph), INFO, "b").graph["4"]["inputs"]["num_clips"] == 0
    del graph["3"]["inputs"]["text"]
    graph["4"]["inputs"]["num_clips"] = 0
    assert prepare(story(seed="1"), Workflow(graph), INFO, "b").num_clips == 0


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", None])
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes | None):
    path = draw_reference(tmp_path / "cut.png")
    check_image(path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match="is not a readable picture"):
        check_image(path)


def test_a_title_of_two_nodes_is_refused_with_their_ids():
    graph = workflow() | {"6": copy.deepcopy(workflow()["2"])}
    with pytest.raises(StoryError, match=r"2 nodes are called so: use the id of one, 2\.strength, 6\.strength"):
        graph_of(story(**{"SVI LoRA.strength": "1"}), graph)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lora": "lost.safetensors"}, r"line 4: lora of node 2 \(SVI LoRA\): 'lost.safetensors' is not on the server"),
        (None, r"node 2 \(SVI LoRA\) has the type 'Gone', which the server does not know"),
        ({"text": "[seeed 3]\na"}, r"line 4: the prompts of the workflow: .*line 1, column"),
    ],
)
def test_what_the_workflow_itself_wants_and_the_server_lacks_is_named(changed: dict | None, message: str):
    graph = workflow()
    if changed is None:
        graph["2"]["class_type"] = "Gone"
    else:
        graph["3" if "text" in changed else "2"]["inputs"] |= changed
        graph["4"]["inputs"]["num_clips"] = 0
    with pytest.raises(StoryError, match=message):
        graph_of(story(seed="1"), graph)
