"""Badges of a clip agree with the drift report of the same frames."""

import numpy as np
import pytest

from svi_core.look.clip_look import badges, look_of, seam_jump
from svi_core.look.drift import measure_drift


def frames(level, count=12, seed=0, step=2.0):
    """Noise that moves a little from frame to frame."""
    generator = np.random.default_rng(seed)
    base = generator.uniform(-20, 20, (48, 64, 3))
    return [np.clip(level + np.roll(base, round(step * number), axis=1), 0, 255).astype(np.uint8) for number in range(count)]


def test_the_measures_are_those_of_the_drift_report():
    first, second = frames(90), frames(150, seed=1)
    report = measure_drift([*first, *second], [12, 12])
    one, two = look_of(first), look_of(second)
    assert seam_jump(one, two) == pytest.approx(report.clips[1].seam, rel=1e-5)
    assert np.linalg.norm(two.colour - one.colour) == pytest.approx(report.colour_distance[1], rel=1e-5)
    assert two.frozen == report.clips[1].frozen == 0.0


def test_only_what_is_worth_a_look_has_a_badge():
    first = look_of(frames(90))
    assert list(badges(look_of(frames(92, seed=0)), first)) == []
    darker = list(badges(look_of(frames(40)), first, first))
    assert [(badge.kind, badge.severe) for badge in darker] == [("colour", True), ("seam", True)]
    assert darker[0].text == "colour 0.20" and darker[0].title.endswith("above all it is darker.")
    tinted = frames(90) + np.array([40, 0, 0], np.uint8)
    assert [badge.title.split()[-1] for badge in badges(look_of(tinted), first)] in (["redder."], ["saturated."])
    (still,) = badges(look_of(frames(90, step=0)))
    assert (still.kind, still.text, still.severe) == ("still", "stands still", True)


def test_a_clip_of_one_frame_does_not_stand_still_and_large_frames_are_thinned_out():
    assert list(badges(look_of(frames(90, count=1)))) == []
    large = [frame.repeat(12, axis=0).repeat(12, axis=1) for frame in frames(90, count=3)]
    assert look_of(large).colour == pytest.approx(look_of(frames(90, count=3)).colour, abs=0.01)
    with pytest.raises(ValueError, match="no frame"):
        look_of([])
