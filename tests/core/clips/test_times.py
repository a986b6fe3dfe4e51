"""Continue and Join keep what a player shows of their sources: the shown frames, their times, and the sound beside them."""

import av
import numpy as np
import pytest
import torch

from svi_core.clips.continuation import VideoStart
from svi_core.clips.joining import Joint, Piece, write_joint
from svi_core.store.records import read_manifest
from svi_core.video.seams import Seam
from svi_core.video.sound import SoundTrack
from svi_core.video.source_video import probe_video, read_tail
from svi_core.video.video_file import VideoCoding, read_frames
from tests.core.clips.test_continuation import LAYOUT, foreign_video
from tests.core.clips.test_continuation import run as run_32x48
from tests.core.fakes import FakeMaker
from tests.timed_videos import DAY, cut, flash_and_click, number_of, one_late, played, sixty_then_ten, uneven, with_late_stamps

NEAR = 0.003  # seconds
SOURCES = (
    "plain.mp4",
    "video late.mp4",
    "video late.ts",
    "sound late.mp4",
    "sound late.ts",
    "long.mp4",
    "short.mp4",
    "cut.mp4",
)


def run(folder, start, **settings):
    """Continue a video of 64 x 64 pixels with two clips, of 4 new frames each; return the result's path."""
    return run_32x48(folder, 2, start, maker=FakeMaker(LAYOUT, height=64, width=64), **settings)[0]


def joined(path, *pieces, seam=Seam.DROP, num_blended=0):
    write_joint(path, Joint(*pieces, seam, num_blended), VideoCoding(crf=0), {})
    return played(path)


def flashing(folder, name):
    """Write a video with a flash and a click, of the kind that `name` says."""
    base = flash_and_click(folder / "base.mp4", {"long.mp4": 6.0, "short.mp4": 1.3}.get(name, 3.0))
    kind = name.rsplit(".", 1)[0]
    if kind in ("plain", "long", "short"):
        return base
    return cut(base, folder / name, 0.5) if kind == "cut" else one_late(base, folder / name, kind)


@pytest.fixture
def cut_video(tmp_path):
    """5 s at 30 frames per second, of which an edit list hides the first one."""
    return cut(foreign_video(tmp_path / "whole.mp4", size="64x64", rate=30, seconds=5), tmp_path / "cut.mp4", 1.0)


