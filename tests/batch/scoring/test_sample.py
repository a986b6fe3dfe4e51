"""Where clips begin: as the user says, as the manifest says, or by the graph and the number of clips; never guessed."""

import json
from itertools import accumulate

import pytest

from batch.scoring import sample as sample_module
from batch.scoring.sample import clip_lengths
from tests.batch.scored_videos import moving, save


def graph(text: str = "a cat", num_frames: object = 13) -> dict:
    return {
        "1": {"class_type": "SVILayout", "inputs": {"num_frames": num_frames}},
        "2": {"class_type": "SVIPromptStream", "inputs": {"text": text}},
    }


@pytest.fixture
def video(tmp_path):
    return save(tmp_path / "cat.mp4", moving(0, 31))  # 13 + 9 + 9


def test_the_graph_and_the_number_of_clips_tell(video):
    assert clip_lengths(video, 0, 3, graph()) == (13, 9, 9)
    assert clip_lengths(video, 0, 1, {}) == (31,)


def test_the_user_has_the_last_word(video):
    assert clip_lengths(video, 10, 3, graph(num_frames=14)) == (11, 10, 10)
    assert clip_lengths(video, 12, 3, graph()) == (19, 12)  # three do not fit
    assert clip_lengths(video, 5, 3, graph()) == (21, 5, 5)  # the number of clips is known
    assert clip_lengths(video, 40, 0, {}) == (31,)


@pytest.mark.parametrize(
    "added, total, seams", [(80, 241, (81, 161)), (76, 233, (81, 157)), (80, 161, (81,)), (80, 160, (80,)), (80, 81, ())]
)
def test_the_first_clip_is_the_longer_one(tmp_path, monkeypatch, added, total, seams):
    monkeypatch.setattr(sample_module, "count_frames", lambda path: total)
    found = clip_lengths(tmp_path / "cat.mp4", added, 0, {})
    assert tuple(accumulate(found)) == (*seams, total)


def test_a_manifest_tells_before_the_graph(video):
    clips = [{"key": "a" * 64, "prompt": "", "seed": 0, "num_frames": frames} for frames in (21, 10)]
    manifest = {"video": "cat.mp4", "clips": clips}
    video.with_suffix(".json").write_text(json.dumps(manifest))
    assert clip_lengths(video, 0, 3, graph()) == (21, 10)


@pytest.mark.parametrize(
    "num_clips, known",
    [
        (0, graph()),
        (3, graph(num_frames=14)),  # 17 frames are left for two clips
        (3, graph("[frames 21] a cat\n\na dog")),
        (3, graph("a cat\n\n[cut] a dog")),
        (3, graph("a cat\n\n[hold 4] a dog")),
        (3, graph() | {"3": graph()["1"]}),
        (3, graph(num_frames=["4", 0])),
        (2, graph(num_frames=5)),  # the second would be longer than a clip
    ],
)
def test_what_does_not_tell_is_not_guessed(video, num_clips, known):
    with pytest.raises(ValueError, match="give --clip-length, the frames that each clip adds"):
        clip_lengths(video, 0, num_clips, known)
