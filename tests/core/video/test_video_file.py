import imageio_ffmpeg
import numpy as np
import pytest
import torch

from svi_core.video import video_file
from svi_core.video.frame_times import count_frames
from svi_core.video.video_file import VideoCoding, join_videos, read_frames, to_uint8, write_video

CODING = VideoCoding()


def moving_ramp(num_frames, start=0, height=32, width=48):
    """Frames whose grey level tells their place in the video."""
    levels = (np.arange(start, start + num_frames) * 5 % 200 + 20).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def decode(path):
    return np.stack(list(read_frames(path)))


@pytest.mark.parametrize("coding", [CODING, VideoCoding("h265"), VideoCoding("h264", 10, "yuv444p")], ids=lambda c: c.tag)
def test_joined_clips_show_every_frame_in_its_place(tmp_path, coding):
    segments, total = [], 0
    for index, length in enumerate((9, 4, 1, 7)):
        segments.append(tmp_path / f"{index}.mp4")
        written = write_video(segments[-1], np.array_split(moving_ramp(length, total), 3), coding)
        assert written.num_frames == length == count_frames(segments[-1])
        total += length
    join_videos(tmp_path / "all.mp4", segments, total)
    frames = decode(tmp_path / "all.mp4")
    assert np.abs(frames.mean((1, 2, 3)) - moving_ramp(total).mean((1, 2, 3))).max() < 3
    assert np.array_equal(frames, np.concatenate([decode(path) for path in segments]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "all.mp4"]


def test_file_plays_everywhere(tmp_path):
    write_video(tmp_path / "a.mp4", [moving_ramp(8)], CODING)
    meta = next(imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4")))
    assert meta["fps"] == 16 and meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")


def test_colours_survive(tmp_path):
    colours = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 200]], np.uint8)
    frames = np.repeat(np.repeat(colours, 16, 0)[None, None], 32, 1).repeat(4, 0)
    write_video(tmp_path / "a.mp4", [frames], CODING)
    decoded = decode(tmp_path / "a.mp4")
    for index, colour in enumerate(colours):
        assert np.abs(decoded[2, 16, index * 16 + 8].astype(int) - colour).max() <= 12


def test_hash_is_of_the_frames_and_not_of_their_chunks(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)
    one = write_video(tmp_path / "a.mp4", [frames], CODING)
    many = write_video(tmp_path / "b.mp4", np.array_split(frames, 5), CODING)
    other = write_video(tmp_path / "c.mp4", [frames[::-1]], CODING)
    assert one == many and one.sha256 != other.sha256


def test_workflow_is_embedded_and_survives_odd_characters(tmp_path):
    write_video(tmp_path / "a.mp4", [moving_ramp(3)], CODING)
    workflow = {"nodes": [{"text": "a=b; c#d \\ 'quoted' \"x\"\nnew line, ü 文"}], "long": "x" * 200_000}
    join_videos(tmp_path / "b.mp4", [tmp_path / "a.mp4"], 3, {"workflow": workflow, "prompt": None or {}})
    import json

    import av

    with av.open(str(tmp_path / "b.mp4")) as container:
        assert json.loads(container.metadata["workflow"]) == workflow


def test_paths_with_quotes_and_spaces(tmp_path):
    folder = tmp_path / "it's a 'path' ü"
    folder.mkdir()
    write_video(folder / "a.mp4", [moving_ramp(3)], CODING)
    join_videos(folder / "all.mp4", [folder / "a.mp4", folder / "a.mp4"], 6)
    assert count_frames(folder / "all.mp4") == 6


def test_a_short_file_is_never_moved_into_place(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "count_frames", lambda path, decode=False: 4)
    with pytest.raises(OSError, match="holds 4 frames instead of 5"):
        write_video(tmp_path / "a.mp4", [moving_ramp(5)], CODING)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_encoder_is_told_with_the_path_and_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"old")
    monkeypatch.setitem(video_file.CODECS, "h264", "no_such_encoder")
    with pytest.raises(OSError, match=f"ffmpeg could not write {tmp_path}.*check free space"):
        write_video(tmp_path / "a.mp4", (moving_ramp(8) for _ in range(40)), CODING)
    assert (tmp_path / "a.mp4").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("num_chunks", range(1, 8))
def test_an_encoder_that_dies_is_never_waited_for(tmp_path, monkeypatch, num_chunks):
    """However much is written when ffmpeg exits, the error comes and nothing hangs."""
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(OSError, match="could not write"):
        write_video(tmp_path / "a.mp4", [moving_ramp(8, height=256, width=256)] * num_chunks, CODING)


def test_a_failing_source_of_frames_stops_the_encoder(tmp_path):
    def chunks():
        yield moving_ramp(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", chunks(), CODING)
    assert list(tmp_path.iterdir()) == []


def test_no_frames_and_missing_segments_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "a.mp4", [], CODING)
    with pytest.raises(OSError, match="could not write"):
        join_videos(tmp_path / "b.mp4", [tmp_path / "gone.mp4"], 3)


@pytest.mark.parametrize(
    ("values", "words"), [(("vp9",), "codec is"), (("h264", 60), "crf is 60"), (("h264", 18, "rgb24"), "pixel_format is")]
)
def test_senseless_coding_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        VideoCoding(*values)


def test_to_uint8_rounds_and_clips():
    frames = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 254.4 / 255, 1.0, 2.0])
    assert to_uint8(frames).tolist() == [0, 0, 0, 1, 254, 255, 255]
