"""Colours of continued and joined videos, decoded by PyAV and converted to RGB by this file's own arithmetic."""

import shlex
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from svi_core.clips.continuation import VideoStart
from svi_core.clips.joining import Joint, Piece, write_joint
from svi_core.systems.layouts import make_layout
from svi_core.video.colour_tags import Colours, with_primaries
from svi_core.video.seams import Seam
from svi_core.video.source_video import probe_video, read_tail
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from tests.core.clips.test_continuation import run
from tests.core.fakes import FakeMaker

PATCHES = np.array([[192, 48, 32], [40, 150, 60], [50, 60, 190], [128, 128, 128], [235, 200, 40], [16, 120, 130]], np.float64)
WEIGHTS = {  # of red and blue in luma, by the matrix; ffmpeg takes an unknown one for BT.601
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
X264 = ("-c:v", "libx264", "-qp", "4")
X265 = ("-c:v", "libx265", "-preset", "medium", "-crf", "4", "-bf", "0", "-x265-params", "log-level=error:bframes=0")
HDR_HLG, HDR_PQ = Colours(9, 9, 18), Colours(9, 9, 16)


def to_yuv(rgb, colours, bits):
    """Return luma and chroma [n, 3] of `rgb` [n, 3] in 0 .. 255."""
    red, blue = WEIGHTS[colours.matrix]
    r, g, b = rgb.T / 255.0
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scale = 2 ** (bits - 8)
    if colours.full_range:
        luma, chroma = y * (2**bits - 1), np.stack([cb, cr]) * (2**bits - 1)
    else:
        luma, chroma = (16 + 219 * y) * scale, np.stack([cb, cr]) * 224 * scale
    return np.rint(np.stack([luma, *(chroma + 128 * scale)], axis=1))


def to_rgb(yuv, colours, bits):
    """Undo :func:`to_yuv`."""
    red, blue = WEIGHTS[colours.matrix]
    scale = 2 ** (bits - 8)
    centred = yuv - 128 * scale
    if colours.full_range:
        y, cb, cr = yuv[:, 0] / (2**bits - 1), centred[:, 1] / (2**bits - 1), centred[:, 2] / (2**bits - 1)
    else:
        y, cb, cr = (yuv[:, 0] / scale - 16) / 219, centred[:, 1] / scale / 224, centred[:, 2] / scale / 224
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return 255.0 * np.stack([r, g, b], axis=1)


def patch_video(path, colours, coder=X264, bits=8, num_frames=8, patches=PATCHES):
    """Write a video of six patches, 32 x 48 pixels, whose luma and chroma this file computes."""
    planes = to_yuv(patches, colours, bits).reshape(3, 2, 3).transpose(2, 0, 1)  # three rows of two patches, 16 x 16 each
    form = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    large = [np.kron(plane, np.ones((side, side))) for plane, side in zip(planes, (16, 8, 8), strict=True)]
    raw = b"".join(plane.astype("u1" if bits == 8 else "<u2").tobytes() for plane in large) * num_frames
    declared = f"colorspace={colours.matrix}:color_primaries={colours.primaries}:color_trc={colours.transfer}"
    extent = "pc" if colours.full_range else "tv"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-y",
        "-v",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        form,
        "-s",
        "32x48",
        "-r",
        "16",
    ]
    command += ["-i", "-", "-vf", f"setparams=range={extent}:{declared}", *coder, "-pix_fmt", form, str(path)]
    subprocess.run(command, input=raw, check=True)
    return path


def retag(path, target, colours):
    """Copy the H.264 or H.265 video `path` to `target` with other declared colours."""
    kind = {"h264": "h264", "hevc": "hevc"}[probe_video(path).codec]
    declared = f"colour_primaries={colours.primaries}:transfer_characteristics={colours.transfer}"
    bits = f"{kind}_metadata=video_full_range_flag={int(colours.full_range)}:{declared}:matrix_coefficients={colours.matrix}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-c", "copy", "-bsf:v", bits, str(target)]
    subprocess.run(command, check=True)
    return target


