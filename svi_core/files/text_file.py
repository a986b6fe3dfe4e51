"""Read text that people wrote: from an ordinary file of bounded size, in UTF-8 or with a mark that names its encoding."""

import codecs
import os
import re
import stat
from pathlib import Path

MAX_TEXT_BYTES = 16 << 20  # 10 000 prompts of 1 600 bytes
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKS = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32-LE",
    codecs.BOM_UTF32_BE: "UTF-32-BE",
    codecs.BOM_UTF16_LE: "UTF-16-LE",
    codecs.BOM_UTF16_BE: "UTF-16-BE",
    codecs.BOM_UTF8: "UTF-8",
}


def read_text(path: Path, name: str = "", max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return the text of the file `path`, called `name` in messages, or by its path.

    Raises:
        ValueError: see :func:`read_bytes` and :func:`decode_text`.
    """
    return decode_text(read_bytes(path, name, max_bytes), name or str(path))


def read_bytes(path: Path, name: str = "", max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the bytes of the file `path`, called `name` in messages, or by its path. Never waits for a pipe or a device.

    Raises:
        ValueError: the file cannot be read, is no ordinary file, or is larger than `max_bytes`; the message begins with the
            name and has no period.
    """
    name = name or str(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{name} is a pipe or a device: save the text as an ordinary file")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise ValueError(f"{name} is larger than {_shown_size(max_bytes)}, so it is no text of this kind: use a shorter one")
    return data


def decode_text(data: bytes, name: str) -> str:
    """Return UTF-8 text, or UTF-16 and UTF-32 that begin with a byte order mark, as Windows writes them.

    Raises:
        ValueError: another encoding; the message begins with `name` and has no period.
    """
    mark, encoding = _encoding(data)
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {len(mark) + error.start}"
        raise ValueError(f"{name} is not {encoding[:6]} text ({byte}): save it as UTF-8") from error


def encode_text(text: str, like: bytes) -> bytes:
    """Return `text` in the encoding of a file that holds `like`, with the same byte order mark."""
    mark, encoding = _encoding(like)
    return mark + text.encode(encoding)


def _encoding(data: bytes) -> tuple[bytes, str]:
    return next(((mark, encoding) for mark, encoding in _MARKS.items() if data.startswith(mark)), (b"", "UTF-8"))


def require_unicode(text: str, name: str) -> None:
    """Refuse a text, called `name` in messages, that no file can hold.

    Raises:
        ValueError: it holds half a surrogate pair; the message gives line and column.
    """
    if found := _LONE_SURROGATE.search(text):
        start = found.start()
        line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
        raise ValueError(
            f"{name}, line {line}, column {column}: {found[0]!r} is half a character (a lone surrogate), which cannot be "
            "saved: delete it."
        )


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has neither the flag nor pipes in folders


def _shown_size(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB" if num_bytes >= 1 << 20 else f"{num_bytes >> 10} KiB"
