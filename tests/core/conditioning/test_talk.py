"""What a talking clip hears: windows by hand, packing against a slow one, pieces of long sounds, guidance by its formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.conditioning.loudness import integrated_loudness
from svi_core.conditioning.talk import (
    MARGIN_FRAMES,
    PIECE_FRAMES,
    SAMPLES_PER_FRAME,
    SpeechFeatures,
    guided_pair,
    num_clips_for,
    piece_of,
    prepared_speech,
    slot_windows,
)
from svi_core.systems.layouts import LAYOUTS, Condition, Overlap, Padding, make_layout

TALK = LAYOUTS["Talk"]


class NumberingEncoder:
    """Features that say which frame they are: sample n of the sound has the value n, feature f is frame f + 1."""

    def __init__(self):
        self.encoded: list[int] = []

    def __call__(self, samples: torch.Tensor, num_frames: int) -> torch.Tensor:
        self.encoded.append(num_frames)
        assert len(samples) // SAMPLES_PER_FRAME == num_frames
        numbers = samples[: num_frames * SAMPLES_PER_FRAME : SAMPLES_PER_FRAME] / SAMPLES_PER_FRAME + 1
        return numbers.round()[:, None, None].expand(-1, 2, 3)


def speech(num_frames: int, more_samples: int = 0) -> SpeechFeatures:
    samples = torch.arange(num_frames * SAMPLES_PER_FRAME + more_samples, dtype=torch.float64)
    return SpeechFeatures(samples, NumberingEncoder())


def numbers(features: torch.Tensor) -> list[int]:
    """Frame numbers, 1-based, 0 for silence."""
    assert torch.equal(features, features[..., :1, :1].expand_as(features))
    return features[..., 0, 0].int().flatten().tolist()


def test_the_layout_is_that_of_the_specification():
    assert (TALK.padding, TALK.num_motion_frames, TALK.overlap, TALK.num_frames) == (Padding.ANCHOR_FRAMES, 1, 1, 81)
    assert (TALK.frame_rate, TALK.condition, TALK.overlap_rule) == (25, Condition.SOUND, Overlap.KEEP_NEXT)
    assert make_layout("Talk", num_frames=9).frame_rate == 25


@pytest.mark.parametrize(
    ("seconds", "num_clips"),
    [(0.5, 1), (81 / 25, 1), (81 / 25 + 0.001, 2), (161 / 25, 2), (162 / 25, 3), (5.12, 2), (60.0, 19), (3600.0, 1125)],
)
def test_as_many_clips_as_the_sound_needs(seconds, num_clips):
    """N clips of 81 frames have 80 N + 1 frames, 25 a second."""
    assert num_clips_for(seconds, TALK) == num_clips
    assert (80 * num_clips + 1) / 25 >= seconds - 1e-6


def test_clips_of_other_lengths_are_counted_by_their_own():
    assert num_clips_for(1.0, make_layout("Talk", num_frames=9)) == 3  # 25 frames: 9, 17, 25


def test_windows_by_hand_at_the_beginning_of_a_sound():
    """Frame f hears f-2 .. f+2, clamped; 1-based numbers here. Slot 1 holds frames 1 to 4, slot 2 frames 5 to 8."""
    first, later = slot_windows(speech(100).heard_by(0, 9))
    assert first.shape == (1, 1, 5, 2, 3) and later.shape == (1, 2, 8, 2, 3)
    assert numbers(first) == [1, 1, 1, 2, 3]
    assert numbers(later[:, 0]) == [1, 1, 2, 3, 4, 5, 6, 7]
    assert numbers(later[:, 1]) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_windows_by_hand_in_the_middle_and_where_the_speech_ends():
    first, later = slot_windows(speech(100).heard_by(80, 9))
    assert numbers(first) == [79, 80, 81, 82, 83]
    assert numbers(later[:, 1]) == [84, 85, 86, 87, 88, 89, 90, 91]
    first, later = slot_windows(speech(84).heard_by(80, 9))
    assert numbers(first) == [79, 80, 81, 82, 83]
    assert numbers(later) == [80, 81, 82, 83, 84, 0, 0, 0] + [84, 0, 0, 0, 0, 0, 0, 0]
    first, later = slot_windows(speech(84).heard_by(160, 9))
    assert numbers(first) == [0] * 5 and numbers(later) == [0] * 16


def test_a_clip_that_begins_before_the_sound_hears_its_first_frame():
    first, later = slot_windows(speech(100).heard_by(-1, 5))
    assert numbers(first) == [1, 1, 1, 1, 2] and numbers(later) == [1, 1, 1, 2, 3, 4, 5, 6]


def test_a_last_frame_that_is_not_whole_is_not_heard():
    assert speech(10, SAMPLES_PER_FRAME - 1).num_frames == 10
    assert numbers(speech(10, SAMPLES_PER_FRAME - 1).heard_by(4, 5)) == [3, 4, 5, 6, 7, 8, 9, 10, 0]


def slow_slot_windows(centre_windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack [T, 5, ...] windows as in docs/METHOD.md, 7.1: per slot 3 + 1 + 1 + 3 of the windows of its four frames."""
    slots = []
    for slot in range(1, (len(centre_windows) - 1) // 4 + 1):
        frames = [centre_windows[index] for index in range(4 * slot - 3, 4 * slot + 1)]
        parts = [frames[0][i] for i in (0, 1, 2)] + [frames[1][2], frames[2][2]] + [frames[3][i] for i in (2, 3, 4)]
        slots.append(torch.stack(parts))
    return centre_windows[0][None, None], torch.stack(slots)[None]


@pytest.mark.parametrize("num_frames", [5, 9, 81])
def test_packing_equals_a_slow_one_of_the_specification(num_frames):
    heard = torch.randn(num_frames + 4, 12, 7, generator=torch.Generator().manual_seed(num_frames))
    windows = torch.stack([heard[frame : frame + 5] for frame in range(num_frames)])
    for found, expected in zip(slot_windows(heard), slow_slot_windows(windows), strict=True):
        assert torch.equal(found, expected)


def test_a_short_sound_is_encoded_once_and_a_long_one_in_pieces_with_margins():
    short = speech(PIECE_FRAMES)
    for start in range(0, 2000, 80):
        short.heard_by(start, 81)
    assert short.encode.encoded == [PIECE_FRAMES]
    long = speech(5 * PIECE_FRAMES, 17)
    for start in range(0, 5 * PIECE_FRAMES, 80):
        heard = numbers(long.heard_by(start, 81))
        assert heard == [0 if at > 5000 else max(1, at) for at in range(start - 1, start + 84)]
    ends, middle = PIECE_FRAMES + MARGIN_FRAMES, PIECE_FRAMES + 2 * MARGIN_FRAMES
    assert long.encode.encoded == [ends, middle, middle, middle, ends]
    assert len(long._pieces) == 2


@given(st.integers(1, 9000), st.data())
def test_pieces_cover_every_frame_once(num_frames, data):
    frame = data.draw(st.integers(0, num_frames - 1))
    piece = piece_of(frame, num_frames)
    assert 0 <= piece.begin <= piece.first <= frame < piece.stop <= piece.end <= num_frames
    assert piece_of(piece.first, num_frames) == piece == piece_of(piece.stop - 1, num_frames)
    assert piece.end - piece.begin <= PIECE_FRAMES + 2 * MARGIN_FRAMES


def test_speech_is_heard_at_minus_23_lufs():
    noise = torch.randn(32_000, generator=torch.Generator().manual_seed(0)) * 0.001
    assert integrated_loudness(prepared_speech(noise), 16_000) == pytest.approx(-23.0, abs=0.01)


@pytest.mark.parametrize(("text", "audio"), [(2.0, 5.0), (1.0, 1.0), (2.0, 1.0), (0.0, 3.0), (4.0, 0.0)])
def test_guidance_is_the_formula_of_the_specification(text, audio):
    positive, negative, silent = torch.randn(3, 1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1)).unbind()
    conditional, unconditional = guided_pair(positive, negative, silent, audio)
    found = unconditional + (conditional - unconditional) * text  # as ComfyUI's guidance does
    expected = silent + text * (positive - negative) + audio * (negative - silent)
    assert torch.allclose(found, expected, atol=1e-5)


def test_guidance_of_denoised_predictions_is_that_of_velocities():
    x, sigma = torch.randn(4, generator=torch.Generator().manual_seed(2)), 0.7
    velocities = torch.randn(3, 4, generator=torch.Generator().manual_seed(3)).unbind()
    pairs = [guided_pair(*parts, 5.0) for parts in (velocities, [x - sigma * v for v in velocities])]
    guided = [unconditional + 2.0 * (conditional - unconditional) for conditional, unconditional in pairs]
    assert torch.allclose(x - sigma * guided[0], guided[1], atol=1e-5)
