import numpy as np
import pytest

from demo.make_clips import main, make_clips
from demo.world.scenes import render_clip, sample_story
from svi_core.video.frame_times import count_frames
from svi_core.video.video_file import read_frames


def test_clips_show_what_their_captions_say(tmp_path):
    make_clips(tmp_path, 2, seed=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"clip_000{i}.{kind}" for i in (0, 1) for kind in ("mp4", "txt")
    ]
    story = [s for s in (sample_story(seed, 1) for seed in range(7, 20)) if s.actions[0].motion != "stay"][1]
    assert (tmp_path / "clip_0001.txt").read_text(encoding="utf-8").strip() == story.captions[0]
    assert count_frames(tmp_path / "clip_0001.mp4") == 81
    first = next(read_frames(tmp_path / "clip_0001.mp4")) / 255
    assert np.abs(first - render_clip(story, 0)[0].movedim(0, -1).numpy()).mean() < 0.02


@pytest.mark.parametrize("words", [["--clips", "0"], ["--seed", "-1"]])
def test_senseless_numbers_are_refused(tmp_path, words, capsys):
    assert main([str(tmp_path / "new"), *words]) == 2 and "give at least one clip" in "".join(capsys.readouterr())
    assert not (tmp_path / "new").exists()
