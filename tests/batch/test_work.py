"""Which place gets which story, and what becomes of stories whose places are lost."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from batch.outcome import LOST, UNFIT, Outcome
from batch.prepare import PreparedStory
from batch.progress import Progress
from batch.records import QUEUED, OutputFolder, Record
from batch.story import Place, Story
from batch.work import MOST_LOSSES, Batch


def prepared(name: str, lora: str = "a.safetensors") -> PreparedStory:
    graph = {"1": {"class_type": "SVILora", "inputs": {"lora": lora, "strength": 1.0}}}
    return PreparedStory(Story(name, Place("table", 1), {}, Path()), graph, {}, 1, "key")


def batch_of(tmp_path: Path, stories: Mapping[str, str], places: str, held_by: Mapping[str, str] | None = None) -> Batch:
    """Stories with their LoRAs, which every place can make; places are single letters."""
    waiting = {name: dict.fromkeys(places, prepared(name, lora)) for name, lora in stories.items()}
    progress = Progress(dict.fromkeys(stories, 1), stream=io.StringIO())
    return Batch(waiting, OutputFolder(tmp_path), progress, held_by or {}, places={place: place for place in places})


def taken(batch: Batch, place: str) -> str | None:
    story = batch.next_for(place)
    return story and story.story.name


def test_a_place_gets_what_it_has_already_then_what_its_models_make_then_the_first(tmp_path: Path):
    stories = {"one": "a.gguf", "two": "b.gguf", "three": "a.gguf", "four": "b.gguf"}
    batch = batch_of(tmp_path, stories, "AB", held_by={"four": "A"})
    assert taken(batch, "A") == "four" and taken(batch, "A") == "two", "it holds b.gguf"
    assert taken(batch, "B") == "one" and taken(batch, "B") == "three" and taken(batch, "A") is None
    assert batch.has_more_for("A"), "a running story may come back"


def test_a_held_story_waits_for_its_server_while_that_may_make_it(tmp_path: Path):
    batch = batch_of(tmp_path, {"one": "a.gguf"}, "AB", held_by={"one": "A"})
    batch.places["C"] = "C"  # which can make nothing
    assert taken(batch, "B") is None and batch.has_more_for("B") and not batch.has_more_for("C")
    batch.lose("A", "gone")
    assert taken(batch, "B") == "one"


@pytest.mark.parametrize("status", [UNFIT, LOST])
def test_a_held_story_that_its_server_may_not_make_any_more_goes_to_another(tmp_path: Path, status: str):
    """The server is still asked; it has given this story up: at once, or after as many losses as it may have."""
    batch = batch_of(tmp_path, {"one": "a.gguf"}, "AB", held_by={"one": "A"})
    for number in range(1 if status == UNFIT else MOST_LOSSES):
        assert taken(batch, "A") == "one"
        batch.folder.write_record("one", Record(QUEUED, "key", prompt_id=str(number)))
        batch.note("one", "A", Outcome(status, reason="it does not work there"))
    assert "A" in batch.places and taken(batch, "A") is None
    assert taken(batch, "B") == "one" and not batch.failed


def test_a_story_fails_with_the_last_place_that_might_have_made_it(tmp_path: Path):
    """It says why no other place makes it, and what became of the last."""
    batch = batch_of(tmp_path, {"one": "a.gguf", "two": "a.gguf"}, "AB")
    assert taken(batch, "A") == "one"
    batch.note("one", "A", Outcome(UNFIT, reason="it lacks a.gguf"))
    batch.lose("B", "B burns")
    assert batch.failed == {"one": "it lacks a.gguf; B burns"} and taken(batch, "A") == "two"
