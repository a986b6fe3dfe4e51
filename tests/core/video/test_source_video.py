"""What PyAV says of a file is what ffmpeg printed of it in earlier versions, on which clip keys and codings depend.

The values by name were read from ffmpeg's messages before PyAV took over.
"""

import dataclasses
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from svi_core.video.colour_tags import Colours
from svi_core.video.frame_times import count_frames
from svi_core.video.shown_frames import frame_hashes, shown_frames
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from tests.core.clips.test_continuation import CODINGS, ffmpeg, foreign_video
from tests.core.video.test_video_file import moving_ramp


def colours(matrix, primaries, transfer, full_range=False):
    return dataclasses.asdict(Colours(matrix, primaries, transfer, full_range))


H264 = ("-c:v", "libx264", "-pix_fmt")
PLAIN = {"codec": "h264", "pixel_format": "yuv420p", "colours": colours(2, 2, 2), "frame_rate": 16.0}
FOREIGN = {
    "B-frames": (CODINGS["B-frames"], {}),
    "444": (CODINGS["444"], {"pixel_format": "yuv444p"}),
    "h265": (CODINGS["h265"], {"codec": "hevc"}),
    "mpeg4": (CODINGS["mpeg4"], {"codec": "mpeg4"}),
    "full range": (CODINGS["full range"], {"pixel_format": "yuvj420p", "colours": colours(2, 2, 2, True)}),
    "bt709": (CODINGS["bt709"], {"colours": colours(1, 2, 2)}),
    "10 bit": ((*H264, "yuv420p10le"), {"pixel_format": "yuv420p10le"}),
    "bt601": ((*H264, "yuv420p", "-colorspace", "smpte170m"), {"colours": colours(6, 2, 2)}),
    "bt470": ((*H264, "yuv420p", "-colorspace", "bt470bg", "-color_primaries", "bt470m"), {"colours": colours(5, 2, 2)}),
    "only primaries": ((*H264, "yuv420p", "-color_primaries", "bt709"), {}),
    "bt2020": ((*H264, "yuv420p10le", "-colorspace", "bt2020nc"), {"pixel_format": "yuv420p10le", "colours": colours(9, 2, 2)}),
}
OURS = {
    "h264": (VideoCoding(), {"colours": colours(1, 1, 1)}),
    "h265 10 bit": (
        VideoCoding("h265", pixel_format="yuv420p10le"),
        {"codec": "hevc", "pixel_format": "yuv420p10le", "colours": colours(1, 1, 1)},
    ),
    "444": (VideoCoding(pixel_format="yuv444p"), {"pixel_format": "yuv444p", "colours": colours(1, 1, 1)}),
    "bt601 full": (
        VideoCoding(colours=Colours(6, 6, 6, True)),
        {"pixel_format": "yuvj420p", "colours": colours(6, 6, 6, True)},
    ),
    "unmarked": (VideoCoding(colours=Colours(2, 2, 2)), {}),
}


def facts(path):
    video = probe_video(path)
    found = dataclasses.asdict(video)
    assert (found.pop("identity"), found.pop("exact")) == ("", None)
    assert found.pop("path") == path and found.pop("sound_late") == 0.0 and found.pop("shown")["times"][0] == 0.0
    return {**found, "num_frames": video.num_frames}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_video_is_what_ffmpeg_says(tmp_path, name):
    coding, differs = FOREIGN[name]
    path = foreign_video(tmp_path / "a.mp4", *coding, seconds=1.0)
    size = {"width": 32, "height": 48, "num_frames": 16, "rotated": False, "sound_codec": None}
    assert facts(path) == {**PLAIN, **size, **differs}
    assert shown_frames(path).end == pytest.approx(1.0, abs=0.005) and count_frames(path, decode=True) == 16


@pytest.mark.parametrize("name", OURS)
def test_our_own_files_are_what_their_coding_says(tmp_path, name):
    coding, differs = OURS[name]
    write_video(tmp_path / "a.mp4", [moving_ramp(9)], coding)
    size = {"width": 48, "height": 32, "num_frames": 9, "rotated": False, "sound_codec": None}
    assert facts(tmp_path / "a.mp4") == {**PLAIN, **size, **differs}
    assert shown_frames(tmp_path / "a.mp4").end == pytest.approx(9 / 16, abs=0.005)


