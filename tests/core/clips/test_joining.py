import numpy as np
import pytest

from svi_core.clips.joining import Joint, Piece, join_into_folder, write_joint
from svi_core.store.records import read_manifest
from svi_core.video.frame_times import count_frames
from svi_core.video.kept_frames import keep_frames
from svi_core.video.seams import Seam
from svi_core.video.shown_frames import frame_hashes, shown_frames
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from tests.core.clips.test_continuation import CODINGS, ffmpeg, foreign_video

LOSSLESS = VideoCoding(crf=0, pixel_format="yuv444p")


def grey_video(path, levels):
    write_video(path, [np.full((1, 16, 16, 3), level, np.uint8) for level in levels], LOSSLESS)
    return probe_video(path)


def levels(path):
    return [round(float(frame.mean())) for frame in read_frames(path)]


@pytest.fixture
def pair(tmp_path):
    return grey_video(tmp_path / "a ü.mp4", [10, 20, 30, 40]), grey_video(tmp_path / "b.mp4", [100, 110, 120, 130])


def joined(tmp_path, joint):
    copied = write_joint(tmp_path / "joined.mp4", joint, LOSSLESS, {"workflow": {"a": 1}})
    assert count_frames(tmp_path / "joined.mp4") == joint.num_frames
    assert {path.name for path in tmp_path.glob("*.m*")} == {"a ü.mp4", "b.mp4", "joined.mp4"}
    return copied, levels(tmp_path / "joined.mp4")


def test_whole_videos_are_copied(tmp_path, pair):
    copied, found = joined(tmp_path, Joint(*map(Piece, pair)))
    assert copied and found == pytest.approx([10, 20, 30, 40, 100, 110, 120, 130], abs=1)
    assert list(frame_hashes(tmp_path / "joined.mp4")) == [h for source in pair for h in frame_hashes(source.path)]


def test_two_videos_in_memory_are_coded_once_and_as_asked(tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(8, 32, 64, 3), dtype=np.uint8)
    first, second = (keep_frames(tmp_path, lambda part=part: [part], 16.0, None) for part in (frames[:4], frames[4:]))
    path = tmp_path / "joined.mp4"
    assert not write_joint(path, Joint(Piece(first), Piece(second)), VideoCoding(crf=0, pixel_format="yuv444p"), {})
    distance = np.abs(np.stack(list(read_frames(path))).astype(int) - frames)
    assert distance.max() <= 3 and probe_video(path).pixel_format == "yuv444p", "no 4:2:0 in between"


def test_trims_and_a_cross_fade_by_hand(tmp_path, pair):
    """40 cut off, 100 cut off; the fade of two frames: (2 * 20 + 110) / 3 and (30 + 2 * 120) / 3."""
    joint = Joint(Piece(pair[0], 0, 1), Piece(pair[1], 1, 0), Seam.LINEAR, 2)
    copied, found = joined(tmp_path, joint)
    assert not copied and found == pytest.approx([10, 50, 90, 130], abs=1)


