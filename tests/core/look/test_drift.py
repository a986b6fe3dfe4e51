"""The report on videos whose faults are known: each must be seen, and a copied picture must never look good."""

import numpy as np
import pytest

from svi_core.look import drift
from svi_core.look.drift import FROZEN_DIFFERENCE, DriftMeter, measure_drift

CLIPS, LENGTH = 3, 20


def scene(num_frames=CLIPS * LENGTH, height=48, width=64):
    """A textured scene that pans steadily over a wide picture, with a dot that moves its own way."""
    generator = np.random.default_rng(0)
    wide = generator.uniform(0, 1, (height // 4, (width + 2 * num_frames) // 4 + 2, 3)).repeat(4, 0).repeat(4, 1)
    wide = 0.35 + 0.3 * wide
    frames = []
    for index in range(num_frames):
        frame = wide[:, index * 2 : index * 2 + width].copy()
        row = 8 + index * 7 % 30
        frame[row : row + 6, 20:26] = (0.9, 0.2, 0.1)
        frames.append((frame * 255).astype(np.uint8))
    return np.stack(frames)


def report(frames, lengths=(LENGTH,) * CLIPS):
    return measure_drift(iter(frames), lengths)


def clip_of(frames, index):
    return frames[index * LENGTH : (index + 1) * LENGTH]


def test_a_sound_video_is_valid_and_quiet():
    found = report(scene())
    assert found.verdict == "valid" and found.notes == ()
    assert max(found.colour_distance) < 0.05
    assert all(clip.seam is None or 0.3 < clip.seam < 2 for clip in found.clips)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda v: np.repeat(v[:1], len(v), 0), "static"),
        (lambda v: np.clip(v[:1] + np.random.default_rng(0).normal(0, 1, v.shape), 0, 255).astype(np.uint8), "static"),
        (lambda v: np.concatenate([clip_of(v, 0)] * CLIPS), "repeated"),
        (lambda v: np.concatenate([clip_of(v, 0), clip_of(v, 0)[::-1], clip_of(v, 1)]), "reversed"),
        (lambda v: np.concatenate([v[:20], v[19:39], v[38:58]]), "doubled frames"),
    ],
    ids=["copied picture", "copied picture with noise", "repeated clip", "ping-pong", "doubled seam frames"],
)
def test_cheats_are_invalid_before_any_number(make, reason):
    found = report(make(scene()))
    assert found.verdict.startswith("INVALID") and reason in found.verdict
    assert found.table().startswith("**INVALID")


def test_a_last_clip_of_one_frame_does_not_stand_still():
    """Videos of SVI 2.0 have 80 N + 1 frames: in pieces of 80 the last has one, which has no neighbour in its clip."""
    found = report(scene(61), (20, 20, 20, 1))
    assert found.verdict == "valid" and found.notes == ()
    assert (found.clips[-1].motion, found.clips[-1].frozen) == (None, None) and found.clips[-1].seam is not None
    assert found.table().splitlines()[-1].count("|  |") == 1, "no motion and no share of equal frames"
    assert report(scene(1), (1,)).verdict.startswith("INVALID (static)")


@pytest.mark.parametrize("index", range(CLIPS))
def test_frames_that_stand_still_for_half_a_second_are_noted(index):
    """Fewer than half of a clip's frames, which no median shows."""
    video = scene()
    start = index * LENGTH + 3
    video[start : start + 8] = video[start]
    found = report(video)
    assert found.verdict == "valid" and found.notes == (f"clip {index + 1} stands still for 8 of its 20 frames",)
    video[start + 4 :] = np.roll(video[start + 4 :], 5, axis=2)
    assert report(video).clips[index].still < 8 and not any("still" in note for note in report(video).notes)


