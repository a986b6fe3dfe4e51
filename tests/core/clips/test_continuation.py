import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from svi_core.clips.clip_plan import ClipPlan
from svi_core.clips.continuation import VideoStart, open_start
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.clips.video_settings import VideoSettings
from svi_core.look.drift import measure_drift
from svi_core.schedule.text import parse_schedule
from svi_core.store.records import read_manifest
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import LAYOUTS, make_layout
from svi_core.video.frame_times import count_frames
from svi_core.video.shown_frames import frame_hashes, shown_frames
from svi_core.video.source_video import probe_video, read_tail, write_beginning
from svi_core.video.video_file import VideoCoding, join_videos, read_frames
from tests.core.fakes import FakeMaker

STORY = "one\n\ntwo\n\nthree"
LAYOUT = make_layout("2.0 Pro", num_frames=9)


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def foreign_video(path, *coding, rate=16, seconds=3.0, size="32x48", sound=False):
    """Write a moving test picture as other programs do, with B-frames unless told otherwise."""
    sources = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]
    sources += ["-f", "lavfi", "-i", f"sine=duration={seconds}"] if sound else []
    ffmpeg(*sources, *(coding or ("-c:v", "libx264", "-pix_fmt", "yuv420p")), *(["-c:a", "aac"] if sound else []), path)
    return path


def run(folder, num_clips, start=None, text=STORY, layout=LAYOUT, maker=None, **settings):
    maker = maker or FakeMaker(layout, height=48, width=32)
    plan = ClipPlan(
        num_clips,
        parse_schedule(text),
        layout,
        continues=start.plan_key if start else "",
        num_clips_before=start.num_clips_made if start else 0,
    )
    before = start and open_start(start, encode_fake, maker.decode)
    with RunStore(folder) as store:
        video = GrowingVideo(store, VideoSettings(start=start, **settings))
        path, latent = make_video(plan, maker, video, before)
    return path, latent, maker


def encode_fake(frames):
    return torch.zeros(1, 16, (len(frames) - 1) // 4 + 1, 2, 2)


CODINGS = {
    "B-frames": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "3"),
    "as ours": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "0"),
    "444": ("-c:v", "libx264", "-pix_fmt", "yuv444p"),
    "h265": ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "3"),
    "full range": ("-c:v", "libx264", "-pix_fmt", "yuvj420p"),
    "bt709": (
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-colorspace",
        "bt709",
        "-color_primaries",
        "bt709",
        "-color_trc",
        "bt709",
    ),
}


@pytest.mark.parametrize("name", CODINGS)
def test_a_continued_video_keeps_every_frame(tmp_path, name):
    source = foreign_video(tmp_path / "holiday ü.mp4", *CODINGS[name])
    start = VideoStart(probe_video(source))
    path, _, _ = run(tmp_path / "run", 2, start)
    assert frame_hashes(path)[:48] == frame_hashes(source)
    assert count_frames(path) == 48 + (9 - 5) * 2 == len(list(read_frames(path)))


@pytest.mark.parametrize("name", ["B-frames", "as ours", "bt709", "full range"])
def test_the_colours_of_new_clips_are_read_like_the_video_s(tmp_path, name):
    """The same red in the source and in the new clips is the same red in a player."""
    source = foreign_video(tmp_path / "a.mp4", *CODINGS[name])
    ffmpeg("-i", source, "-vf", "drawbox=color=0xC03020:t=fill", *CODINGS[name], tmp_path / "red.mp4")
    red = next(read_frames(tmp_path / "red.mp4")).reshape(-1, 3).mean(axis=0)

    class RedMaker(FakeMaker):
        def decode(self, latent):
            for chunk in super().decode(latent):
                yield torch.tensor(red / 255).float().expand(*chunk.shape[:3], 3)

    start = VideoStart(probe_video(tmp_path / "red.mp4"))
    path, _, _ = run(tmp_path / "run", 1, start, maker=RedMaker(LAYOUT, height=48, width=32))
    frames = list(read_frames(path))
    assert np.abs(frames[-1].reshape(-1, 3).mean(axis=0) - frames[0].reshape(-1, 3).mean(axis=0)).max() < 3


