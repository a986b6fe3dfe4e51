import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from svi_core.files.sealed_json import unsealed
from svi_core.store import finished_clips
from svi_core.store.finished_clips import LIST_NAME, FinishedClip, note_finished, read_finished

KEY = "0123456789abcdef" * 4
CLIP = FinishedClip(0, KEY, 'a "cat" ü\n<b>', 2**53 - 1, 81, 12.5, False, f"{KEY}-0-81-0-h264-crf18-yuv420p.mp4")


def test_clips_are_added_in_order_and_a_new_run_begins_anew(tmp_path):
    assert read_finished(tmp_path) == []
    clips = [replace(CLIP, index=index, reused=index == 0) for index in range(3)]
    for clip in clips:
        note_finished(tmp_path, clip)
    assert read_finished(tmp_path) == clips
    note_finished(tmp_path, clips[0])
    assert read_finished(tmp_path) == clips[:1]


def test_a_line_that_a_killed_process_left_half_written_is_left_out(tmp_path):
    for index in range(3):
        note_finished(tmp_path, replace(CLIP, index=index))
    path = tmp_path / LIST_NAME
    path.write_bytes(path.read_bytes()[:-20])
    assert [clip.index for clip in read_finished(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "../../x"},
        {"segment": "../../secret.mp4"},
        {"segment": f"{KEY}-../../../secret.mp4"},
        {"segment": f"{'f' * 64}-0-81.mp4"},
        {"segment": f"{KEY}-0-81.safetensors"},
        {"index": "0"},
        {"index": True},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"prompt": None},
        {"more": 1},
    ],
    ids=str,
)
def test_what_this_program_did_not_write_is_left_out(tmp_path, changed):
    lines = [json.dumps(vars(CLIP) | changed), "null", "[]", "7", '"x"', "{", "[" * 100_000, "\x00"]
    (tmp_path / LIST_NAME).write_text("\n".join(lines))
    assert read_finished(tmp_path) == []
    with (tmp_path / LIST_NAME).open("a") as file:
        file.write("\n" + json.dumps(vars(CLIP)) + "\n")
    assert read_finished(tmp_path) == [CLIP]


def test_bytes_that_are_no_text_are_left_out(tmp_path):
    (tmp_path / LIST_NAME).write_bytes(b"\xff\xfe\x00{}\n" + json.dumps(vars(CLIP)).encode())
    assert read_finished(tmp_path) == [CLIP]


def test_a_full_disk_names_the_list(tmp_path, monkeypatch):
    note_finished(tmp_path, CLIP)

    def fail(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match="free space or check permissions") as caught:
        note_finished(tmp_path, replace(CLIP, index=1))
    assert caught.value.filename == str(tmp_path / LIST_NAME)


def test_a_changed_prompt_is_not_shown_but_named(tmp_path, caplog):
    for index in range(3):
        note_finished(tmp_path, replace(CLIP, index=index, prompt="a cat"))
    path = tmp_path / LIST_NAME
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"a cat", b"a bat")
    path.write_bytes(b"\n".join(lines))
    assert [clip.index for clip in read_finished(tmp_path)] == [0, 2]
    assert f"{path}: line 2 cannot be trusted" in caplog.text


def test_a_list_of_which_nothing_but_the_end_is_new_is_not_parsed_again(tmp_path, caplog, monkeypatch):
    parsed = []

    def counted(line):
        parsed.append(line)
        return unsealed(line)

    monkeypatch.setattr(finished_clips, "unsealed", counted)
    for index in range(20):
        note_finished(tmp_path, replace(CLIP, index=index, prompt=tmp_path.name))
    path = tmp_path / LIST_NAME
    path.write_bytes(path.read_bytes().replace(b'"index": 7', b'"index": 8', 1))
    for number in range(20, 30):
        assert [clip.index for clip in read_finished(tmp_path)] == [index for index in range(number) if index != 7]
        assert len(read_finished(tmp_path)) == number - 1
        note_finished(tmp_path, replace(CLIP, index=number, prompt=tmp_path.name))
    assert len([line for line in parsed if line]) == 29
    assert len([message for message in caplog.messages if "line 8 cannot be trusted" in message]) == 1
