"""Tables: what is written is read, wherever it has commas, quotes and line ends; what is wrong is named by its place."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.table import read_table

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), min_size=1, max_size=40).filter(
    str.strip
)
ROWS = st.lists(st.tuples(TEXTS, st.integers(0, 2**53 - 1)), min_size=1, max_size=6)


def table(folder: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


@given(
    ROWS, st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
)
def test_a_csv_file_gives_back_its_cells_and_their_lines(tmp_path_factory, rows, delimiter, line_end, encoding):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(["prompts", "seed"])
    lines = []
    for row in rows:
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    stories, problems = read_table(table(tmp_path_factory.mktemp("t"), text.getvalue(), encoding=encoding))
    assert problems == [] and [story.place.line for story in stories] == lines
    assert [(story.cells["prompts"].value, int(story.cells["seed"].value)) for story in stories] == [
        (prompt.strip(), seed) for prompt, seed in rows
    ]
    assert len({story.name for story in stories}) == len(rows)


@given(
    st.lists(st.fixed_dictionaries({"prompts": TEXTS, "seed": st.integers(0, 2**53 - 1), "A b.c": st.booleans()}), min_size=1)
)
def test_a_jsonl_file_gives_back_its_values(tmp_path_factory, rows):
    text = "\n".join(json.dumps(row) for row in rows)
    stories, problems = read_table(table(tmp_path_factory.mktemp("t"), text, "t.jsonl"))
    assert problems == [] and [{name: cell.value for name, cell in story.cells.items()} for story in stories] == rows


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_words(tmp_path_factory, text: str):
    folder = tmp_path_factory.mktemp("t")
    for name in ("t.csv", "t.jsonl"):
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read_table(folder / name)
        except ValueError as error:
            assert name in str(error)


def test_prompts_come_from_cells_files_and_lists(tmp_path: Path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "fox.txt").write_text("\ufeffa fox\n\nit runs\n", encoding="utf-8")
    stories, problems = read_table(table(tmp_path, "name,prompts,prompts_file\na,a cat,\nb,,p/fox.txt\n"))
    assert problems == [] and [story.cells["prompts"].value for story in stories] == ["a cat", "a fox\n\nit runs\n"]
    assert stories[1].cells["prompts"].place.name == "prompts_file"
    (story,), _ = read_table(table(tmp_path, '{"name": "x", "prompts": ["a cat", "it runs"], "seed": null}', "t.jsonl"))
    assert story.cells["prompts"].value == "a cat\n\nit runs" and set(story.cells) == {"prompts"}


def test_a_folder_of_images_with_texts_is_a_table(tmp_path: Path):
    for name in ("b.png", "a.JPG", "c.webp", "b.txt", "a.txt", "notes.md", "._a.JPG"):
        (tmp_path / name).write_text(f"story of {name}")
    stories, problems = read_table(tmp_path)
    assert [(story.name, story.cells["prompts"].value) for story in stories] == [
        ("a", "story of a.txt"),
        ("b", "story of b.txt"),
    ]
    assert stories[0].path(stories[0].cells["image"].value) == tmp_path / "a.JPG"
    assert [str(problem) for problem in problems] == [
        f"{tmp_path / 'c.webp'}: its prompts, c.txt, are missing: put that text file beside it"
    ]


def test_stories_without_names_are_called_after_their_images(tmp_path: Path):
    stories, _ = read_table(table(tmp_path, "image,seed\nx/cat.png,1\ncat.jpg,2\n,3\n"))
    assert [story.name for story in stories] == ["cat", "cat-2", "story-3"]


@pytest.mark.parametrize(
    ("row", "place", "message"),
    [
        ("a,b,c,9,1,x", "line 2, column 6 (without a name)", "the row has 6 cells, the header 5"),
        ("a,x,,zero,1", "line 2, column 4 (clips)", "'zero' is no whole number from 1 on"),
        ("a,x,,1.5,1", "line 2, column 4 (clips)", "'1.5' is no whole number from 1 on"),
        ("a,x,,1,-1", "line 2, column 5 (seed)", "'-1' is no whole number from 0 on"),
        ("a,x,,1,9007199254740992", "line 2, column 5 (seed)", "is no whole number from 0 on"),
        ("a/b,x,,1,1", "line 2, column 1 (name)", "'a/b' cannot name a file on every system"),
        ("50% %width%,x,,1,1", "line 2, column 1 (name)", "use letters, digits, - and _, at most 120 bytes"),
        ("a,x,lost.txt,1,1", "line 2, column 3 (prompts_file)", "the row has both prompts and prompts_file"),
        ("a,,lost.txt,1,1", "line 2, column 3 (prompts_file)", "lost.txt cannot be read (No such file or directory)"),
        ("GOOD,x,,1,1", "line 3, column 1 (name)", "the name 'good' is that of"),
    ],
)
def test_a_bad_row_is_named_and_the_others_stay(tmp_path: Path, row: str, place: str, message: str):
    stories, (problem,) = read_table(table(tmp_path, f"name,prompts,prompts_file,clips,seed\n{row}\ngood,x,,1,1\n"))
    if row.startswith("GOOD"):  # the first of a name stays
        assert [story.name for story in stories] == ["GOOD"] and "line 3, column 1 (name)" in str(problem)
        return
    assert [story.name for story in stories] == ["good"]
    assert place in str(problem) and message in str(problem)


def test_every_bad_row_has_a_name_of_its_own(tmp_path: Path):
    rows = ["x.png,good,1", "x.png,good,1,a", "y.png,,1,b", "y.png,,1,c", "z.png,a/b,1", "z.png,a/b,1"]
    stories, problems = read_table(table(tmp_path, "\n".join(["image,name,seed", *rows])))
    assert [story.name for story in stories] == ["good"]
    assert [problem.story for problem in problems] == ["good (line 3)", "(line 4)", "(line 5)", "a/b", "a/b (line 7)"]


def test_one_letter_written_in_two_ways_is_one_name(tmp_path: Path):
    _, (problem,) = read_table(table(tmp_path, "name\ncafé\ncafe\u0301\n"))
    assert "is that of" in problem.message


def test_the_empty_cells_that_spreadsheets_write_at_the_end_are_no_columns(tmp_path: Path):
    (story,), problems = read_table(table(tmp_path, "name,seed,,\na,1,,\n"))
    assert problems == [] and set(story.cells) == {"seed"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"name": "a", "clips": true}', "True' is no whole number"),
        ('{"name": "a", ', "column"),
        ("[1]", "the line is a JSON list"),
        ('{"colour": 1}', "there is no column 'colour'"),
        ('{"prompts": ["a", 3]}', "must hold texts only"),
        ('{"seed": {"a": 1}}', "seed is a JSON dict"),
    ],
)
def test_a_bad_line_of_json_is_named_and_the_others_stay(tmp_path: Path, line: str, message: str):
    stories, (problem,) = read_table(table(tmp_path, f'{line}\n{{"name": "good"}}\n', "t.jsonl"))
    assert [story.name for story in stories] == ["good"]
    assert "t.jsonl, line 1" in str(problem) and message in str(problem)
