"""Texts that people do not write on purpose: odd characters, long numbers, half characters, other encodings."""

from hypothesis import strategies as st

ODD_CHARACTERS = (
    "\0", "\x07", "\x1f", "\x7f", "\x85", "\xa0", "\u00ad", "\u200b", "\u2028", "\u2029", "\u3000", "\ufeff", "\ufffd",
    "\ud83d", "\udc9b", "\U0001f431", "e\u0301", "\u202e", "［", "］", "，", "\r", "\r\n", "\t", '"', "'", "\\", "%", "\u0661",
)  # fmt: skip
NUMBERS = st.sampled_from(
    (
        "0",
        "-1",
        "1e999",
        "NaN",
        "-Infinity",
        "0x10",
        "1_000",
        "٣",
        "9" * 21,
        "7" * 400,
        "8" * 5000,
        "1.5",
        "-0.0",
        "+3",
        "1e-400",
    )
)
WORDS = st.text(st.sampled_from("abcdefgh ijklm.,!?'-"), min_size=1, max_size=30)


def odd_texts(*parts: str, max_size: int = 12) -> st.SearchStrategy[str]:
    """Return texts put together from `parts`, words, odd characters and numbers."""
    piece = st.one_of(st.sampled_from(parts or ("",)), WORDS, st.sampled_from(ODD_CHARACTERS), NUMBERS)
    return st.lists(piece, max_size=max_size).map("".join)


def encoded(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Return `texts` as bytes of one of the encodings that files have."""
    encodings = st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp932", "gb18030"))
    return st.builds(lambda text, encoding: text.encode(encoding, "replace"), texts, encodings)