def decoded(path, bits=8):
    """Return PyAV's luma and chroma of the middle of each patch in every frame [T, 6, 3], and all sets of colours it saw."""
    values, seen = [], set()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planes = []
            for plane, side in zip(frame.planes, (16, 8, 8), strict=True):
                kind = np.uint8 if bits == 8 else np.uint16
                picture = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].astype(float)
                planes.append(picture[side // 2 :: side, side // 2 :: side].reshape(-1))
            values.append(np.stack(planes, axis=1))
            seen.add((int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), int(frame.color_range) == 2))
    return np.stack(values), seen


class PatchMaker(FakeMaker):
    """A model that shows what it saw: the patches of the source's last frame."""

    def __init__(self, picture):
        super().__init__(make_layout("2.0 Pro", num_frames=9), height=48, width=32)
        self.picture = picture

    def decode(self, latent):
        for chunk in super().decode(latent):
            yield self.picture.expand(*chunk.shape)


@pytest.mark.parametrize(
    "colours",
    [
        Colours(1, 1, 1),
        Colours(2, 2, 2),
        Colours(2, 1, 1),
        Colours(1, 2, 2),
        Colours(4, 4, 4),
        Colours(5, 5, 6),
        Colours(6, 6, 6, True),
        Colours(7, 7, 7),
        Colours(9, 9, 14),
        Colours(9, 9, 1, True),
        Colours(1, 12, 13),
    ],
    ids=lambda colours: colours.tag.strip("-") or "bt709",
)
@pytest.mark.parametrize(("coder", "codec", "bits"), [(X264, "h264", 8), (X265, "h264", 10), (X265, "h265", 10)])
def test_known_patches_arrive_on_both_sides_of_the_seam(tmp_path, colours, coder, codec, bits):
    """ffmpeg's fast conversion to RGB, on whose bits clip keys depend, is up to 3 levels off; what is written is not."""
    source = probe_video(patch_video(tmp_path / "a.mp4", colours, coder, bits))
    assert source.colours == colours
    start = VideoStart(source)
    tail = read_tail(source, 1)
    shown = tail[0, 8::16, 8::16].reshape(-1, 3).numpy() * 255
    assert np.abs(shown - PATCHES).max() < 3.5
    maker = PatchMaker(tail)
    path, _, _ = run(tmp_path / "run", 1, start, maker=maker, layout=maker.layout, coding=VideoCoding(codec, crf=4))
    values, seen = decoded(path, bits)
    assert seen == {(colours.matrix, colours.primaries, colours.transfer, colours.full_range)}
    assert len(values) == 8 + 4
    for index, yuv in enumerate(values):
        assert np.abs(to_rgb(yuv, colours, bits) - (PATCHES if index < 8 else shown)).max() <= (2 if bits == 10 else 2.6)


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mov"])
def test_colours_that_only_the_container_declares_are_carried(tmp_path, suffix):
    colours = Colours(9, 9, 14)
    coder = {
        "webm": ("-c:v", "libvpx-vp9", "-lossless", "1"),
        "mkv": ("-c:v", "ffv1"),
        "mov": ("-c:v", "mpeg4", "-q:v", "1"),
    }[suffix]
    source = probe_video(patch_video(tmp_path / f"a.{suffix}", colours, coder))
    assert source.colours == colours
    tail = read_tail(source, 1)
    path, _, _ = run(tmp_path / "run", 1, VideoStart(source), maker=PatchMaker(tail), coding=VideoCoding(crf=4))
    values, seen = decoded(path)
    assert seen == {(9, 9, 14, False)} and len(values) == 8 + 4
    assert np.abs(to_rgb(values[0], colours, 8) - PATCHES).max() <= 3
    assert np.abs(to_rgb(values[-1], colours, 8) - tail[0, 8::16, 8::16].reshape(-1, 3).numpy() * 255).max() <= 2.6


def test_tags_of_colours_differ_and_those_of_earlier_files_stay():
    names = {
        colours.tag
        for colours in (Colours(9, 9, 14), Colours(9, 9, 1), Colours(9, 9, 1, True), Colours(2, 1, 1), Colours(5, 5, 6))
    }
    assert len(names) == 5
    kept = [VideoCoding().tag, VideoCoding(colours=Colours(2, 2, 2)).tag, VideoCoding(colours=Colours(6, 6, 6, True)).tag]
    assert kept == ["h264-yuv420p-crf18", "h264-yuv420p-crf18-unspecified", "h264-yuv420p-crf18-bt601-full"]


@pytest.mark.parametrize(
    ("colours", "name"),
    [
        (HDR_HLG, "HDR (HLG)"),
        (HDR_PQ, "HDR (PQ)"),
        (Colours(2, 2, 16), "HDR (PQ)"),
        (Colours(1, 1, 8), "linear"),
        (Colours(1, 1, 9, True), "logarithmic"),
        (Colours(8, 2, 2), "YCgCo"),
        (Colours(10, 9, 14), "BT.2020 constant luminance"),
    ],
)
def test_other_colours_are_refused_with_a_command_that_works(tmp_path, colours, name):
    coded = Colours(9 if colours.matrix in (8, 10) else colours.matrix, 9, 9, colours.full_range)  # for this file's arithmetic
    path = patch_video(tmp_path / "my clip.mov", coded, ("-c:v", "libx265", "-x265-params", "log-level=error"), 10)
    tagged = retag(path, path.with_name("my tagged clip.mov"), colours)
    source = probe_video(tagged)
    assert source.colours == colours
    with pytest.raises(ValueError) as refusal:
        VideoStart(source)
    first, command = str(refusal.value).splitlines()
    assert first.startswith(f"my tagged clip.mov has {name} colours") and first.endswith("then use my tagged clip-bt709.mp4.")
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    converted = probe_video(tmp_path / "my tagged clip-bt709.mp4")
    assert converted.colours == Colours() and converted.num_frames == 8 and VideoStart(converted)
    grey = next(read_frames(converted.path))[24, 24].astype(int)
    assert grey.max() - grey.min() <= 6 and 20 < grey.mean() < 235


def test_hdr_is_not_joined_anew_but_copied_whole(tmp_path):
    first, second = (Piece(probe_video(patch_video(tmp_path / name, HDR_HLG, bits=10))) for name in ("a.mp4", "b.mp4"))
    assert write_joint(tmp_path / "joined.mp4", Joint(first, second), VideoCoding(), {})
    assert decoded(tmp_path / "joined.mp4", 10)[1] == {(9, 9, 18, False)}
    with pytest.raises(ValueError, match=r"b.mp4 has HDR \(HLG\) colours"):
        Joint(first, second, Seam.LINEAR, 2)
    ordinary = Piece(probe_video(patch_video(tmp_path / "c.mp4", Colours(), bits=10)))
    for joint in (Joint(first, ordinary), Joint(ordinary, first)):
        with pytest.raises(ValueError, match=r"a.mp4 has HDR \(HLG\) colours.*\n.*tonemap"):
            write_joint(tmp_path / "joined.mp4", joint, VideoCoding(), {})


@pytest.mark.parametrize(
    ("first", "second"),
    [(Colours(), Colours(9, 9, 14)), (Colours(9, 9, 14), Colours()), (Colours(6, 6, 6, True), Colours(2, 2, 2))],
)
def test_a_join_converts_the_second_video_to_the_colours_of_the_first(tmp_path, first, second):
    """The patches are the same light in both files. ffmpeg's conversion to RGB is up to 3 levels off, more for dark red."""
    pieces = []
    for number, colours in enumerate((first, second)):
        path = patch_video(tmp_path / f"{number}.mp4", colours, patches=in_primaries(PATCHES, colours.shown_primaries))
        pieces.append(Piece(probe_video(path)))
    assert not write_joint(tmp_path / "joined.mp4", Joint(*pieces), VideoCoding(crf=4), {})
    values, seen = decoded(tmp_path / "joined.mp4")
    assert seen == {(first.matrix, first.primaries, first.transfer, first.full_range)} and len(values) == 16
    for yuv in values:
        assert np.abs(to_rgb(yuv, first, 8) - in_primaries(PATCHES, first.shown_primaries)).max() < 6


def in_primaries(rgb, primaries):
    """Return `rgb` [n, 3] of BT.709 in other primaries, with the published matrices of linear RGB."""
    matrix = {
        1: np.eye(3),
        9: [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]],  # ITU-R BT.2087
        6: [[1.0654, -0.0554, -0.0100], [-0.0196, 1.0364, -0.0167], [0.0016, 0.0044, 0.9940]],  # of the standards' x and y,
    }[primaries]
    return 255.0 * ((rgb / 255.0) ** 2.4 @ np.array(matrix).T).clip(0, 1) ** (1 / 2.4)


