"""Numbers that others published, to set beside ours. They were measured on other images, prompts and machines.

Source: SVI (arXiv:2510.09212), Tables 1 to 3.
"""

from __future__ import annotations

from batch.scoring.vbench_dimensions import DIMENSIONS

VBENCH = tuple(DIMENSIONS)
TALK = ("Sync-C", "Sync-D", "FVD")
DANCE = ("PSNR", "SSIM", "FVD")
LESS_IS_BETTER = ("Sync-D", "FVD")

Rows = dict[str, tuple[float, ...]]  # method -> its values, in the order of the metrics; VBench in percent

_CONSISTENT: Rows = {
    "Wan 2.1": (87.03, 92.45, 56.40, 65.70, 12.68, 98.51),
    "StreamingT2V": (84.79, 89.27, 56.81, 66.41, 57.04, 99.00),
    "HistoryGuidance": (83.77, 90.90, 40.42, 55.48, 4.93, 99.38),
    "FramePack": (93.08, 94.72, 63.57, 66.72, 7.75, 99.57),
    "SVI-Shot": (98.13, 98.19, 63.84, 71.88, 17.61, 98.93),
}
_CONSISTENT_LONG: Rows = {
    "Wan 2.1": (80.00, 87.27, 56.19, 65.37, 14.29, 98.74),
    "StreamingT2V": (66.32, 77.62, 40.49, 55.18, 85.71, 95.60),
    "HistoryGuidance": (64.84, 80.51, 29.84, 50.41, 7.14, 99.42),
    "FramePack": (79.37, 86.64, 55.66, 57.61, 0.00, 99.63),
    "SVI-Shot": (97.50, 97.89, 65.75, 71.54, 21.43, 98.81),
}
_CREATIVE: Rows = {
    "Wan 2.1": (81.44, 89.81, 51.33, 53.09, 61.97, 98.57),
    "SVI-Film": (84.27, 90.68, 57.02, 62.44, 57.04, 99.12),
    "StreamingT2V, one scene": (81.01, 88.47, 52.20, 58.05, 61.97, 98.96),
    "HistoryGuidance, one scene": (84.12, 91.21, 38.40, 52.31, 7.75, 99.39),
    "FramePack, one scene": (85.62, 91.22, 59.41, 59.44, 9.15, 99.49),
    "SVI-Shot, one scene": (93.52, 95.86, 58.07, 62.81, 55.63, 98.42),
}
_CREATIVE_LONG: Rows = {
    "Wan 2.1": (67.85, 83.45, 46.68, 43.36, 57.14, 98.56),
    "SVI-Film": (70.90, 84.30, 55.09, 57.73, 64.29, 98.89),
    "StreamingT2V, one scene": (68.65, 82.00, 44.69, 55.20, 78.57, 96.95),
    "HistoryGuidance, one scene": (62.58, 81.97, 28.66, 47.68, 7.14, 99.36),
    "FramePack, one scene": (70.95, 83.46, 52.39, 53.72, 0.00, 99.48),
    "SVI-Shot, one scene": (91.96, 95.04, 63.31, 65.25, 64.29, 97.97),
}
_TALK: Rows = {"Wan 2.1": (0.21, 12.86, 934), "MultiTalk": (1.26, 9.57, 520), "SVI-Talk": (6.12, 8.74, 390)}
_DANCE: Rows = {"Wan 2.1": (12.12, 0.33, 4099), "UniAnimate-DiT": (18.97, 0.69, 337), "SVI-Dance": (20.01, 0.71, 299)}

PUBLISHED: dict[str, tuple[str, tuple[str, ...], Rows]] = {
    "consistent-50s": ("Table 1", VBENCH, _CONSISTENT),
    "consistent-250s": ("Table 1", VBENCH, _CONSISTENT_LONG),
    "creative-50s": ("Table 1", VBENCH, _CREATIVE),
    "creative-250s": ("Table 1", VBENCH, _CREATIVE_LONG),
    "talk-300s": ("Table 2", TALK, _TALK),
    "dance-50s": ("Table 3", DANCE, _DANCE),
}
"""Benchmark -> where in the paper, its metrics, and the published rows."""
