"""What a story fetches: its video among all that was saved, each file under a name that is safe here."""

from pathlib import Path

import pytest

from batch.fetch import NoVideo, fetch_results
from batch.prepare import PreparedStory
from batch.records import OutputFolder
from batch.story import Place, Story


class Shelf:
    """A server that has every file; its content is its place there."""

    url = "http://shelf"

    def download(self, saved: dict, file: Path) -> None:
        file.write_text(f"{saved['subfolder']}/{saved['filename']}")


def saved(name: str, subfolder: str = "", kind: str = "output") -> dict:
    return {"filename": name, "subfolder": subfolder, "type": kind}


def fetched(folder: Path, outputs: dict, graph: dict | None = None) -> tuple[str, dict[str, str]]:
    """Return the content of the video, and of the other files by name."""
    story = Story("tale", Place("t.csv", 2), {}, folder)
    output = OutputFolder(folder)
    video, files = fetch_results(PreparedStory(story, graph or {}, {}, 1, ""), outputs, Shelf(), output)
    others = output.story("tale") / "files"
    return (folder / video["file"]).read_text(), {name: (others / name).read_text() for name in files}


def test_files_of_one_name_in_several_folders_are_all_kept(tmp_path: Path):
    pictures = [saved("a.png", "one"), saved("a.png", "two"), saved("A.png", "three"), saved("a.png", "one")]
    video, others = fetched(tmp_path, {"1": {"images": [*pictures, saved("v.mp4", "x"), saved("seen.png", kind="temp")]}})
    assert video == "x/v.mp4" and others == {"a.png": "one/a.png", "a-2.png": "two/a.png", "A-3.png": "three/A.png"}


def test_the_video_is_that_of_the_first_node_whichever_ran_first(tmp_path: Path):
    outputs = {"9": {"images": [saved("second.mp4")]}, "3": {"gifs": [saved("first.webm")]}}
    assert fetched(tmp_path, outputs, {"3": {}, "9": {}}) == ("/first.webm", {"second.mp4": "/second.mp4"})


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("../../up.txt", ".._.._up.txt"),
        ("..", "file"),
        ("c:\\x\\n.txt", "c__x_n.txt"),
        ("aux.txt", "file.txt"),
        ("s:a.txt", "s_a.txt"),
    ],
)
def test_no_name_of_a_server_leads_out_of_the_folder(tmp_path: Path, there: str, here: str):
    _, others = fetched(tmp_path, {"1": {"images": [saved("v.mp4"), saved(there)]}})
    assert others == {here: f"/{there}"}
    assert {path.name for path in tmp_path.iterdir()} == {"tale.mp4", "stories"}


def test_a_story_has_one_video_also_after_the_workflow_saves_another_kind(tmp_path: Path):
    fetched(tmp_path, {"1": {"images": [saved("v.webm")]}})
    fetched(tmp_path, {"1": {"images": [saved("v.mp4")]}})
    assert [path.name for path in tmp_path.glob("tale.*")] == ["tale.mp4"]


def test_a_workflow_without_a_video_says_what_to_add(tmp_path: Path):
    with pytest.raises(NoVideo, match="add SVI Show Video or Save Video"):
        fetched(tmp_path, {"1": {"images": [saved("a.png")]}})
