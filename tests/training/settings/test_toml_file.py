"""A Windows path in double quotes is refused with the line to write instead; nothing is read as another path."""

import tomllib

import pytest

from training.settings import toml_file
from training.settings.reader import load_config
from training.settings.toml_file import parse_value, read_toml

HEAD = '# a "C:\\new" path in a comment\npreset = "film"\n\n[data]\n'


def written(tmp_path, line):
    path = tmp_path / "my.toml"
    path.write_bytes((HEAD + line + "\n").encode())
    return path


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        (r'folder = "C:\Users\me\clips"', r"folder = 'C:\Users\me\clips'"),
        (r'folder = "C:\new\table"', r"folder = 'C:\new\table'"),
        (r'folder = "C:\temp"  # here', r"folder = 'C:\temp'  # here"),
        (r'folder = "clips\new"', r"folder = 'clips\new'"),
        (r'folder = "\\server\share"', r"folder = '\\server\share'"),
        (r'folder = "C:\"', r"folder = 'C:\'"),
        (r'folder = "C:\Bob' + "'s" + r' clips"', 'folder = "C:/Bob' + "'s" + ' clips"'),
        (r'folder = "C:\\mine\clips"', r"folder = 'C:\mine\clips'"),
        (r'exclude = ["a.mp4", "b\c.mp4"]', r"""exclude = ["a.mp4", 'b\c.mp4']"""),
    ],
)
@pytest.mark.parametrize("end", ["", "\r"])
def test_the_message_shows_the_line_to_write(tmp_path, line, fix, end):
    path = written(tmp_path, line + end)
    with pytest.raises(ValueError, match="line 5") as error:
        read_toml(path)
    assert str(error.value).endswith(f"In double quotes a backslash begins an escape: write {fix}")
    assert str(path) in str(error.value)
    assert "\\" not in fix or tomllib.loads(fix)
    with pytest.raises(ValueError, match="begins an escape"):
        load_config(path)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (r"folder = 'C:\Users\new'", r"C:\Users\new"),
        (r'folder = "C:\\Users\\new"', r"C:\Users\new"),
        (r'folder = "C:/Users/new"', "C:/Users/new"),
        (r'default_caption = "one\ntwo"', "one\ntwo"),
        (r'prompts = ["A cat.\nIt runs."]', ["A cat.\nIt runs."]),
        (r'negative = "blurry\nstill"', "blurry\nstill"),
    ],
)
def test_paths_that_are_right_are_read(tmp_path, line, value):
    table = read_toml(written(tmp_path, line))
    assert list(table["data"].values()) == [value]


def test_other_mistakes_have_no_fix_of_this_kind(tmp_path):
    with pytest.raises(ValueError, match=r"my.toml is not TOML: .*line 5") as error:
        read_toml(written(tmp_path, "a = = 3"))
    assert "double quotes" not in str(error.value)
    path = tmp_path / "my.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ValueError, match="is not TOML"):
        read_toml(path)


def test_values_on_the_command_line():
    for text, value in ((r"C:\temp\new", r"C:\temp\new"), ("3", 3), ("big", "big"), ("'C:\\new'", "C:\\new")):
        assert parse_value(text, "folder") == value
    for text in (r'"C:\Users"', r'"C:\new"', r'["C:\new"]'):
        with pytest.raises(ValueError, match=r"begins an escape: write \[?'C:"):
            parse_value(text, "exclude")


def test_texts_of_several_lines_on_the_command_line():
    config = load_config(
        [], [r'data.default_caption="a\nb"', r'samples.prompts=["A cat.\nIt runs."]', r'samples.negative="c\td"']
    )
    assert (config.data.default_caption, config.samples.prompts) == ("a\nb", ("A cat.\nIt runs.",))
    assert config.samples.negative == "c\td"
    with pytest.raises(ValueError, match=r"data.folder: 'C:\\new' holds control characters.* write 'C:"):
        load_config([], [r'data.folder="C:\new"'])


def test_each_line_is_searched_once(tmp_path, monkeypatch):
    """A file of 2000 texts of several lines took 13 seconds: each text was looked for in all lines."""
    path, searched, real = tmp_path / "my.toml", [], toml_file._strings_of
    monkeypatch.setattr(toml_file, "_strings_of", lambda line: searched.append(line) or real(line))
    path.write_text("".join(f'key{number} = """text {number}\n"""\n' for number in range(50)))
    assert len(read_toml(path)) == 50 and len(searched) <= 101
