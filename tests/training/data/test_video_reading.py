"""Clips are read by time, whole and upright, and a fault is named."""

import random
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from svi_core.video.colour_tags import Colours
from tests.core.video.test_colour_tags import HDR_HLG, HDR_PQ, PATCHES, in_primaries, patch_video, retag
from tests.timed_videos import DAY, with_late_stamps
from tests.training.synthetic_clips import number_of, picture, write_clip, write_numbered, write_sound
from training.data.sound import require_sound
from training.data.video_reading import on_ticks, read_pictures, read_ticks, usual_colours


def numbers(path: Path, rate: float = 16, first_tick: int = 0) -> list[int]:
    """Return the number of the picture at each tick of a clip."""
    found = list(read_ticks(path, rate, first_tick))
    assert [tick for tick, _ in found] == list(range(first_tick, first_tick + len(found)))
    return [number_of(frame.to_rgb()) for _, frame in found]


def on_screen(times: list[float], end: float, rate: float = 16) -> list[int]:
    """Return, by looking at every frame for every tick, which frame is on screen, a quarter of a tick early."""
    ticks = [tick / rate + 0.25 / rate for tick in range(10_000) if tick / rate + 0.25 / rate < end]
    return [max(index for index, time in enumerate(times) if time <= tick) for tick in ticks]


def test_a_clip_of_16_frames_per_second_keeps_every_frame(tmp_path):
    assert numbers(write_numbered(tmp_path / "a.mp4", 81)) == list(range(81))


@pytest.mark.parametrize(
    ("rate", "count", "beginning", "num_ticks"),
    [
        (24, 121, [0, 1, 3, 4, 6, 7, 9], 81),  # 5.04 s
        (30, 150, [0, 2, 4, 6, 7, 9, 11], 80),  # 5.0 s
        (60, 90, [0, 4, 8, 12, 15, 19, 23], 24),
        (8, 10, [0, 0, 1, 1, 2, 2, 3], 20),
        (Fraction(30000, 1001), 100, [0, 2, 4, 6, 7, 9, 11], 54),  # 3.337 s
    ],
)
def test_other_rates_keep_their_speed(tmp_path, rate, count, beginning, num_ticks):
    found = numbers(write_numbered(tmp_path / "a.mp4", count, rate))
    assert found[:7] == beginning and len(found) == num_ticks
    assert found == on_screen([index / rate for index in range(count)], count / rate)


def test_time_stamps_in_milliseconds_do_not_jitter(tmp_path):
    clip = write_numbered(tmp_path / "a.mkv", 81, times=[index / 16 for index in range(81)])
    assert numbers(clip) == list(range(81))


def test_a_varying_rate_is_followed(tmp_path):
    draw = random.Random(3)
    times = [0.0]
    while times[-1] < 5.0:
        times.append(round(times[-1] + draw.choice([0.01, 0.02, 0.04, 0.1, 0.7]), 3))
    clip = write_numbered(tmp_path / "a.mkv", len(times), times=times)
    found = numbers(clip)
    expected = on_screen(times, times[-1] + 0.0001)
    assert found[: len(expected)] == expected
    assert set(found[len(expected) :]) <= {len(times) - 1}


def test_ticks_begin_anywhere_and_the_last_item_stays_its_duration():
    timed = [(0.0, 9.0, "a"), (1.0, 9.0, "b"), (1.5, 1.0, "c")]
    assert list(on_ticks(timed, 2.0)) == [(0, "a"), (1, "a"), (2, "b"), (3, "c"), (4, "c")]
    assert list(on_ticks(timed, 2.0, first_tick=3)) == [(3, "c"), (4, "c")]
    assert list(on_ticks([], 2.0)) == []


@pytest.mark.parametrize("gop", [5, 250])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264rgb"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4")])
def test_reading_from_the_middle_equals_reading_all(tmp_path, gop, name, codec):
    clip = write_numbered(tmp_path / name, 160, codec=codec, gop=gop)
    whole = numbers(clip)
    assert len(whole) == 160
    for first_tick in (1, 47, 100, 159):
        assert numbers(clip, first_tick=first_tick) == whole[first_tick:]