def test_sound_stays_with_the_video(tmp_path):
    source = foreign_video(tmp_path / "a.mp4", sound=True)
    path, _, _ = run(tmp_path / "run", 1, VideoStart(probe_video(source), trim_end=16))
    found = probe_video(path)
    assert found.sound_codec == "aac" and found.num_frames == 32 + 4
    ffmpeg("-i", path, "-map", "0:a", tmp_path / "sound.wav")
    seconds = (tmp_path / "sound.wav").stat().st_size / (44100 * 2)
    assert 1.9 < seconds < 2.1


def test_the_end_can_be_cut_off(tmp_path):
    source = foreign_video(tmp_path / "a.mp4")
    path, _, _ = run(tmp_path / "run", 1, VideoStart(probe_video(source), trim_end=10))
    assert frame_hashes(path)[:38] == frame_hashes(source)[:38] and count_frames(path) == 38 + 4
    with pytest.raises(ValueError, match="trim_end is 48.*48 frames"):
        VideoStart(probe_video(source), trim_end=48)


@pytest.mark.parametrize(
    ("rate", "trim", "expected"),
    [(16, 0, [43, 44, 45, 46, 47]), (32, 0, [87, 89, 91, 93, 95]), (24, 2, [63, 64, 66, 67, 69]), (8, 0, [21, 21, 22, 22, 23])],
)
def test_the_tail_is_read_at_16_frames_per_second(tmp_path, rate, trim, expected):
    """Counted back from the last frame in steps of rate / 16, halves rounded up."""
    source = probe_video(foreign_video(tmp_path / "a.mp4", "-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p", rate=rate))
    frames = [frame.copy() for frame in read_frames(source.path)]
    tail = (read_tail(source, 5, trim) * 255).round().byte().numpy()
    assert all(np.array_equal(tail[i], frames[index]) for i, index in enumerate(expected))


def test_a_continued_run_is_what_the_run_would_have_been(tmp_path):
    """The last clip's latent and key come from its folder: clips 3 and 4 are those of a run of four, bit for bit."""
    whole, latent, _ = run(tmp_path / "whole", 4, text=STORY)
    first, _, _ = run(tmp_path / "first", 2, text=STORY)
    start = VideoStart(probe_video(first))
    assert start.stored_latent() is not None
    path, same, maker = run(tmp_path / "second", 2, start, text="three")  # its seeds go on after those of clips 1 and 2
    assert torch.equal(latent[0, 1], same[0, 1]) and maker.sampled == [0, 1]  # FakeMaker counts the chain in channel 1
    assert count_frames(path) == count_frames(whole)
    assert [clip.key for clip in read_manifest(path)] == [clip.key for clip in read_manifest(whole)]


def test_a_run_that_continues_itself_by_name_is_refused(tmp_path):
    first, _, _ = run(tmp_path / "first", 1, text=STORY)
    by_name = VideoStart(probe_video(first), named_folder=tmp_path / "x" / ".." / "first")
    by_name.require_another_folder(tmp_path / "second")
    with pytest.raises(ValueError, match="names the run 'first', which is this run itself.*another filename_prefix"):
        by_name.require_another_folder(tmp_path / "first")
    VideoStart(probe_video(first)).require_another_folder(tmp_path / "first")  # a link says which video: it stays the same


def test_seeds_begin_anew_after_a_video_that_no_run_made(tmp_path):
    assert VideoStart(probe_video(foreign_video(tmp_path / "a.mp4"))).num_clips_made == 0


def test_a_trimmed_run_is_continued_from_its_frames(tmp_path):
    first, _, _ = run(tmp_path / "first", 2)
    start = VideoStart(probe_video(first), trim_end=3)
    assert start.stored_latent() is None
    assert [clip.num_frames for clip in start.clips] == [9, 1] and not start.clips[-1].whole_end
    path, _, _ = run(tmp_path / "second", 1, start)
    assert [clip.num_frames for clip in read_manifest(path)] == [9, 1, 4]
    assert measure_drift(read_frames(path), [9, 1, 4])


