"""JSON of others: values come back as they are; what would fail later or be misread is refused in one sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svi_core.files.strict_json import parse_json, read_json
from tests.work import grows_in_proportion

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_comes_back_as_it_is(value):
    text = json.dumps(value)
    assert parse_json(text, "x") == parse_json(text.encode(), "x") == parse_json(b"\xef\xbb\xbf" + text.encode(), "x") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"it is not JSON \(Expecting value at line 1, column 1\): correct it there"),
        ('{\n"a" 1}', r"it is not JSON \(Expecting ':' delimiter at line 2, column 5\)"),
        (b'"\xff"', r"it is not JSON \(not UTF-8: byte 0xff at 1\): save it as UTF-8"),
        ("[" * 66 + "]" * 66, "it is nested more than 64 levels deep: write it flatter"),
        ("[" * 100_000, "it is nested more than 64 levels deep"),
        ('{"a":' * 100_000, "it is nested more than 64 levels deep"),
        ("-" + "9" * 5000, r"it has a number of 5000 digits \(-99999999999\.\.\.\): write at most 20"),
        ("9" * 21, "it has a number of 21 digits"),
        ("1e400", "it has the number 1e400, which is too large"),
        ('{"a": -Infinity}', "it has the value -Infinity, which is not JSON"),
        ('{"a": {"b": 1, "b": 1}}', "it has the key 'b' twice in one object: keep one"),
        (r'{"a": ["ok", "no\udfff"]}', r"it holds the text 'no\\udfff', line 1, column 3: '\\udfff' is half a character"),
        (r'{"\ud800": 1}', r"it holds the text '\\ud800', line 1, column 1: "),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_sound_json_is_refused_in_one_sentence(text, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        parse_json(text, "it")
    assert len(str(caught.value)) < 250 and not str(caught.value).endswith(".")


def test_64_levels_are_read():
    assert json.dumps(parse_json("[" * 65 + "]" * 65, "it")) == "[" * 65 + "]" * 65


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "[" + "[]," * n + "0]",
        lambda n: '{"a":"' + "\\n" * n + '"}',
        lambda n: "[1" + ",1" * n + "]",
        lambda n: json.dumps({str(number): "a" for number in range(n)}),
    ],
    ids=["lists", "text", "numbers", "keys"],
)
def test_work_grows_with_the_size_alone(make):
    assert grows_in_proportion(lambda text: parse_json(text, "it"), make)


def test_a_file_is_named_by_its_path(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_text("{")
    with pytest.raises(ValueError, match=f"^{path} is not JSON"):
        read_json(path)