def test_pictures_come_once_each_in_order(tmp_path):
    clip = write_numbered(tmp_path / "a.mp4", 90)
    found = list(read_pictures(clip, 16, [80, 3, 3, 41]))
    assert [(tick, number_of(pixels)) for tick, pixels in found] == [(3, 3), (41, 41), (80, 80)]
    assert np.array_equal(found[0][1], picture(3))
    with pytest.raises(ValueError, match="ends before frame 95"):
        list(read_pictures(clip, 16, [5, 95]))


def test_pictures_are_upright_with_square_pixels(tmp_path):
    clip = write_numbered(tmp_path / "a.mp4", 3, width=64, height=32, codec="libx264")
    turned = tmp_path / "turned.mp4"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", "90", "-i", str(clip)]
    subprocess.run([*ffmpeg, "-c", "copy", str(turned)], check=True)
    frame = next(read_ticks(turned, 16))[1]
    assert frame.size == (32, 64) and frame.to_rgb().shape == (64, 32, 3)
    assert number_of(np.rot90(frame.to_rgb(), -1)) == 0
    wide = write_numbered(tmp_path / "wide.mp4", 3, width=64, height=32, pixel_aspect=Fraction(3, 2))
    frame = next(read_ticks(wide, 16))[1]
    assert frame.size == (96, 32) and frame.to_rgb().shape == (32, 96, 3)


def test_a_thumbnail_is_the_mean_of_areas(tmp_path):
    frame = next(read_ticks(write_numbered(tmp_path / "a.mp4", 1), 16))[1]
    mean = picture(0).reshape(2, 32, 2, 32, 3).mean((1, 3))
    assert np.abs(frame.to_thumbnail(2).astype(float) - mean).max() < 3