def test_a_cut_video_keeps_the_frames_it_shows(tmp_path, cut_video):
    with av.open(str(cut_video)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 150, "an edit list is needed"
    start = VideoStart(probe_video(cut_video))
    assert (start.num_frames, start.seconds) == (120, pytest.approx(4.0))
    path = run(tmp_path / "run", start)
    times = played(path).times
    assert len(times) == 120 + 8 and [clip.num_frames for clip in read_manifest(path)] == [120, 4, 4]
    assert times == pytest.approx([k / 30 for k in range(120)] + [4 + k / 16 for k in range(8)], abs=NEAR)
    kept = [frame.copy() for frame in read_frames(path)][:120]
    assert np.array_equal(kept, [frame.copy() for frame in read_frames(tmp_path / "whole.mp4")][30:])


def test_a_cut_video_is_trimmed_by_the_frames_it_shows(tmp_path, cut_video):
    path = run(tmp_path / "run", VideoStart(probe_video(cut_video), trim_end=20))
    assert played(path).times == pytest.approx([k / 30 for k in range(100)] + [100 / 30 + k / 16 for k in range(8)], abs=NEAR)


def test_cut_videos_are_joined_by_the_frames_they_show(tmp_path, cut_video):
    source = probe_video(cut_video)
    assert joined(tmp_path / "j.mp4", Piece(source), Piece(source)).times == pytest.approx(
        [k / 30 for k in range(240)], abs=NEAR
    )


def test_16_steps_of_motion_span_one_second_at_any_rate(tmp_path):
    """By hand: tick k is 1 / 16 s x k before the last frame, and shows the frame of that time or the last one before it."""
    times = sixty_then_ten()
    source = probe_video(uneven(tmp_path / "a.mp4", times))
    tail = read_tail(source, 33)
    numbers = [number_of(frame.numpy() * 255) for frame in tail]
    assert times[numbers[-1]] - times[numbers[-17]] == pytest.approx(1.0, abs=0.1) and numbers[-1] == 79
    ticks = [times[-1] - k / 16 + 0.25 / 16 for k in reversed(range(33))]
    assert numbers == [max(index for index, time in enumerate(times) if time <= max(tick, 0)) for tick in ticks]
    assert len(read_tail(source, 81)) == 47, "2.9 s have 46 ticks before the last one"
    trimmed = read_tail(source, 5, trim_end=30)  # the last frame is number 49 then, where 60 come in a second
    assert [number_of(frame.numpy() * 255) for frame in trimmed] == [34, 38, 42, 46, 49]


@pytest.mark.parametrize("trim_end", [0, 7])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_varying_rate_is_continued_at_its_own_times(tmp_path, name, trim_end):
    times, source = sixty_then_ten(), probe_video(uneven(tmp_path / name, sixty_then_ten()))
    found = played(run(tmp_path / "run", VideoStart(source, trim_end)))
    num_kept = 80 - trim_end
    end = times[num_kept] if trim_end else source.shown.end
    assert found.numbers[:num_kept] == list(range(num_kept))
    assert found.times == pytest.approx([*times[:num_kept], *(end + k / 16 for k in range(8))], abs=NEAR)


def test_videos_of_other_rates_are_joined_at_their_own_times(tmp_path):
    times, steady = sixty_then_ten(), [k / 25 for k in range(40)]
    first = probe_video(uneven(tmp_path / "a.mp4", times))
    second = probe_video(uneven(tmp_path / "b.mp4", steady))
    assert not first.shown.is_even and second.frame_rate == 25
    found = joined(tmp_path / "j.mp4", Piece(first, trim_end=10), Piece(second, 5))
    assert found.numbers == [*range(70), *range(5, 40)]
    assert found.times == pytest.approx([*times[:70], *(times[70] + time for time in steady[:35])], abs=NEAR)
    whole = joined(tmp_path / "whole.mp4", Piece(first), Piece(second))
    assert whole.times[80] == pytest.approx(first.shown.end, abs=NEAR) and len(whole.times) == 120


def test_a_cross_fade_mixes_frames_of_the_same_time(tmp_path):
    """The last 5 frames of the first piece last 0.5 s. By then 30 of the second one's are over, and each sixth was mixed."""
    times = sixty_then_ten()
    source = probe_video(uneven(tmp_path / "a.mp4", times))
    end = source.shown.end
    found = joined(tmp_path / "j.mp4", Piece(source), Piece(source), seam=Seam.LINEAR, num_blended=5)
    fade = end - times[75]
    over = sum(time < fade - 0.01 for time in times)
    partners = [max(index for index, time in enumerate(times) if time <= k / 10 + 0.01) for k in range(5)]
    mixed = [(75 + k) * (5 - k) / 6 + partners[k] * (k + 1) / 6 for k in range(5)]
    assert found.numbers == [*range(75), *(pytest.approx(number, abs=1.1) for number in mixed), *range(over, 80)]
    assert found.times[:80] == pytest.approx(times, abs=NEAR)
    assert found.times[80:] == pytest.approx([times[75] + time for time in times[over:]], abs=NEAR)


@pytest.mark.parametrize("name", SOURCES)
def test_flash_and_click_stay_as_they_are_in_a_continued_video(tmp_path, name):
    source = flashing(tmp_path, name)
    given, start = played(source), VideoStart(probe_video(source))
    found = played(run(tmp_path / "run", start))
    assert len(given.flashes) == len(given.clicks) == 1
    assert found.flashes == pytest.approx(given.flashes, abs=NEAR) and found.clicks == pytest.approx(given.clicks, abs=NEAR)
    assert found.times[: start.num_frames] == pytest.approx(given.times, abs=NEAR)
    assert found.times[start.num_frames] == pytest.approx(start.seconds, abs=NEAR) == given.times[-1] + 1 / 30
    quiet = SoundTrack(torch.zeros(1, 4800), 48_000)
    sounding = played(run(tmp_path / "sounding", start, sound=quiet))
    assert sounding.clicks == pytest.approx(given.clicks, abs=NEAR) and sounding.flashes == found.flashes


@pytest.mark.parametrize("name", SOURCES)
def test_flash_and_click_stay_as_they_are_in_a_join(tmp_path, name):
    """The first video plays as before; all of the second one plays after it, and lasts as long as before."""
    source = flashing(tmp_path, name)
    given, piece = played(source), Piece(probe_video(source))
    plain = Piece(probe_video(flash_and_click(tmp_path / "plain.mp4")))
    for first, second, seconds in ((piece, plain, piece.end), (plain, piece, 3.0)):
        found = joined(tmp_path / "j.mp4", first, second)
        flash, click = ((given.flashes[0], given.clicks[0]) if part is piece else (1.0, 1.0) for part in (first, second))
        assert found.flashes == pytest.approx([flash[0], seconds + click[0]], abs=NEAR)
        assert found.clicks == pytest.approx([flash[1], seconds + click[1]], abs=NEAR)
        assert found.times[-1] + 1 / 30 == pytest.approx(3.0 + piece.end, abs=NEAR)


@pytest.mark.parametrize("name", ["video late.mp4", "sound late.ts", "cut.mp4"])
def test_trims_and_fades_keep_flash_and_click_apart_as_they_were(tmp_path, name):
    source = flashing(tmp_path, name)
    given, video = played(source), probe_video(source)
    apart = given.clicks[0] - given.flashes[0]
    for pieces, fade in (((Piece(video, 0, 12), Piece(video, 9)), 0), ((Piece(video), Piece(video)), 10)):
        found = joined(tmp_path / "j.mp4", *pieces, seam=Seam.LINEAR, num_blended=fade)
        assert np.subtract(found.clicks, found.flashes) == pytest.approx([apart, apart], abs=NEAR)


def test_a_sound_that_is_never_heard_is_silence(tmp_path):
    """It ends before the piece begins, or begins after the piece ends."""
    short = probe_video(flash_and_click(tmp_path / "short.mp4", 1.3))
    found = joined(tmp_path / "j.mp4", Piece(short, 60), Piece(short))
    assert found.clicks == found.flashes == [pytest.approx(2.0, abs=NEAR)]
    late = probe_video(one_late(tmp_path / "short.mp4", tmp_path / "late.mp4", "sound late"))
    found = joined(tmp_path / "j.mp4", Piece(late, 0, 80), Piece(short))
    assert found.clicks == found.flashes == [pytest.approx(10 / 30 + 1.0, abs=NEAR)]


def test_time_stamps_in_the_far_future_are_refused(tmp_path):
    source = uneven(tmp_path / "a.mkv", [k / 16 for k in range(20)])
    for number, words in ((19, "nothing changes from 1.1[0-9] s to 8640[0-9]"), (8, "nothing changes from 0.4[0-9] s to 8640")):
        late = with_late_stamps(source, tmp_path / "late.mkv", number, DAY)
        with pytest.raises(OSError, match=f"late.mkv has damaged time stamps: {words}.*setpts=N/16"):
            probe_video(late)


def test_a_sound_stamp_in_the_far_future_costs_nothing(tmp_path):
    """Ten thousand days of silence up to it would take weeks."""
    source = flash_and_click(tmp_path / "a.mp4")
    late = with_late_stamps(source, tmp_path / "late.mkv", 100, 10_000 * DAY, kind="audio")
    video = probe_video(late)
    found = joined(tmp_path / "j.mp4", Piece(video), Piece(video))
    assert np.subtract(found.clicks, found.flashes) == pytest.approx([0, 0], abs=NEAR) and len(found.times) == 180
    assert len(played(run(tmp_path / "run", VideoStart(video))).times) == 98
