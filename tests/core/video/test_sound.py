"""A run's sound: written once, heard in sync from the first new frame, never longer than the video."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from svi_core.clips.clip_plan import ClipPlan
from svi_core.clips.continuation import VideoStart, open_start
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.clips.video_settings import VideoSettings
from svi_core.geometry import TALK_FRAME_RATE
from svi_core.schedule.text import parse_schedule
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import make_layout
from svi_core.video.sound import SoundTrack, sound_seconds
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, write_video
from tests.core.fakes import FakeMaker
from tests.hearing import RATE, delay_and_likeness, heard

LAYOUT = make_layout("Talk", num_frames=17)


def bursts(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> SoundTrack:
    """Return a sound whose place in time shows: low-passed noise whose loudness steps every tenth of a second."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(channels, round(seconds * rate), generator=generator)
    smooth = torch.nn.functional.avg_pool1d(noise[:, None], 9, 1, 4)[:, 0]
    steps = torch.rand(round(seconds * 10) + 1, generator=generator).repeat_interleave(rate // 10)[: smooth.shape[1]]
    return SoundTrack((smooth * steps).clamp(-1, 1), rate)


def run(folder, sound, num_clips=3, start=None, frame_rate=TALK_FRAME_RATE):
    maker = FakeMaker(LAYOUT)
    settings = VideoSettings(VideoCoding(frame_rate=frame_rate), start=start, sound=sound)
    before = start and open_start(start, lambda frames: torch.zeros(1, 16, 5, 2, 2), maker.decode, frame_rate)
    plan = ClipPlan(num_clips, parse_schedule("one"), LAYOUT, continues=start.plan_key if start else "")
    with RunStore(folder) as store:
        return make_video(plan, maker, GrowingVideo(store, settings), before)[0]


def test_video_and_sound_are_in_sync_and_the_sound_is_cut_to_the_video(tmp_path):
    sound = bursts(3.0)
    video = probe_video(run(tmp_path, sound))
    assert (video.num_frames, video.frame_rate, video.sound_codec) == (3 * 16 + 1, 25.0, "aac")
    found, expected = heard(video.path), sound.waveform[0, : round(49 / 25 * RATE)].numpy()
    assert abs(len(found) - len(expected)) <= 1024  # AAC has frames of 1024 samples
    delay, likeness = delay_and_likeness(found, expected)
    assert abs(delay) < 0.002 and likeness > 0.9


def test_a_shorter_sound_stays_whole_and_a_stereo_one_stereo(tmp_path):
    sound = bursts(0.7, 44_100, channels=2)
    path = run(tmp_path, sound)
    found = heard(path, 44_100)
    assert abs(len(found) - 0.7 * 44_100) <= 1024
    delay, likeness = delay_and_likeness(found, sound.waveform.mean(0).numpy(), 44_100)
    assert abs(delay) < 0.002 and likeness > 0.9
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    assert b"44100 Hz, stereo" in subprocess.run(command, capture_output=True, check=False).stderr


def test_the_sound_is_encoded_once_and_another_one_gives_another_video(tmp_path):
    first = run(tmp_path, bursts(1.0))
    (file,) = tmp_path.glob("sound-*.m4a")
    written = file.stat().st_mtime_ns
    assert run(tmp_path, bursts(1.0)) == first and file.stat().st_mtime_ns == written
    other = run(tmp_path, bursts(1.0, seed=1))
    assert other != first and first.exists() and len(list(tmp_path.glob("sound-*.m4a"))) == 2
    assert run(tmp_path, None) not in (first, other)


@pytest.mark.parametrize("with_sound", [True, False])
def test_after_a_continued_video_its_sound_goes_on_with_the_new_one(tmp_path, with_sound):
    begun = tmp_path / "begun.mp4"
    write_video(begun, [np.zeros((20, 16, 16, 3), np.uint8)], VideoCoding(frame_rate=20))
    old, new = bursts(1.0, seed=2), bursts(2.0, seed=3)
    if with_sound:
        kept = old.kept_in(tmp_path)
        both = tmp_path / "both.mp4"
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "error",
            "-i",
            str(begun),
            "-i",
            str(kept.path),
            "-c",
            "copy",
            str(both),
        ]
        subprocess.run(command, check=True)
        begun = both
    video = run(tmp_path / "run", new, num_clips=2, start=VideoStart(probe_video(begun)))
    found = heard(video)
    assert abs(len(found) / RATE - (20 / 20 + 2 * 16 / 25)) < 0.07
    head, tail = found[:RATE], found[RATE:]
    delay, likeness = delay_and_likeness(tail, new.waveform[0, : len(tail)].numpy())
    assert abs(delay) < 0.003 and likeness > 0.85
    if with_sound:
        delay, likeness = delay_and_likeness(head, old.waveform[0].numpy())
        assert abs(delay) < 0.003 and likeness > 0.85
    else:
        assert np.abs(head[: -RATE // 20]).max() < 1e-3


@pytest.mark.parametrize(
    ("waveform", "rate", "words"),
    [
        (torch.zeros(1, 0), RATE, "has shape \\[1, 0\\]"),
        (torch.zeros(5), RATE, "has shape \\[5\\]"),
        (torch.full((1, 9), float("nan")), RATE, "NaN"),
        (torch.zeros(1, 9), 0, "0 samples per second"),
    ],
)
def test_what_is_no_sound_is_refused(waveform, rate, words):
    with pytest.raises(ValueError, match=words):
        SoundTrack(waveform, rate)


def test_the_length_of_a_file_with_sound(tmp_path):
    assert sound_seconds(bursts(1.25).kept_in(tmp_path).path) == pytest.approx(1.25, abs=0.065)
    silent = tmp_path / "silent.mp4"
    write_video(silent, [np.zeros((4, 16, 16, 3), np.uint8)], VideoCoding())
    with pytest.raises(OSError, match="silent.mp4 has no sound"):
        sound_seconds(silent)


def test_samples_between_two_times():
    sound = SoundTrack(torch.arange(10.0)[None] / 10, 10)
    assert sound.between(0.2, 0.5).tolist() == [pytest.approx([0.2, 0.3, 0.4])]
    assert sound.between(-1.0, 0.1).shape == (1, 1) and sound.between(2.0, 3.0).shape == (1, 0)
