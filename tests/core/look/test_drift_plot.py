"""The drift report as a picture: shared scales, limits, and a verdict that one sees first."""

import numpy as np
import pytest

from svi_core.look.drift import BLUR, COLOUR_LIMIT, SEAM_JUMP, ClipMeasure, DriftReport, measure_drift
from svi_core.look.drift_plot import draw_drift, drift_panels
from svi_core.look.plots import BAD, GOOD, LIMIT, PANEL
from tests.core.look.test_drift import CLIPS, LENGTH, faded, scene


def report_of(seams=(1.0, 1.1), distance=(0.0, 0.02, 0.03), notes=(), reasons=(), frozen=0.0):
    clips = [ClipMeasure(0.4, 0.2, 0.3, -3.0, 0.01, -0.01, (1.0,) * 4, 0.004, frozen, seam) for seam in (None, *seams)]
    return DriftReport(tuple(clips), distance, "INVALID (static)" if reasons else "valid", notes, reasons)


def pixels(picture, colour):
    return int((picture == np.array(colour)).all(-1).sum())


def test_measures_that_are_alike_share_a_scale():
    panels = {panel.title.split(" (")[0]: panel for panel in drift_panels(report_of())}
    assert {panels[name].span for name in ("brightness", "contrast", "saturation", "equal frames")} == {(0.0, 1.0)}
    assert all("(" in panel.title for panel in drift_panels(report_of())), "each title names its unit"
    assert (panels["colour distance from clip 1"].high, panels["sharpness against clip 1"].low) == (COLOUR_LIMIT, BLUR)


def test_a_scale_grows_to_hold_what_lies_outside():
    (seam,) = (panel for panel in drift_panels(report_of(seams=(1.0, 9.0))) if panel.high == SEAM_JUMP)
    assert seam.span == (0.0, 9.0) and seam.is_bad(9.0) and not seam.is_bad(1.0)


@pytest.mark.parametrize(
    ("report", "colour", "other"),
    [
        (report_of(), GOOD, BAD),
        (report_of(seams=(1.0, 9.0), notes=("clip 3 begins with a jump",)), BAD, GOOD),
        (report_of(reasons=("static",)), BAD, GOOD),
    ],
)
def test_the_verdict_is_seen_first_and_limits_are_drawn(report, colour, other):
    picture = draw_drift(report)
    head = picture.shape[0] - 4 * PANEL[1]
    assert pixels(picture[:head], colour) > 50 and pixels(picture[:head], other) == 0
    assert pixels(picture[head:], LIMIT) > 200


def test_a_note_and_its_dot_go_by_one_limit():
    found = measure_drift(iter(faded(scene(), 0.35)), (LENGTH,) * CLIPS)
    assert any("away from the first clip's" in note for note in found.notes)
    (panel,) = (panel for panel in drift_panels(found) if panel.high == COLOUR_LIMIT)
    assert any(panel.is_bad(value) for value in panel.values)


def test_a_clip_of_one_frame_leaves_a_gap():
    found = measure_drift(iter(scene(41)), (20, 20, 1))
    panels = {panel.title.split(" (")[0]: panel for panel in drift_panels(found)}
    assert panels["motion"].values[-1] is None and panels["equal frames"].values[-1] is None
    assert draw_drift(found).shape[1] == 2 * PANEL[0]


def test_many_notes_and_clips_stay_legible():
    found = report_of(seams=(9.0,) * 999, distance=(0.0,) * 1000, notes=tuple(f"clip {i} jumps" for i in range(2, 1001)))
    assert draw_drift(found).shape[0] < 4 * PANEL[1] + 220