@pytest.mark.parametrize(("seconds", "num_frames"), [(1 / 16, 1), (4 / 16, 4)])
@pytest.mark.parametrize("name", ["2.0 Pro", "Film", "Shot"])
def test_before_the_first_frame_of_a_short_video_that_frame_stands_still(tmp_path, caplog, seconds, num_frames, name):
    source = probe_video(foreign_video(tmp_path / "a.mp4", seconds=seconds))
    assert source.num_frames == num_frames
    layout, seen = make_layout(name, num_frames=9), []
    needed = layout.num_motion_frames + layout.in_latent_space
    end = open_start(VideoStart(source), lambda frames: seen.append(frames) or encode_fake(frames), None, num_frames=needed)
    true = read_tail(source, num_frames)
    motion = seen[0] if layout.in_latent_space else end.tail(layout.num_motion_frames)
    assert len(motion) == needed and torch.equal(motion[-min(needed, num_frames) :], true[-needed:])
    assert all(torch.equal(frame, true[0]) for frame in motion[: max(0, needed - num_frames)])
    assert ("stands still" in caplog.text) == (num_frames < needed)
    path, _, _ = run(tmp_path / "run", 1, VideoStart(source), layout=layout)
    assert count_frames(path) == num_frames + 9 - layout.overlap


def test_clips_after_a_video_whose_sides_are_no_multiples_of_16_have_its_size(tmp_path):
    """As 1920 x 1080: the last row and column are repeated for the model, and what is too much of a clip is not shown."""
    source = probe_video(foreign_video(tmp_path / "a.mp4", size="30x44"))
    start, seen = VideoStart(source), []
    assert start.clip_size == (32, 48)
    frames = open_start(start, lambda frames: seen.append(frames) or encode_fake(frames), None).frames
    assert seen[0].shape[1:] == (48, 32, 3) and torch.equal(frames[:, :44, :30], read_tail(source, 81))
    assert torch.equal(frames[:, 44:], frames[:, 43:44].expand(-1, 4, -1, -1)) and torch.equal(
        frames[:, :, 31], frames[:, :, 29]
    )

    class CornerMaker(FakeMaker):
        def decode(self, latent):
            for chunk in super().decode(latent):
                marked = chunk.clone()
                marked[:, :8, :8], marked[:, 44:], marked[:, :, 30:] = 1.0, 1.0, 1.0
                yield marked

    path, _, _ = run(tmp_path / "run", 2, start, maker=CornerMaker(LAYOUT, height=48, width=32))
    shown = list(read_frames(path))
    assert frame_hashes(path)[:48] == frame_hashes(source.path) and {frame.shape for frame in shown} == {(44, 30, 3)}
    assert shown[-1][4, 4].min() > 200 and shown[-1][-8:].max() < 120 and shown[-1][:, -8:].max() < 120
    again, _, _ = run(tmp_path / "again", 1, VideoStart(probe_video(path)), maker=CornerMaker(LAYOUT, height=48, width=32))
    assert frame_hashes(again)[: len(shown)] == frame_hashes(path) and probe_video(again).height == 44


@pytest.mark.parametrize("suffix", ["mkv", "ts", "webm"])
def test_a_video_that_is_cut_off_is_continued_after_the_frames_that_are_left(tmp_path, suffix):
    coder = ("-c:v", "libvpx-vp9" if suffix == "webm" else "libx264", "-pix_fmt", "yuv420p")
    whole = foreign_video(tmp_path / f"a.{suffix}", *coder)
    (tmp_path / f"cut.{suffix}").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    source = probe_video(tmp_path / f"cut.{suffix}")
    assert 5 < source.num_frames == count_frames(source.path, decode=True) < 48
    path, _, _ = run(tmp_path / "run", 1, VideoStart(source))
    hashes = frame_hashes(path)
    assert hashes[: source.num_frames] == frame_hashes(source.path) and len(hashes) == source.num_frames + 4