def test_videos_of_different_codecs_are_encoded_anew(tmp_path, pair):
    ffmpeg("-i", pair[1].path, *CODINGS["mpeg4"], tmp_path / "c.mp4")
    joint = Joint(Piece(pair[0]), Piece(probe_video(tmp_path / "c.mp4")))
    assert not write_joint(tmp_path / "joined.mp4", joint, VideoCoding(), {})
    assert levels(tmp_path / "joined.mp4") == pytest.approx([10, 20, 30, 40, 100, 110, 120, 130], abs=4)


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_sound_is_joined_and_silence_filled_in(tmp_path, first, second):
    a = foreign_video(tmp_path / "a.mp4", sound=first, seconds=1.0)
    b = foreign_video(tmp_path / "b.mp4", sound=second, seconds=2.0)
    write_joint(tmp_path / "j.mp4", Joint(Piece(probe_video(a)), Piece(probe_video(b), 8)), VideoCoding(), {})
    assert probe_video(tmp_path / "j.mp4").sound_codec == "aac"
    ffmpeg("-i", tmp_path / "j.mp4", "-map", "0:a", "-ac", "1", "-ar", "8000", tmp_path / "j.wav")
    samples = np.frombuffer((tmp_path / "j.wav").read_bytes()[78:], np.int16)[: 8000 * 5 // 2]
    loud = [np.abs(part.astype(int)).max() > 200 for part in (samples[1000:7000], samples[9000:19000])]
    assert loud == [first, second] and abs(len(samples) - 20000) < 1500


def test_different_sizes_and_too_much_trimming_are_refused(tmp_path, pair):
    other = probe_video(foreign_video(tmp_path / "c.mp4", size="32x16"))
    with pytest.raises(ValueError, match=r"a ü.mp4 \(16 x 16\) and c.mp4 \(32 x 16\) pixels"):
        Joint(Piece(pair[0]), Piece(other))
    with pytest.raises(ValueError, match=r"blend_frames is 5, but the pieces have 4 and 4 frames \(0.25 s and 0.25 s\)"):
        Joint(Piece(pair[0]), Piece(pair[1]), Seam.LINEAR, 5)
    fast = probe_video(foreign_video(tmp_path / "d.mp4", size="16x16", rate=80, seconds=0.1))
    with pytest.raises(ValueError, match=r"blend_frames is 2, but the pieces have 4 and 8 frames \(0.25 s and 0.10 s\)"):
        Joint(Piece(pair[0]), Piece(fast), Seam.LINEAR, 2)
    with pytest.raises(ValueError, match="4 frames, of which 3 are cut off its start and 1 off its end: keep some"):
        Piece(pair[0], 3, 1)


def test_a_joint_in_a_folder_says_what_it_consists_of(tmp_path, pair):
    joint = Joint(Piece(pair[0], 0, 1), Piece(pair[1]), Seam.EASED, 2)
    path = join_into_folder(tmp_path / "joined", joint, VideoCoding(), {})
    assert [clip.num_frames for clip in read_manifest(path)] == [3, 2] and sum([3, 2]) == joint.num_frames
    other = join_into_folder(tmp_path / "joined", Joint(Piece(pair[0]), Piece(pair[1])), VideoCoding(), {})
    assert other != path and path.exists() and len(read_manifest(path)) == len(read_manifest(other)) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 2), (2, 0)])
def test_a_copied_join_plays_as_long_as_its_parts(tmp_path, order):
    """Files of other programs have other time bases; copied as they are, one part would play at the wrong speed."""
    foreign_video(tmp_path / "plain.mp4", *CODINGS["bt709"], "-bf", "0", seconds=1.0)
    write_video(tmp_path / "ours.mp4", [np.full((16, 48, 32, 3), 90, np.uint8)], VideoCoding())
    foreign_video(tmp_path / "foreign.mp4", *CODINGS["bt709"], seconds=1.0)
    paths = [tmp_path / f"{name}.mp4" for name in ("ours", "foreign", "plain")]
    pieces = [Piece(probe_video(paths[index])) for index in order]
    copied = write_joint(tmp_path / "joined.mp4", Joint(*pieces), VideoCoding(), {})
    assert shown_frames(tmp_path / "joined.mp4").end == pytest.approx(2.0, abs=0.13)
    assert probe_video(tmp_path / "joined.mp4").frame_rate == pytest.approx(16, abs=1.2)
    hashes = [h for piece in pieces for h in frame_hashes(piece.source.path)]
    assert (list(frame_hashes(tmp_path / "joined.mp4")) == hashes) == copied


def test_an_odd_size_is_refused_where_the_coding_cannot_have_it(tmp_path):
    coder = ("-c:v", "libvpx-vp9", "-vf", "scale=31:48,format=yuv420p")
    pieces = [Piece(probe_video(foreign_video(tmp_path / name, *coder, seconds=0.5))) for name in ("a.webm", "b.webm")]
    joint = Joint(pieces[0], Piece(pieces[1].source, 1))
    with pytest.raises(ValueError, match="a.webm has 31 x 48 pixels, but yuv420p takes even sizes only: choose yuv444p"):
        write_joint(tmp_path / "joined.mp4", joint, VideoCoding(), {})
    assert not write_joint(tmp_path / "joined.mp4", joint, VideoCoding(pixel_format="yuv444p"), {})
    assert count_frames(tmp_path / "joined.mp4") == 15 and probe_video(tmp_path / "joined.mp4").width == 31