def damaged(path: Path) -> Path:
    """Overwrite a stretch in the middle of the coded pictures."""
    clip = write_clip(path, [np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8) for n in range(30)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    clip.write_bytes(data)
    return clip


def with_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_fault_is_named(tmp_path):
    whole = write_numbered(tmp_path / "whole.mp4", 20)
    faults = [
        (with_bytes(tmp_path / "cut.mp4", whole.read_bytes()[:-700]), "cut off"),
        (with_bytes(tmp_path / "half.mp4", whole.read_bytes()[: whole.stat().st_size // 2]), "cut off"),
        (write_sound(tmp_path / "sound.mp4"), "holds no video, only audio"),
        (with_bytes(tmp_path / "empty.mp4", b""), "another kind"),
        (with_bytes(tmp_path / "text.mp4", b"not a video at all" * 99), "another kind"),
        (tmp_path, "cannot be read"),
        (tmp_path / "gone.mp4", "No such file"),
    ]
    for path, reason in faults:
        with pytest.raises(ValueError, match=reason):
            list(read_ticks(path, 16))


def test_a_damaged_stretch_is_never_taken_silently(tmp_path):
    with pytest.raises(ValueError, match="damaged"):
        list(read_ticks(damaged(tmp_path / "a.mp4"), 16))


def test_a_picture_under_a_video_name_gives_one_tick(tmp_path):
    path = tmp_path / "a.mp4"
    Image.fromarray(picture(7)).save(path, format="PNG")
    assert numbers(path) == [7]


@pytest.mark.parametrize("colours", [Colours(), Colours(2, 2, 2), Colours(6, 6, 6, True), Colours(7, 7, 7), Colours(9, 9, 14)])
def test_pictures_have_the_colours_of_bt709_whatever_matrix_and_wide_primaries_the_file_has(tmp_path, colours):
    """PyAV's fast conversion to RGB is up to 3 levels off, more for dark red."""
    patches = in_primaries(PATCHES, colours.shown_primaries) if colours.wide else PATCHES
    path = patch_video(tmp_path / "a.mp4", colours, bits=10, patches=patches)
    assert usual_colours(path) == colours
    (_, found), *_ = read_pictures(path, 16, [2])
    off = np.abs(found[8::16, 8::16].reshape(-1, 3) - PATCHES).max(axis=1)
    assert off[:5].max() < 6 and off[5] < 12 if colours.wide else off.max() < 3.5  # the last patch has dark red


@pytest.mark.parametrize(("colours", "name"), [(HDR_HLG, "HDR (HLG)"), (HDR_PQ, "HDR (PQ)"), (Colours(8, 1, 1), "YCgCo")])
def test_colours_that_no_model_learns_are_refused_by_name(tmp_path, colours, name):
    path = patch_video(tmp_path / "a.mp4", Colours(9, 9, 9), bits=10)
    tagged = retag(path, tmp_path / "tagged.mp4", colours)
    with pytest.raises(ValueError) as refusal:
        usual_colours(tagged)
    assert str(refusal.value).startswith(f"has {name} colours") and "use tagged-bt709.mp4" in str(refusal.value)


@pytest.mark.parametrize(
    ("first", "words"), [(19, "nothing changes from 1.1[0-9] s to 8640[0-9]"), (8, "nothing changes from 0.4[0-9] s to 86400")]
)
def test_a_time_stamp_in_the_far_future_is_refused(tmp_path, first, words):
    """A day's gap would be 1 382 400 ticks, a stamp of 2^31 ticks a clip without end."""
    clip = write_numbered(tmp_path / "a.mkv", 20, times=[index / 16 for index in range(20)])
    late = with_late_stamps(clip, tmp_path / "late.mkv", first, DAY)
    with pytest.raises(ValueError, match=f"has damaged time stamps: {words}.*setpts=N/16"):
        for tick, _ in read_ticks(late, 16):
            assert tick < 20


def test_time_stamps_that_go_back_are_refused(tmp_path):
    """Two recordings one after the other in a transport stream."""
    clip = write_numbered(tmp_path / "a.ts", 40, codec="libx264")
    with pytest.raises(ValueError, match=r"damaged time stamps: after 2.4[0-9] s they go back to 0.00 s.*setpts=N/16"):
        list(read_ticks(with_bytes(tmp_path / "twice.ts", clip.read_bytes() * 2), 16))


def test_a_picture_may_stay_for_minutes_and_the_end_of_a_long_clip_is_read(tmp_path):
    clip = write_numbered(tmp_path / "a.mkv", 4, times=[0.0, 500.0, 1000.0, 1500.0])
    assert [number_of(frame.to_rgb()) for _, frame in read_ticks(clip, 1, 999)][:3] == [1, 2, 2]


@pytest.mark.parametrize("gop", [12, 250])
def test_an_avi_with_pictures_in_the_order_of_decoding(tmp_path, gop):
    """Its frames have the times of their decoding, in which B-frames come after later frames."""
    clip = write_numbered(tmp_path / "a.mkv", 100, codec="libx264rgb")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(clip), "-c:v", "libx264rgb", "-qp", "2"]
    subprocess.run([*command, "-bf", "3", "-b_strategy", "0", "-g", str(gop), str(tmp_path / "a.avi")], check=True)
    with av.open(str(tmp_path / "a.avi")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times != sorted(times), "B-frames are needed"
    assert numbers(tmp_path / "a.avi") == list(range(100))
    for first_tick in (47, 80):
        assert abs(numbers(tmp_path / "a.avi", first_tick=first_tick)[0] - first_tick) <= 1


def test_a_title_in_an_unknown_charset_spoils_nothing(tmp_path):
    """AVI and MKV files of older programs hold Latin-1, which is no UTF-8."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w", metadata_encoding="latin-1") as container:
        container.metadata["title"] = "Café"
        stream = container.add_stream("mpeg4", rate=16)
        stream.width = stream.height = 64
        for number in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(10 * number), format="rgb24")))
        container.mux(stream.encode(None))
    assert "Café".encode("latin-1") in path.read_bytes()
    assert len(list(read_ticks(path, 16))) == 9
    with pytest.raises(ValueError, match="has no sound"):
        require_sound(path)
