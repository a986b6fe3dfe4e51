"""Videos of others, damaged a little: an answer or a sentence that names the file, in bounded time, and no frame twice read."""

import shutil

import pytest
from hypothesis import strategies as st

from svi_core.video.shown_frames import shown_frames
from svi_core.video.source_video import probe_video, read_tail
from tests.fuzz.campaign import require_sentence
from tests.fuzz.damage import DAMAGES
from tests.training.synthetic_clips import write_numbered, write_sound
from training.data.scan import scan_clip
from training.data.video_reading import read_pictures

KINDS = ("short.mp4", "late.mp4", "mpeg4.avi", "long.mkv", "one.mp4", "sound.mp4")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, bytes]:
    """Sound files of a few kilobytes each."""
    folder = tmp_path_factory.mktemp("videos")
    write_numbered(folder / "short.mp4", 12)
    write_numbered(folder / "late.mp4", 10, times=[2 + number / 7 for number in range(10)])
    write_numbered(folder / "mpeg4.avi", 9, 25, codec="mpeg4")
    write_numbered(folder / "long.mkv", 40, codec="ffv1", width=32, height=32)
    write_numbered(folder / "one.mp4", 1)
    write_sound(folder / "sound.mp4")
    return {kind: (folder / kind).read_bytes() for kind in KINDS}


def test_videos(campaign, sources, tmp_path):
    examples = st.tuples(st.sampled_from(KINDS), st.lists(DAMAGES, max_size=3), st.integers(0, 20))

    def check(example: tuple) -> str:
        kind, damages, trim = example
        data = sources[kind]
        for damage in damages:
            data = damage.done_to(data)
        shutil.rmtree(tmp_path / "room", ignore_errors=True)
        path = tmp_path / "room" / kind
        path.parent.mkdir()
        path.write_bytes(data)
        found = [_tried(read, path) for read in (_continued(trim), _shown, _scanned, _pictured)]
        assert [entry.name for entry in path.parent.iterdir()] == [kind] and path.read_bytes() == data
        return "refused" if not any(found) else "read" if all(found) else "read in part"

    assert campaign.run("videos", examples, check, {"read", "refused", "read in part"}, batch=100, limit=30)


def _tried(read, path) -> bool:
    try:
        read(path)
    except (ValueError, OSError) as error:
        require_sentence(error, *([] if read in (_scanned, _pictured) else [path.name]))  # the trainer's lists name the file
        return False
    return True


def _continued(trim: int):
    def read(path) -> None:
        source = probe_video(path)
        assert source.num_frames == len(source.shown.times) > 0 and source.width > 0 and source.height > 0
        if trim < source.num_frames:
            assert 0 < len(read_tail(source, 5, trim)) <= 5

    return read


def _shown(path) -> None:
    shown = shown_frames(path)
    assert 0 <= shown.times[0] and shown.times[-1] < shown.end < 20_000 and list(shown.times) == sorted(set(shown.times)), shown


def _scanned(path) -> None:
    scan = scan_clip(path, 16.0)
    assert 0 <= scan.lead_in <= scan.num_frames < 20_000, scan


def _pictured(path) -> None:
    assert len(list(read_pictures(path, 16.0, [0, 1, 3]))) == 3
