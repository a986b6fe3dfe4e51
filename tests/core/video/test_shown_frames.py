"""When frames are shown, by hand; and files whose packets, headers and times differ from what is shown."""

from pathlib import Path

import av
import pytest

from svi_core.clips.joining import Joint, Piece, write_joint
from svi_core.video import shown_frames as module
from svi_core.video.frame_times import count_frames, packet_times
from svi_core.video.shown_frames import ShownFrames, fault_in_times, frame_hashes, retime, shown_frames
from svi_core.video.source_video import probe_video, read_tail
from svi_core.video.video_file import VideoCoding, write_video
from tests.core.clips.test_continuation import ffmpeg, foreign_video
from tests.core.video.test_video_file import moving_ramp
from tests.timed_videos import cut, flash_and_click, sixty_then_ten

LATE_STAMP = Path(__file__).parents[2] / "late_timestamp.mp4"


def shown_at(*times: float, end: float) -> ShownFrames:
    return ShownFrames(times, end)


def test_the_frame_on_screen_is_the_last_one_that_has_begun():
    shown = shown_at(0.5, 1.0, 3.0, end=3.5)
    assert [shown.on_screen(seconds) for seconds in (0.0, 0.5, 0.99, 1.0, 2.9, 3.0, 9.0)] == [0, 0, 0, 1, 1, 2, 2]
    assert [shown.end_of(count) for count in (1, 2, 3)] == [1.0, 3.0, 3.5]
    assert shown.shifted(1.0) == shown_at(1.5, 2.0, 4.0, end=4.5)


@pytest.mark.parametrize(
    ("times", "is_even"),
    [
        ([0.0], True),
        ([k / 30 for k in range(90)], True),
        ([round(k / 30, 3) for k in range(90)], True),  # Matroska
        ([0.7 + k * 1001 / 30000 for k in range(90)], True),
        ([k / 30 + 0.01 * (k % 2) for k in range(90)], True),  # a phone's jitter
        ([k / 30 for k in range(90) if k not in (44, 45, 46)], False),  # dropped frames
        (sixty_then_ten(), False),
    ],
)
def test_a_rate_is_constant_if_frames_lie_near_an_even_grid(times, is_even):
    assert shown_at(*times, end=times[-1] + 0.03).is_even is is_even


def test_a_clock_shows_each_frame_of_its_own_rate_once_and_others_by_their_times():
    steady = shown_at(*(k / 30 for k in range(30)), end=1.0)
    assert list(steady.at_rate(29.97)) == list(range(30)) == list(steady.at_rate(30))
    assert list(steady.at_rate(10)) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    varying = shown_at(0.0, 0.1, 0.2, 1.0, end=1.25)
    assert list(varying.at_rate(4)) == [0, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("before", "time", "words"),
    [
        (1.0, 601.0, None),
        (1.0, 601.5, "nothing changes from 1.00 s to 601.50 s; give it new ones"),
        (5.0, 4.0, None),
        (5.0, 3.5, "after 5.00 s they go back to 3.50 s"),
    ],
)
def test_what_is_plausible(before, time, words):
    fault = fault_in_times(before, time)
    assert fault is None if words is None else words in fault


def test_a_picture_of_36_hours_is_refused_by_the_file_s_name():
    with pytest.raises(OSError, match="late_timestamp.mp4 has damaged time stamps: nothing changes from 0.00 s to 131072.00 s"):
        probe_video(LATE_STAMP)


def test_packets_that_are_not_shown_do_not_count(tmp_path):
    whole = foreign_video(tmp_path / "whole.mp4", rate=30, seconds=2)
    path = cut(whole, tmp_path / "cut.mp4", 0.5)
    assert count_frames(path) == count_frames(path, decode=True) == 45 == len(shown_frames(path).times)
    assert frame_hashes(path) == frame_hashes(whole)[15:] and shown_frames(path).end == pytest.approx(1.5)
    assert probe_video(path).frame_rate == 30.0


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    path = foreign_video(tmp_path / "a.mp4", seconds=0.5)
    first, hashes = shown_frames(path), frame_hashes(path)
    monkeypatch.setattr(module, "packet_times", lambda path: [])
    monkeypatch.setattr(module, "decoded_frames", lambda path: [])
    assert shown_frames(path) is first and frame_hashes(path) == hashes and len(hashes) == 8
    foreign_video(path, seconds=1.0)
    with pytest.raises(OSError, match="it has no frame"):
        shown_frames(path)


