"""Tables and captions of a dataset: every clip and line is either used or rejected by name, and nothing else is read."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.damage import DAMAGES, REPLACEMENTS, replace_file
from tests.fuzz.odd_texts import encoded, odd_texts
from training.data.ignored import find_ignored
from training.data.sources import find_clips

LONG = "l" * 251 + ".mp4"  # the longest name that a file may have
CLIPS = ("a.mp4", "b.mp4", "sub/c.mp4", LONG)
NAMES = (
    "a.mp4",
    "b.mp4",
    "sub/c.mp4",
    "loop.mp4",
    "pipe.mp4",
    "loop/a.mp4",
    "gone.mp4",
    "../secret.mp4",
    "/etc/passwd",
    "a" * 300,
    LONG,
)
CSV = odd_texts(
    "file,caption\n", "Filename;text\n", "a.mp4,A cat\n", *(f"{name}," for name in NAMES), "\n", '"', ",", max_size=15
)
JSONL = odd_texts(
    '{"file": "a.mp4", "caption": "A cat"}\n', '{"file": "', '", "caption": "', '"}\n', *NAMES, "\n", "[" * 3000, '"\\ud800"',
    '{"file": "b.mp4", "text": "x", "n": ' + "9" * 5000 + "}\n", max_size=12,
)  # fmt: skip
TABLES = ('[{"file": "a.mp4", "caption": "A cat"}]', '{"b.mp4": {"text": "A dog"}, "c": 1}', '{"version": 3}', "[]")
TSV = CSV.map(lambda text: "file\tcaption\n" + text.replace(",", "\t"))
JSON = odd_texts(
    '[{"file": "a.mp4", "caption": "A cat"}, ', '{"b.mp4": "A dog", ', '{"file": "', '", "caption": "', '"}', *NAMES, "]", "}",
    '{"n": ' + "9" * 5000 + "}", "[" * 3000, '"\\ud800"', max_size=8,
) | st.sampled_from(TABLES)  # fmt: skip
CAPTIONS = st.sampled_from(('{"caption": "A cat"}', '{"text": 7}', '{"prompt": ""}', "[]")) | JSON
FILES = st.fixed_dictionaries(
    {},
    optional={
        "t.csv": encoded(CSV.map(lambda text: "file,caption\n" + text)) | encoded(CSV) | st.sampled_from(REPLACEMENTS),
        "sub/t.jsonl": encoded(JSONL) | st.sampled_from(REPLACEMENTS),
        "sub/t.tsv": encoded(TSV) | st.sampled_from(REPLACEMENTS),
        "t.json": encoded(JSON) | st.sampled_from(REPLACEMENTS),
        "a.json": encoded(CAPTIONS) | st.sampled_from(REPLACEMENTS),
        "sub/c.json": encoded(CAPTIONS),
        "a.txt": encoded(odd_texts("A cat")) | st.sampled_from(REPLACEMENTS),
        "b.txt": st.builds(lambda damage: damage.done_to("ein Kätzchen".encode()), DAMAGES),
        "sub/c.txt": st.just(b"The sea"),
    },
)


@pytest.fixture
def folder(tmp_path):
    def made(files: dict[str, bytes | str]):
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        (data / "sub").mkdir(parents=True)
        (tmp_path / "secret.mp4").touch()
        for name in CLIPS:
            (data / name).touch()
        for name in ("loop.mp4", "loop"):
            os.symlink(data / name, data / name)
        os.mkfifo(data / "pipe.mp4")
        for name, content in files.items():
            (data / name).touch()
            if isinstance(content, bytes):
                (data / name).write_bytes(content)
            else:
                replace_file(data / name, content)
        return data

    return made


@pytest.mark.skipif(os.name == "nt", reason="makes pipes")
def test_tables(campaign, folder):
    def check(files: dict) -> str:
        data = folder(files)
        clips, rejected = find_clips(data)
        assert {clip.name for clip in clips} <= set(CLIPS)
        for clip in clips:
            assert clip.caption and clip.caption == " ".join(clip.caption.split())
            clip.caption.encode()
        named = {clip.name for clip in clips} | {item.where for item in rejected}
        said = " ".join(f"{item.where} {item.reason}" for item in rejected)
        for name in (*CLIPS, "loop.mp4", "pipe.mp4"):
            assert name in named or Path(name).name in said, f"nothing is said of {name}"
        ignored = list(find_ignored(data, data / "cache"))
        assert {item.where for item in ignored} <= {"t.json"}
        if isinstance(files.get("t.json"), bytes) and not ignored:
            assert isinstance(json.loads(files["t.json"]), list | dict)
        for item in (*rejected, *ignored):
            assert " " in item.reason and len(item.reason) < 700 and "codec" not in item.reason, item
        return f"{len(clips)} used"

    assert campaign.run("tables", FILES, check, {"1 used", "2 used", "0 used"}, limit=20)