def test_white_stays_white_and_colours_come_back():
    greys = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    for primaries in (5, 6, 7, 9, 12):
        other = Colours(1, primaries, 1)
        assert np.array_equal(with_primaries(greys, Colours(), other), greys)
    back = with_primaries(with_primaries(PATCHES.astype(np.uint8), Colours(), Colours(9, 9, 14)), Colours(9, 9, 14), Colours())
    assert np.abs(back.astype(int) - PATCHES).max() <= 2


def test_rgb_is_joined_as_bt709_and_not_continued(tmp_path):
    picture = np.broadcast_to(np.uint8([192, 48, 32]), (4, 48, 32, 3))
    write_video(tmp_path / "a.mp4", [picture], VideoCoding(crf=0, pixel_format="yuv444p"))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(tmp_path / "a.mp4"), "-c:v", "libx264rgb", "-qp", "0"]
    subprocess.run([*command, str(tmp_path / "rgb.mp4")], check=True)
    source = probe_video(tmp_path / "rgb.mp4")
    with pytest.raises(ValueError, match="rgb.mp4 has RGB colours") as refusal:
        VideoStart(source)
    subprocess.run(shlex.split(str(refusal.value).splitlines()[1]), check=True, capture_output=True)
    for path in (tmp_path / "rgb-bt709.mp4", tmp_path / "joined.mp4"):
        if path.name == "joined.mp4":
            write_joint(path, Joint(Piece(source), Piece(probe_video(tmp_path / "a.mp4"))), VideoCoding(crf=4), {})
        assert probe_video(path).colours == Colours()
        assert all(np.abs(frame.reshape(-1, 3).mean(axis=0) - [192, 48, 32]).max() <= 2 for frame in read_frames(path))


def test_the_frames_that_condition_a_clip_have_the_values_of_the_file(tmp_path):
    colours = Colours(9, 9, 14)
    source = probe_video(patch_video(tmp_path / "a.mp4", colours))
    middle = read_tail(source, 1)[0, 8::16, 8::16].reshape(-1, 3)
    assert (middle * 255 - torch.from_numpy(PATCHES)).abs().max() <= 2
