"""The drift report as a picture: its verdict, its notes, and a chart per measure with the limits that the notes go by."""

import numpy as np

from .drift import BLUR, COLOUR_LIMIT, FROZEN_SHARE, SEAM_JUMP, STATIC_MOTION, DriftReport
from .plots import Panel, draw_report

_SHARE = (0.0, 1.0)  # one scale for all that is a share of white, or of frames


def draw_drift(report: DriftReport) -> np.ndarray:
    """Return the picture [H, W, 3] uint8 of `report`."""
    verdict = report.verdict
    if not report.reasons:
        verdict = "valid, nothing to note" if not report.notes else "valid, but worth a look"
    return draw_report(verdict, not (report.reasons or report.notes), report.notes, drift_panels(report))


def drift_panels(report: DriftReport) -> list[Panel]:
    """Return one chart per measure; sharpness is shown as the change from the first clip."""
    clips, first = report.clips, report.clips[0]
    motion = [None if clip.motion is None else clip.motion * 255 for clip in clips]
    return [
        Panel("brightness (0 to 1)", [clip.brightness for clip in clips], _SHARE),
        Panel("contrast (0 to 1)", [clip.contrast for clip in clips], _SHARE),
        Panel("saturation (0 to 1)", [clip.saturation for clip in clips], _SHARE),
        Panel("colour distance from clip 1 (0 to 1)", report.colour_distance, (0.0, 0.2), high=COLOUR_LIMIT),
        Panel("sharpness against clip 1 (log10)", [clip.sharpness - first.sharpness for clip in clips], (-1.0, 0.5), low=BLUR),
        Panel("motion (of 255, a frame)", motion, (0.0, 3.0), low=STATIC_MOTION * 255),
        Panel("equal frames (share)", [clip.frozen for clip in clips], _SHARE, high=FROZEN_SHARE),
        Panel("seam (times the motion around it)", [clip.seam for clip in clips], (0.0, 4.0), high=SEAM_JUMP),
    ]