def test_an_mp4_without_its_index_is_named(tmp_path):
    whole = foreign_video(tmp_path / "a.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(OSError, match="cut.mp4 is not a video.*it is cut off, damaged, or of another kind"):
        probe_video(tmp_path / "cut.mp4")


def test_a_video_with_an_odd_side_is_refused_with_the_size_to_take(tmp_path):
    source = probe_video(foreign_video(tmp_path / "a.webm", "-c:v", "libvpx-vp9", "-vf", "scale=31:48,format=yuv420p"))
    with pytest.raises(ValueError, match="a.webm has 31 x 48 pixels.*crop or scale it to 30 x 48"):
        VideoStart(source)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00" * 4096])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(OSError, match="bad.mp4 is not a video"):
        probe_video(path)


def test_a_video_whose_frames_cannot_be_kept_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    source = probe_video(foreign_video(tmp_path / "a.mp4"))

    def changed(*_, **__):
        raise OSError("its frames would change")

    monkeypatch.setattr("svi_core.video.source_video._require_good_join", changed)
    with pytest.raises(OSError, match="cannot begin a h264 video with its frames unchanged"):
        write_beginning(tmp_path / "begin.mp4", source, 10, VideoCoding())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_begins_after_the_shared_frames(tmp_path, name):
    layout = make_layout(name, num_frames=13)
    source = foreign_video(tmp_path / "a.mp4")
    path, _, _ = run(tmp_path / "run", 2, VideoStart(probe_video(source)), layout=layout)
    assert count_frames(path) == 48 + 2 * (13 - layout.overlap)


def test_words_in_a_prompt_are_not_taken_for_ffmpeg_s(tmp_path):
    source = foreign_video(tmp_path / "a.mp4", seconds=0.5)
    words = "rotation of 90 degrees\nStream #0:0: Video: h264, yuv420p, 8x8, 99 fps\nDuration: 09:00:00.00"
    join_videos(tmp_path / "b.mp4", [source], 8, {"prompt": words})
    found = probe_video(tmp_path / "b.mp4")
    assert (found.width, found.height, found.rotated, found.frame_rate) == (32, 48, False, 16)
    assert shown_frames(tmp_path / "b.mp4").end == pytest.approx(0.5, abs=0.1)
    ffmpeg("-display_rotation", "90", "-i", source, "-c", "copy", tmp_path / "turned.mp4")
    turned = probe_video(tmp_path / "turned.mp4")
    assert turned.rotated and (turned.width, turned.height) == (48, 32)


def test_somebody_else_s_json_beside_a_video_is_left_alone(tmp_path):
    source = foreign_video(tmp_path / "a.mp4", seconds=0.5)
    (tmp_path / "run.json").write_text('{"a": 1}')
    (tmp_path / "a.json").write_text("[1, 2]")
    assert VideoStart(probe_video(source)).is_foreign


def test_an_earlier_take_still_goes_on_from_its_latent(tmp_path):
    first, _, _ = run(tmp_path / "run", 2)
    run(tmp_path / "run", 2, text="another\n\nstory")
    assert not VideoStart(probe_video(first)).is_foreign


def test_an_h265_video_whose_headers_differ_is_never_followed_by_clips_that_players_misread(tmp_path):
    """Joined H.265 has one set of headers. Those of another encoder's settings turned the new clips into noise."""
    source = foreign_video(
        tmp_path / "a.mp4", "-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "qp=20:log-level=error"
    )
    with pytest.raises(OSError, match="cannot begin a h265 video.*choose h264 in SVI Output"):
        write_beginning(tmp_path / "begin.mp4", probe_video(source), 48, VideoCoding("h265"))
    path, _, _ = run(tmp_path / "run", 1, VideoStart(probe_video(source)))
    grey = list(read_frames(path))[-1]
    assert frame_hashes(path)[:48] == frame_hashes(source) and np.ptp(grey.reshape(-1, 3), axis=0).max() <= 2