@pytest.mark.parametrize("name", FOREIGN)
def test_frames_read_are_ffmpeg_s_rgb_to_the_bit(tmp_path, name):
    path = foreign_video(tmp_path / "a.mp4", *FOREIGN[name][0], seconds=0.5)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert np.stack(list(read_frames(path))).tobytes() == raw


@pytest.mark.parametrize(
    ("rate", "expected"), [("30000/1001", 29.97), ("24000/1001", 23.98), ("120", 120.0), ("25", 25.0), ("12.345", 12.35)]
)
def test_frame_rates_have_two_decimals(tmp_path, rate, expected):
    """Frames of a continued video are picked by this number, so another rounding would give other clip keys."""
    assert probe_video(foreign_video(tmp_path / "a.mp4", rate=rate, seconds=1.0)).frame_rate == expected


@pytest.mark.parametrize(
    ("turn", "size"),
    [(("-display_rotation", "90"), (48, 32)), (("-display_rotation", "180"), (32, 48)), (("-display_hflip",), (32, 48))],
)
def test_a_turned_or_mirrored_video_is_read_as_it_is_shown(tmp_path, turn, size):
    source = foreign_video(tmp_path / "a.mp4", seconds=0.5)
    ffmpeg(*turn, "-i", source, "-c", "copy", tmp_path / "turned.mp4")
    found = probe_video(tmp_path / "turned.mp4")
    assert found.rotated and (found.width, found.height) == size
    assert {frame.shape for frame in read_frames(tmp_path / "turned.mp4")} == {(size[1], size[0], 3)}


@pytest.mark.parametrize(
    ("suffix", "coder", "name"),
    [("mp4", "aac", "aac"), ("mp4", "libmp3lame", "mp3"), ("mkv", "libopus", "opus"), ("mkv", "pcm_s16le", "pcm_s16le")],
)
def test_the_sound_has_ffmpeg_s_name(tmp_path, suffix, coder, name):
    inputs = ("-f", "lavfi", "-i", "testsrc2=size=32x48:rate=16:duration=1", "-f", "lavfi", "-i", "sine=duration=1")
    ffmpeg(*inputs, *H264, "yuv420p", "-c:a", coder, tmp_path / f"a.{suffix}")
    assert probe_video(tmp_path / f"a.{suffix}").sound_codec == name


@pytest.mark.parametrize("suffix", ["webm", "gif", "avi", "ts", "mov"])
def test_other_containers_are_counted_alike(tmp_path, suffix):
    coder = {"webm": "libvpx-vp9", "gif": "gif", "avi": "mjpeg", "ts": "mpeg2video", "mov": "prores_ks"}[suffix]
    rate = 25 if suffix == "ts" else 20
    path = foreign_video(tmp_path / f"a.{suffix}", "-c:v", coder, rate=rate, seconds=1.0)
    found = probe_video(path)
    assert found.num_frames == count_frames(path) == len(frame_hashes(path)) == len(list(read_frames(path))) == rate
    assert found.frame_rate == rate


def test_a_recording_that_begins_between_key_frames_is_read(tmp_path):
    path = foreign_video(tmp_path / "a.ts", *H264, "yuv420p", "-g", "8", seconds=2.0)
    data = path.read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[188 * (len(data) // 188 // 4) :])
    assert 8 < probe_video(tmp_path / "cut.ts").num_frames < 32
    assert read_frames(tmp_path / "cut.ts")


def test_a_file_of_sound_and_words_in_another_encoding_are_told_from_a_video(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "a.wav")
    with pytest.raises(OSError, match="a.wav is not a video.*no video stream"):
        probe_video(tmp_path / "a.wav")
    ffmpeg(
        "-i", foreign_video(tmp_path / "a.avi", *CODINGS["mpeg4"]), "-c", "copy", "-metadata", "title=Lxwe", tmp_path / "b.avi"
    )
    (tmp_path / "b.avi").write_bytes((tmp_path / "b.avi").read_bytes().replace(b"Lxwe", b"L\xf6we"))
    assert probe_video(tmp_path / "b.avi").num_frames == 48
