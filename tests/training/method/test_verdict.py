"""Each verdict with its reason, and that nothing is claimed where the intervals leave it open."""

import json
import math
from dataclasses import replace

import pytest

from training.method.verdict import Answer, Estimate, Measures, judge

STEADY = tuple(Estimate(1.0, 0.01) for _ in range(10))
FADING = tuple(Estimate(0.95**clip, 0.01) for clip in range(1, 11))  # 0.95 to 0.60
BASE = Measures(
    num_scenes=8,
    gain=Estimate(0.9, 0.02),
    contrast=FADING,
    spectrum=STEADY,
    motion=STEADY,
    saturation=STEADY,
    colour=STEADY,
    error_to_signal=((1.0, 0.5), (0.5, 0.2)),
    common=0.1,
    handed_over=0.4,
    injected=0.3,
    has_anchor=False,
)


def clips(*values: float, error: float = 0.01) -> tuple[Estimate, ...]:
    return tuple(Estimate(value, error) for value in values)


def test_fading_that_is_copied_is_likely_to_be_stopped():
    verdict = judge(BASE)
    assert verdict.answer is Answer.LIKELY and not verdict.notes
    assert "contrast 0.60 ± 0.03" in verdict.reason and "gain 0.90 ± 0.05" in verdict.reason
    assert str(verdict).startswith("likely to help: after 10 clips")


@pytest.mark.parametrize("faded", ["spectrum", "motion"])
def test_detail_and_motion_fade_as_contrast_does(faded):
    assert judge(replace(BASE, contrast=STEADY, **{faded: FADING})).answer is Answer.LIKELY


@pytest.mark.parametrize(
    ("changes", "answer", "reason"),
    [
        ({"num_scenes": 5}, Answer.CANNOT_TELL, "(scenes: 5, clips of each: 10); use 6 scenes and 6 clips"),
        ({"contrast": FADING[:5]}, Answer.CANNOT_TELL, "scenes: 8, clips of each: 5"),
        ({"injected": None}, Answer.UNLIKELY, "put no error into the known frames"),
        ({"injected": 0.6}, Answer.UNLIKELY, "have 0.60 of the latents' size"),
        ({"motion": clips(*[0.3] * 10)}, Answer.CANNOT_TELL, "already clip 1 has 0.30 of the true clips' motion"),
        ({"motion": clips(*[2.5] * 10)}, Answer.CANNOT_TELL, "already clip 1 has 2.50 of the true clips' motion"),
        ({"gain": Estimate(0.51, 0.02)}, Answer.UNLIKELY, "0.51 ± 0.05 arrives at the end of the clip"),
        ({"gain": Estimate(0.51, 0.1)}, Answer.CANNOT_TELL, "whether the model copies errors is open (gain 0.51 ± 0.26)"),
        ({"gain": Estimate(0.65, 0.01)}, Answer.CANNOT_TELL, "whether the model copies errors is open"),
        ({"contrast": clips(*[0.6] * 10)}, Answer.CANNOT_TELL, "contrast is at 0.60 ± 0.03 of the truth's, but no longer"),
        ({"contrast": STEADY}, Answer.UNLIKELY, "the chains do not fade (contrast 1.00 ± 0.03"),
        ({"contrast": clips(*[1.0] * 9, 0.78)}, Answer.CANNOT_TELL, "the chains fade is open after 10 clips (contrast 0.78"),
        ({"contrast": clips(*[1.0] * 9, 0.94)}, Answer.CANNOT_TELL, "more clips show where it leads"),
        ({"contrast": clips(*[1.0] * 10, error=0.1)}, Answer.CANNOT_TELL, "more scenes narrow the intervals"),
        ({"contrast": clips(*[1.5] * 10)}, Answer.CANNOT_TELL, "leave the look of true clips otherwise (contrast 1.50"),
        ({"contrast": STEADY, "colour": clips(*[4.0] * 10)}, Answer.CANNOT_TELL, "colours 4.00 ± 0.03 times"),
    ],
)  # fmt: skip
def test_reasons(changes, answer, reason):
    verdict = judge(replace(BASE, **changes))
    assert verdict.answer is answer and reason in verdict.reason


def test_a_chain_that_has_nothing_left_to_lose_has_faded():
    assert judge(replace(BASE, contrast=clips(0.9, 0.5, *[0.2] * 8))).answer is Answer.LIKELY


def test_faint_errors_do_not_stop_fading():
    verdict = judge(replace(BASE, injected=0.07))
    assert verdict.answer is Answer.UNLIKELY
    assert "fading" in verdict.reason and "only 0.07 of the latents' size" in verdict.reason


def test_clips_that_stand_still_are_judged_without_their_motion():
    still = tuple(Estimate(math.nan, math.nan) for _ in range(10))
    assert judge(replace(BASE, motion=still)).answer is Answer.LIKELY
    assert "motion" not in judge(replace(BASE, motion=still, contrast=STEADY)).reason


def test_what_is_worth_knowing_besides():
    assert "sees the anchor" in judge(replace(BASE, has_anchor=True)).notes[0]
    assert "(0.25 of the latents' size) are much smaller" in str(judge(replace(BASE, injected=0.25, handed_over=1.0)))
    assert "much larger" in str(judge(replace(BASE, handed_over=0.05)))
    assert "much larger" in str(judge(replace(BASE, handed_over=0.0)))


def test_without_an_error_to_follow_nothing_is_claimed():
    verdict = judge(replace(BASE, gain=Estimate(math.nan, math.nan), handed_over=0.0))
    assert verdict.answer is Answer.CANNOT_TELL and "handed over exactly the truth" in verdict.reason


def test_measures_become_plain_data():
    still = tuple(Estimate(math.nan, math.nan) for _ in range(10))
    data = json.loads(json.dumps(replace(BASE, motion=still).as_dict(), allow_nan=False))
    assert data["motion"][0] == {"value": None, "error": None}
    assert data["gain"] == {"value": 0.9, "error": 0.02} and len(data["contrast"]) == 10