def test_packets_whose_times_go_back_are_not_sorted(tmp_path):
    """Sorted by time, the packets of both halves would be mixed."""
    ffmpeg("-i", foreign_video(tmp_path / "a.mp4", seconds=6), "-c", "copy", "-cluster_time_limit", "1000", tmp_path / "a.mkv")
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    position = len(data) // 3
    while (position := data.find(b"\x1f\x43\xb6\x75", position + 1)) >= 0:  # a cluster; its time follows
        begin = data.index(0xE7, position) + 2
        stop = begin + data[begin - 1] % 0x80
        earlier = max(0, int.from_bytes(data[begin:stop], "big") - 2500)
        data[begin:stop] = earlier.to_bytes(stop - begin, "big")
    (tmp_path / "a.mkv").write_bytes(data)
    assert packet_times(tmp_path / "a.mkv") is None
    assert len(shown_frames(tmp_path / "a.mkv").times) == count_frames(tmp_path / "a.mkv", decode=True) == 96


def test_a_probe_decodes_only_the_first_frame(tmp_path, monkeypatch):
    path = foreign_video(tmp_path / "a.mp4", seconds=1.0)

    def refused(path):
        raise AssertionError("decoded")

    monkeypatch.setattr(module, "decoded_frames", refused)
    assert probe_video(path).num_frames == 16


def test_frames_that_cannot_be_decoded_are_named(tmp_path):
    """The packets of a half are whole, but their bytes are not H.264."""
    path = foreign_video(tmp_path / "a.mp4", seconds=1.0)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for begin, size in packets[8:]:
        data[begin + 4 : begin + size] = bytes(size - 4)
    path.write_bytes(data)
    assert len(shown_frames(path).times) == 16

    def joined(path):
        write_joint(tmp_path / "j.mp4", Joint(Piece(probe_video(path)), Piece(probe_video(path))), VideoCoding(), {})

    for read in (frame_hashes, lambda path: read_tail(probe_video(path), 16), joined):
        with pytest.raises(OSError, match=r"a\.mp4 has packets of 16 frames, but [0-9]+ can be decoded: it is damaged"):
            read(path)
    assert not (tmp_path / "j.mp4").exists()


def test_the_rate_in_a_header_is_not_believed_against_the_times(tmp_path):
    """B-frames in an AVI: the header says 600, the frames come 30 times in a second."""
    source = foreign_video(tmp_path / "a.mp4", rate=30, seconds=1)
    ffmpeg("-i", source, "-c", "copy", tmp_path / "a.avi")
    with av.open(str(tmp_path / "a.avi")) as container:
        assert container.streams.video[0].average_rate != 30
    assert probe_video(tmp_path / "a.avi").frame_rate == 30.0


def test_a_silent_video_begins_with_its_first_frame(tmp_path):
    """An AVI with B-frames begins two frames late; with sound that counts, and the sound of a transport stream too."""
    source = flash_and_click(tmp_path / "a.mp4")
    ffmpeg("-i", source, "-an", "-c:v", "libx264", "-bf", "2", tmp_path / "silent.avi")
    assert shown_frames(tmp_path / "silent.avi").times[0] > 0.03 and probe_video(tmp_path / "silent.avi").late == 0.0
    ffmpeg("-itsoffset", "0.5", "-i", source, "-i", source, "-map", "0:v", "-map", "1:a", "-c", "copy", tmp_path / "late.ts")
    video = probe_video(tmp_path / "late.ts")
    assert video.late == pytest.approx(0.5, abs=0.03) and video.sound_late == pytest.approx(0.0, abs=0.001)


@pytest.mark.parametrize("coding", [VideoCoding(), VideoCoding("h265", pixel_format="yuv420p10le")], ids=lambda c: c.tag)
def test_frames_get_other_times_and_nothing_else(tmp_path, coding):
    write_video(tmp_path / "a.mp4", [moving_ramp(4)], coding)
    retime(tmp_path / "a.mp4", tmp_path / "b.mp4", [0.0, 0.1, 0.15, 2.0, 2.5])
    before, after = probe_video(tmp_path / "a.mp4"), probe_video(tmp_path / "b.mp4")
    assert after.shown.times == pytest.approx([0.0, 0.1, 0.15, 2.0]) and after.shown.end == pytest.approx(2.5)
    assert frame_hashes(after.path) == frame_hashes(before.path)
    assert (after.codec, after.pixel_format, after.colours) == (before.codec, before.pixel_format, before.colours)
    with av.open(str(tmp_path / "a.mp4")) as given, av.open(str(tmp_path / "b.mp4")) as made:
        assert made.streams.video[0].codec_context.codec_tag == given.streams.video[0].codec_context.codec_tag
