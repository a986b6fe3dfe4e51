"""Text of people's files: its encoding, its size, and files that are none."""

import os

import pytest

from svi_core.files.text_file import MAX_TEXT_BYTES, decode_text, encode_text, read_bytes, read_text, require_unicode

TEXT = "über\nein Kätzchen 🐈"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf_8_and_what_names_itself_by_a_mark_are_read(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.txt") == TEXT


def test_big_endian_marks_are_known():
    assert decode_text(b"\xfe\xff\x00a", "a.txt") == decode_text(b"\x00\x00\xfe\xff\x00\x00\x00a", "a.txt") == "a"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("café".encode("latin-1"), r"a.txt is not UTF-8 text \(byte 0xe9 at 3\): save it as UTF-8$"),
        ("café".encode("utf-16-le"), r"a.txt is not UTF-8 text \(byte 0xe9 at 6\)"),  # without a mark
        (b"\xff\xfea", r"a.txt is not UTF-16 text \(byte 0x61 at 2\)"),
        (b"\xff\xfe\x00\xd8", r"a.txt is not UTF-16 text \(byte 0x00 at 2\)"),  # half a pair
    ],
)
def test_other_encodings_are_refused_with_the_byte_and_the_fix(data, message):
    with pytest.raises(ValueError, match=message):
        decode_text(data, "a.txt")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files in a folder")
def test_a_pipe_is_refused_at_once_even_where_nobody_writes_to_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match="pipe.txt is a pipe or a device: save the text as an ordinary file"):
        read_text(tmp_path / "pipe.txt")


def test_what_cannot_be_opened_is_named_with_the_reason(tmp_path):
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    for path in (tmp_path, tmp_path / "gone.txt", tmp_path / ("a" * 300), tmp_path / "loop.txt"):
        with pytest.raises(ValueError, match=r"^the file cannot be read \(.+\)$"):
            read_text(path, "the file")


def test_size_is_bounded(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(60 << 20)
    with pytest.raises(ValueError, match="a.txt is larger than 16 MiB"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="table is larger than 2 KiB"):
        read_bytes(tmp_path / "a.txt", "table", 2048)
    os.truncate(tmp_path / "a.txt", MAX_TEXT_BYTES)
    assert len(read_bytes(tmp_path / "a.txt")) == MAX_TEXT_BYTES


def test_half_a_surrogate_pair_is_refused_with_line_and_column():
    require_unicode(TEXT, "text")
    with pytest.raises(ValueError, match=r"^text, line 2, column 3: '\\udc9b' is half a character .*: delete it\.$"):
        require_unicode("a cat\nab\udc9b", "text")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_written_in_the_encoding_of_its_file(encoding):
    assert encode_text("ä\r\n", "b".encode(encoding)) == "ä\r\n".encode(encoding)
    assert encode_text("a", b"\xfe\xff\x00b") == b"\xfe\xff\x00a"
