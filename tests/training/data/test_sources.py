"""Finding clips and captions: every form is read, everything unusable is named with its place."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from training.data.sources import find_clips

SHARED_DATA = Path("/work/shared/data/train")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not looked into here")


def captions(folder: Path, **settings) -> dict[str, str]:
    clips, rejected = find_clips(folder, **settings)
    assert not rejected, rejected
    return {clip.name: clip.caption for clip in clips}


def test_a_text_file_beside_a_clip_is_its_caption(tmp_path):
    touch(tmp_path, "b.mp4", "sub/Größe 大.MOV")
    (tmp_path / "b.txt").write_text("\ufeffA red\n ball.\n", encoding="utf-8")
    (tmp_path / "sub/Größe 大.txt").write_text("Ein Baum", encoding="utf-8")
    assert captions(tmp_path) == {"b.mp4": "A red ball.", "sub/Größe 大.MOV": "Ein Baum"}


def test_the_longest_name_that_a_file_may_have_is_a_name(tmp_path):
    """The .json beside it cannot exist: one character too many."""
    name = "l" * 251 + ".mp4"
    touch(tmp_path, name)
    (tmp_path / f"{name[:-4]}.txt").write_text("A cat")
    assert captions(tmp_path) == {name: "A cat"}
    (tmp_path / f"{name[:-4]}.txt").unlink()
    [rejected] = find_clips(tmp_path)[1]
    assert rejected.where == name and "has no caption" in rejected.reason


def test_the_released_csv_form_is_read(tmp_path):
    touch(tmp_path, "Cats/one.mp4")
    (tmp_path / "Cats/Cats.csv").write_text(
        '\ufeffVideo Title,Video Description,Video URL,Download URL,Filename\nOne,"A cat, ""Tom"",\non a mat",,,one.mp4\n',
        encoding="utf-8",
    )
    assert captions(tmp_path) == {"Cats/one.mp4": 'A cat, "Tom", on a mat'}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_are_recognised(tmp_path, delimiter, end):
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    rows = [("Caption", "File"), ("A dog", "a.mp4"), ("A bird", "sub\\b.mp4")]
    (tmp_path / "t.csv").write_bytes(end.join(delimiter.join(row) for row in rows).encode())
    assert captions(tmp_path) == {"a.mp4": "A dog", "sub/b.mp4": "A bird"}


def test_jsonl_rows_are_read_and_broken_ones_named(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = [
        '{"file": "a.mp4", "caption": "one\\u2028two"}',
        "",
        "{",
        "[1]",
        '{"file": "b.mp4", "caption": 3}',
        '{"file": "b.mp4"}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    clips, rejected = find_clips(tmp_path)
    assert [(clip.name, clip.caption, clip.origin) for clip in clips] == [("a.mp4", "one two", "t.jsonl line 1")]
    found = {item.where: item.reason for item in rejected}
    assert "not JSON" in found["t.jsonl line 3"]
    assert "not a JSON object" in found["t.jsonl line 4"]
    assert "int" in found["t.jsonl line 5"]
    assert "caption" in found["t.jsonl line 6"]
    assert "b.txt" in found["b.mp4"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "file\tcaption\na.mp4\tA cat\nsub/b.mp4\tA dog, brown\n"),
        ("t.json", json.dumps([{"file": "a.mp4", "caption": "A cat"}, {"Video": "sub/b.mp4", "text": "A dog, brown"}])),
        ("t.json", json.dumps({"a.mp4": "A cat", "sub/b.mp4": {"caption": "A dog, brown"}, "version": 1})),
    ],
)
def test_tsv_and_json_tables_are_read(tmp_path, name, text):
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    (tmp_path / name).write_text(text)
    assert captions(tmp_path) == {"a.mp4": "A cat", "sub/b.mp4": "A dog, brown"}


def test_a_json_file_beside_a_clip_is_its_caption(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    for name, value in {"a": {"Caption": "A cat"}, "b": {"tags": []}, "c": {"caption": 3}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    clips, rejected = find_clips(tmp_path)
    assert [(clip.name, clip.caption) for clip in clips] == [("a.mp4", "A cat")]
    reasons = {item.where: item.reason for item in rejected}
    assert "no caption" in reasons["b.mp4"] and "caption must be a text, not int" in reasons["c.mp4"]


def test_what_was_a_caption_before_stays_the_caption(tmp_path):
    """TSV and JSON were passed over: they count after a row of a CSV table and after a text file."""
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4")
    (tmp_path / "t.csv").write_text("file,caption\na.mp4,from csv\n")
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("from text")
    for name in "abcd":
        (tmp_path / f"{name}.json").write_text('{"caption": "from json beside"}')
    (tmp_path / "t.tsv").write_text("file\tcaption\n" + "".join(f"{name}.mp4\tfrom tsv\n" for name in "abc"))
    (tmp_path / "z.json").write_text(json.dumps({f"{name}.mp4": "from json table" for name in "abe"}))
    assert captions(tmp_path) == {
        "a.mp4": "from csv",
        "b.mp4": "from text",
        "c.mp4": "from tsv",
        "d.mp4": "from json beside",
        "e.mp4": "from json table",
    }


def test_a_second_caption_in_tsv_or_json_tables_is_named(tmp_path):
    """Rows for a clip that takes its caption from elsewhere are passed over, as before, and so are rows that say the same."""
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "z/x.mp4")
    (tmp_path / "d.txt").write_text("from text")
    lines = "a.mp4	A cat", "a.mp4	A  cat ", "a.mp4	A dog", "b.mp4	 ", "b.mp4	A hen", "d.mp4	x", "d.mp4	y"
    (tmp_path / "t.tsv").write_text("\n".join(("file\tcaption", *lines)))
    (tmp_path / "u.json").write_text(json.dumps([{"file": "a.mp4", "text": "A cow"}, {"file": "c.mp4", "text": "A pig"}]))
    (tmp_path / "z" / "v.json").write_text(json.dumps({"x.mp4": "one", "../c.mp4": "A pig", "../a.mp4": "A cat"}))
    clips, rejected = find_clips(tmp_path, "nothing said")
    assert {clip.name: clip.caption for clip in clips} == {
        "a.mp4": "A cat", "b.mp4": "A hen", "c.mp4": "A pig", "d.mp4": "from text", "z/x.mp4": "one",
    }  # fmt: skip
    assert {item.where: item.reason for item in rejected} == {
        "t.tsv line 4": "a.mp4 has a caption already, from t.tsv line 2",
        "t.tsv line 5": "b.mp4 has a caption already, from t.tsv line 6",
        "u.json entry 1": "a.mp4 has a caption already, from t.tsv line 2",
    }


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_a_caption_beside_a_clip_has_the_size_of_a_text(tmp_path, name):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "b.txt").write_text("A cat")
    with (tmp_path / name).open("wb") as file:
        file.truncate((16 << 20) + 1)
    clips, (rejected,) = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["b.mp4"]
    assert rejected.where == "a.mp4" and rejected.reason.startswith(f"{name} is larger than 16 MiB")


def test_a_broken_caption_is_called_by_its_own_name(tmp_path):
    touch(tmp_path, "c.mp4")
    (tmp_path / "c.json").write_text('{"caption": ')
    _, (rejected,) = find_clips(tmp_path)
    assert rejected.where == "c.mp4" and rejected.reason.startswith("c.json is not JSON (Expecting value at line 1")


def test_a_name_that_leaves_no_room_for_a_longer_suffix_is_a_clip(tmp_path):
    """255 characters are legal; `.json` and `.pose.mp4` are longer than `.mp4`."""
    name = "a" * 251 + ".mp4"
    touch(tmp_path, name)
    assert captions(tmp_path, default_caption="A cat") == {name: "A cat"}
    (tmp_path / name).with_suffix(".txt").write_text("A dog")
    assert captions(tmp_path) == {name: "A dog"}
    assert find_clips(tmp_path)[0][0].sound.name == name


def test_rows_of_a_json_table_that_cannot_be_used_are_named(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "t.json").write_text(json.dumps([{"file": "a.mp4", "text": "A cat"}, 3, {"file": "gone.mp4", "text": "x"}]))
    clips, rejected = find_clips(tmp_path)
    assert [clip.origin for clip in clips] == ["t.json entry 1"]
    assert [item.where for item in rejected] == ["t.json entry 2", "t.json entry 3"]


def test_absolute_paths_inside_the_folder_are_read(tmp_path):
    data = tmp_path / "data"
    touch(data, "a.mp4", "sub/b.mp4")
    touch(tmp_path, "c.mp4")
    (data / "sub" / "t.jsonl").write_text(
        "\n".join(json.dumps({"file": str(data / name), "text": "x"}) for name in ("a.mp4", "sub/b.mp4"))
    )
    assert captions(data) == {"a.mp4": "x", "sub/b.mp4": "x"}
    (data / "u.jsonl").write_text(json.dumps({"file": str(tmp_path / "c.mp4"), "text": "x"}))
    _, (rejected,) = find_clips(data)
    assert rejected.reason == f"'{tmp_path}/c.mp4' leads out of the dataset folder: copy the clip into it"


def test_an_unclosed_quote_costs_its_own_row_only(tmp_path):
    touch(tmp_path, *(f"{name}.mp4" for name in "abcd"))
    rows = ["Filename,Video Description", "a.mp4,A cat", 'b.mp4,"A dog', "c.mp4,A hen", 'd.mp4,"A cow, brown"']
    (tmp_path / "t.csv").write_text("\n".join(rows))
    clips, rejected = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["a.mp4", "c.mp4", "d.mp4"]
    assert [item.where for item in rejected] == ["t.csv line 3", "b.mp4"]
    assert "close every quote" in rejected[0].reason


def test_bad_rows_are_named_and_the_others_used(tmp_path):
    touch(tmp_path, "good.mp4", "empty.mp4")
    rows = ["Filename,caption", "good.mp4,A cat", "good.mp4,Again", "gone.mp4,A dog", "empty.mp4, ", ",A hen", "one field"]
    rows += ["good.mp4,a,b", "", f"{'x' * 300}.mp4,long", 'big.mp4,"' + "y" * 140_000 + '"']
    (tmp_path / "t.csv").write_text("\n".join(rows))
    clips, rejected = find_clips(tmp_path)
    assert [(clip.name, clip.caption) for clip in clips] == [("good.mp4", "A cat")]
    reasons = {item.where: item.reason for item in rejected}
    assert list(reasons) == [f"t.csv line {line}" for line in (3, 4, 5, 6, 7, 8, 10, 11)]
    assert "t.csv line 2" in reasons["t.csv line 3"]
    assert "gone.mp4" in reasons["t.csv line 4"]
    assert "no caption" in reasons["t.csv line 5"]
    assert "1 fields" in reasons["t.csv line 7"] and "3 fields" in reasons["t.csv line 8"]


@pytest.mark.parametrize(
    "file", ["../secret.mp4", "/etc/passwd", "sub/../../secret.mp4", "C:\\clips\\a.mp4", "\\\\host\\a.mp4", "link.mp4"]
)
def test_no_path_leads_out_of_the_dataset(tmp_path, file):
    data = tmp_path / "data"
    touch(tmp_path, "secret.mp4")
    touch(data, "sub/other.txt")
    os.symlink(tmp_path / "secret.mp4", data / "link.mp4")
    (data / "t.csv").write_text(f"Filename,caption\n{file},A cat\n")
    clips, rejected = find_clips(data)
    assert clips == []
    assert rejected[0].where == "t.csv line 2" and "dataset folder" in rejected[0].reason
    assert any(item.where == "link.mp4" and "leads out" in item.reason for item in rejected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Filename,caption\na.mp4,caf\xe9\n".encode("latin-1"), "not UTF-8 text (byte 0xe9 at 26)"),
        (b"name#words\na.mp4#A cat\n", "name#words"),
        (b"Filename,size\na.mp4,3\n", "Filename,size"),
        (b"", "''"),
        (b'"Filename,caption\na.mp4,A cat\n', "close every quote"),
    ],
)
def test_an_unreadable_table_is_refused_by_name(tmp_path, content, reason):
    touch(tmp_path, "a.mp4")
    (tmp_path / "t.csv").write_bytes(content)
    (tmp_path / "a.txt").write_text("from the text file")
    clips, rejected = find_clips(tmp_path)
    assert [clip.caption for clip in clips] == ["from the text file"]
    assert [item.where for item in rejected] == ["t.csv"] and reason in rejected[0].reason


def test_a_table_of_another_encoding_is_read_where_it_names_it(tmp_path):
    """Notepad and Excel write UTF-16 with a mark."""
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "t.csv").write_bytes("Filename,caption\na.mp4,ein Kätzchen\n".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes("ein Hündchen".encode("utf-16"))
    assert captions(tmp_path) == {"a.mp4": "ein Kätzchen", "b.mp4": "ein Hündchen"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('{"file": ' + "[" * 100_000, "nested more than 64 levels deep"),
        ('{"file": "a.mp4", "caption": "a", "id": ' + "9" * 5000 + "}", "a number of 5000 digits"),
        ('{"file": "a.mp4", "caption": "a \\ud800 cat"}', "is half a character"),
        ('{"file": "a\\ud800.mp4", "caption": "a"}', "is half a character"),
        ('{"file": "' + "a" * 300 + '.mp4", "caption": "a"}', "there is no file"),
    ],
    ids=range(5),
)
def test_a_hostile_line_costs_only_itself(tmp_path, entry, reason):
    touch(tmp_path, "a.mp4")
    (tmp_path / "t.jsonl").write_text(entry + '\n{"file": "a.mp4", "caption": "A cat"}\n')
    clips, rejected = find_clips(tmp_path)
    assert [clip.caption for clip in clips] == ["A cat"]
    assert [item.where for item in rejected] == ["t.jsonl line 1"] and reason in rejected[0].reason


@pytest.mark.parametrize("start", ["", "../", "C:"])
def test_a_name_of_any_length_is_shown_in_a_short_message(tmp_path, start):
    (tmp_path / "t.csv").write_text(f"file,caption\n{start}{'8' * 5000}.mp4,x\n")
    _, (rejected,) = find_clips(tmp_path)
    assert f"'{start}8" in rejected.reason and "8.mp4'" in rejected.reason and len(rejected.reason) < 700


def test_columns_of_any_length_are_shown_in_a_short_message(tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"x" * 5000: "a.mp4", "caption": "A cat"}))
    _, (rejected,) = find_clips(tmp_path)
    assert rejected.reason.startswith("its header ['xxx") and len(rejected.reason) < 700


def test_pipes_and_loops_of_links_are_named_and_nobody_waits_for_them(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "a.txt").write_text("A cat")
    os.mkfifo(tmp_path / "t.csv")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("loop.mp4", "loop"):
        os.symlink(tmp_path / name, tmp_path / name)
    (tmp_path / "t.jsonl").write_text('{"file": "loop/a.mp4", "caption": "x"}')
    clips, rejected = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["a.mp4"]
    reasons = {item.where: item.reason for item in rejected}
    assert reasons.keys() == {"t.csv", "pipe.mp4", "loop.mp4", "t.jsonl line 1"}
    assert "is a pipe or a device" in reasons["t.csv"] and "there is no file" in reasons["pipe.mp4"]
    assert "may lead to itself" in reasons["loop.mp4"] and "may lead to itself" in reasons["t.jsonl line 1"]


def test_clips_without_caption_take_the_default_or_are_named(tmp_path):
    touch(tmp_path, "sea/a.mp4", ".hidden/b.mp4", "svi_cache/c.mp4")
    clips, rejected = find_clips(tmp_path, skipped_folder=tmp_path / "svi_cache")
    assert not clips and [item.where for item in rejected] == ["sea/a.mp4"]
    settings = {"default_caption": "A video from the {category} category", "skipped_folder": tmp_path / "svi_cache"}
    assert captions(tmp_path, **settings) == {"sea/a.mp4": "A video from the sea category"}


def test_accents_match_in_either_unicode_form(tmp_path):
    touch(tmp_path, unicodedata.normalize("NFD", "été.mp4"))
    (tmp_path / "t.jsonl").write_text(json.dumps({"file": unicodedata.normalize("NFC", "été.mp4"), "text": "Summer"}))
    assert list(captions(tmp_path).values()) == ["Summer"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="data.folder.*gone"):
        find_clips(tmp_path / "gone")


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no real clips at {SHARED_DATA}")
def test_the_real_clips_have_their_captions():
    found = captions(SHARED_DATA)
    assert len(found) == 4
    assert found["sea/mixkit-a-boat-sailing-in-the-bay-1941.mp4"].startswith("Aerial view of a boat")