def test_a_cartoon_drawn_on_twos_does_not_stand_still():
    found = report(scene(CLIPS * LENGTH // 2).repeat(2, axis=0))
    assert [clip.still for clip in found.clips] == [2] * CLIPS and not any("still" in note for note in found.notes)


def test_a_video_of_many_frames_a_second_may_change_less_between_two():
    """The limits are those of 16 frames a second: an interpolated video moves as much in a second."""
    video = np.full((60, 48, 64, 3), 90, np.uint8)
    for index in range(len(video)):
        video[index, :, : index + 1] += 11  # 0.17 of 255 more from frame to frame
    assert report(video).reasons == ("static",)
    found = measure_drift(iter(video), (LENGTH,) * CLIPS, frame_rate=48)
    assert found.verdict == "valid" and found.clips[0].frozen == 0


def faded(video, step):
    """Saturation falls by `step` per clip."""
    result = video.astype(np.float32)
    for index in range(CLIPS):
        part = clip_of(result, index)
        part += (part.mean(axis=3, keepdims=True) - part) * step * index
    return result.astype(np.uint8)


def blurred(video):
    result = video.astype(np.float32)
    for index in range(1, CLIPS):
        part = clip_of(result, index)
        for _ in range(6 * index):
            part[:] = (part + np.roll(part, 1, 1) + np.roll(part, -1, 1) + np.roll(part, 1, 2) + np.roll(part, -1, 2)) / 5
    return result.astype(np.uint8)


def flashed(video):
    result = video.copy()
    result[LENGTH] = np.clip(result[LENGTH].astype(int) + 40, 0, 255)
    return result


def test_drift_shows_in_its_own_column_and_grows():
    fade = [clip.saturation for clip in report(faded(scene(), 0.3)).clips]
    assert fade[0] > fade[1] > fade[2]
    blur = report(blurred(scene()))
    assert blur.clips[0].sharpness > blur.clips[1].sharpness > blur.clips[2].sharpness
    assert any("blurred" in note for note in blur.notes)
    bright = scene().astype(int)
    bright[2 * LENGTH :] += 40
    assert report(np.clip(bright, 0, 255).astype(np.uint8)).colour_distance[2] > 0.1


def test_a_flash_at_a_seam_is_a_jump():
    found = report(flashed(scene()))
    assert found.clips[1].seam > 3 and any("clip 2 begins with a jump" in note for note in found.notes)
    assert found.clips[2].seam < 3


def test_brightness_by_hand():
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    frames[:, :, :, 1] = 255  # pure green: luma 0.7152
    frames[::2, :8] = 0
    clip = report(frames, (4,)).clips[0]
    assert clip.brightness == pytest.approx(0.7152 * 0.75, abs=1e-4)
    assert clip.motion == pytest.approx(1 / 6, abs=1e-4)  # half of the pixels change by 1 in one of three channels


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="has 60 frames, but its clips have 59"):
        report(scene(), (20, 20, 19))


def meter_of(samples):
    meter = DriftMeter([LENGTH] * len(samples))
    meter._samples = samples
    return meter


@pytest.mark.parametrize("seed", range(8))
def test_equal_clips_are_found_exactly_as_by_comparing_each_with_each(seed):
    """Clips of one scene, two of which differ by a little less or a little more than what counts as equal."""
    chance = np.random.default_rng(seed)
    scene = chance.uniform(0.2, 0.8, (16, 16, 16, 3))
    samples = [(scene + chance.normal(0, 0.01, scene.shape)).astype(np.float16) for _ in range(40)]
    near = FROZEN_DIFFERENCE * chance.choice([0.97, 0.999, 1.001, 1.03]) * chance.choice([-1, 1], scene.shape)
    samples[31] = (samples[7] + near).astype(np.float16)[:: chance.choice([-1, 1])]
    for reverse in (False, True):
        expected = bool(meter_of(samples).clip_differences(reverse).min() < FROZEN_DIFFERENCE)
        assert drift._has_equal_clips(samples, reverse) is expected


def test_a_clip_that_is_its_own_reverse_is_not_another_clip():
    chance = np.random.default_rng(0)
    half = chance.uniform(0.2, 0.8, (2, 8, 16, 16, 3)).astype(np.float16)
    assert not drift._has_equal_clips([np.concatenate([clip, clip[::-1]]) for clip in half], reverse=True)


@pytest.mark.parametrize("num_clips", [100, 1000])
def test_few_clips_are_compared_however_many_there_are(monkeypatch, num_clips):
    """Comparing each with each took 147 CPU seconds for 1000 clips."""
    compared, difference = [0], drift._difference

    def counted(*arguments):
        compared[0] += 1
        return difference(*arguments)

    monkeypatch.setattr(drift, "_difference", counted)
    chance = np.random.default_rng(0)
    scene = chance.uniform(0.2, 0.8, (16, 16, 16, 3)).astype(np.float32)
    noise = chance.normal(0, 0.01, (num_clips, 16, 4, 4, 3)).astype(np.float32)  # a still camera: coarse changes are small
    samples = [(scene + own.repeat(4, 1).repeat(4, 2)).astype(np.float16) for own in noise]
    assert not any(drift._has_equal_clips(samples, reverse) for reverse in (False, True))
    assert compared[0] <= num_clips


def test_each_frame_is_read_once():
    read = []
    assert measure_drift((frame for frame in scene() if read.append(0) is None), (LENGTH,) * CLIPS).verdict == "valid"
    assert len(read) == CLIPS * LENGTH
