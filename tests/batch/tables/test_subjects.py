"""What an image shows: from the text beside it, or from its name; a name that says nothing is refused."""

from pathlib import Path

import pytest

from batch.tables.subjects import read_subjects
from tests.conftest import draw_reference


def image(folder: Path, name: str, text: str | None = None) -> Path:
    draw_reference(folder / name)
    if text is not None:
        (folder / name).with_suffix(".txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    "name, subject",
    [
        ("young_woman-02.png", "a young woman"),
        ("Old Man.jpg", "an Old Man"),
        ("two_dogs.png", "two dogs"),
        ("a cat.png", "a cat"),
    ],
)
def test_the_name_of_an_image_says_who_it_shows(tmp_path, name, subject):
    assert [found.text for found in read_subjects(image(tmp_path, name))] == [subject]


@pytest.mark.parametrize("name", ["IMG_1234.png", "0001.png", "DSC00012.jpg"])
def test_a_name_that_says_nothing_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} does not say who or what .* write that into .*{Path(name).stem}.txt"):
        read_subjects(image(tmp_path, name))


def test_a_text_beside_an_image_says_more(tmp_path):
    (found,) = read_subjects(
        image(tmp_path, "IMG_1.png", "# mine\na red fox\n\nKind: animal\nplace: on a hill\nstyle: watercolour\n")
    )
    assert (found.text, found.kind, found.place, found.style) == ("a red fox", "animal", "on a hill", "watercolour")


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("a fox\nThe fox runs.\n", r"line 2: 'The fox runs.' is none of place:, style:, kind:"),
        ("a fox\nkind: ghost\n", "no kind 'ghost': use person, animal, vehicle, scenery"),
        ("\n", "is empty: write who or what cat.png shows"),
    ],
)
def test_a_wrong_text_is_named_by_its_line(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_subjects(image(tmp_path, "cat.png", text))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        read_subjects(tmp_path)
    with pytest.raises(ValueError, match="no folder of images"):
        read_subjects(tmp_path / "nowhere")


def test_sound_and_poses_lie_beside_the_image(tmp_path):
    (found,) = read_subjects(image(tmp_path, "cat.png"))
    assert found.beside("sound") is None
    (tmp_path / "cat.wav").touch()
    (tmp_path / "cat.mp4").touch()
    assert (found.beside("sound"), found.beside("pose")) == (tmp_path / "cat.wav", tmp_path / "cat.mp4")
