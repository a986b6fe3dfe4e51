"""Damage each file of a run folder, then run again: the result is bit for bit the undamaged one, and nothing else is lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from svi_core.clips.clip_plan import ClipPlan
from svi_core.clips.continuation import VideoStart, open_start
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.clips.video_settings import VideoSettings
from svi_core.schedule.text import parse_schedule
from svi_core.store.keep_marks import set_keep
from svi_core.store.records import read_last_video, read_manifest, require_unchanged
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import make_layout
from svi_core.video.sound import SoundTrack
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, write_video
from tests.core.fakes import FakeMaker

LAYOUT = make_layout("2.0 Pro", num_frames=9)
FILES = 16  # of a finished run of two clips that continues a video, with a sound


def flipped(place):
    def flip(data):
        if not data:
            return b"\x01"
        position = int(place * (len(data) - 1))
        return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]

    return flip


DAMAGES = {
    **{f"flip at {place}": flipped(place) for place in (0, 0.11, 0.37, 0.62, 0.9, 1)},
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "not UTF-8": lambda data: b"\xff\xfe\xfa" * (len(data) // 3 + 1),
}
_OF_MEDIA = ("flip at 0", "flip at 0.62", "truncated", "empty")  # hashed as a whole, so each damage is found in the same way
KINDS = {
    ".mp4": _OF_MEDIA,
    ".m4a": _OF_MEDIA,
    ".json": ("flip at 0.37", "flip at 1", "truncated", "empty", "zeros", "not UTF-8"),
    ".safetensors": ("flip at 0", "flip at 0.11", "flip at 0.9", "truncated", "empty", "zeros"),
    ".keep": ("flip at 0", "not UTF-8"),
}
assert set().union(*KINDS.values()) == set(DAMAGES)


class Stop(BaseException):
    pass


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A silent video to continue."""
    path = tmp_path_factory.mktemp("begun") / "begun.mp4"
    write_video(path, [torch.full((12, 16, 16, 3), 90, dtype=torch.uint8).numpy()], VideoCoding())
    return path


def run(folder: Path, begun: Path, texts="one\n\ntwo", stop_at=None, num_clips=2):
    """Run two clips after the video `begun`, with a sound and corrected colours."""
    maker = FakeMaker(LAYOUT)
    sample = maker.sample

    def stopping(request, previous):
        if request.index == stop_at:
            raise Stop
        return sample(request, previous)

    maker.sample = stopping
    start = VideoStart(probe_video(begun))
    before = open_start(start, lambda frames: torch.zeros(1, 16, 3, 2, 2), maker.decode)
    sound = SoundTrack(torch.linspace(-1, 1, 16_000)[None], 16_000)
    anchor = torch.full((1, 16, 16, 3), 0.25)
    settings = VideoSettings(start=start, sound=sound, colour_strength=0.5, anchor_frame=lambda request: anchor)
    plan = ClipPlan(num_clips, parse_schedule(texts), LAYOUT, continues=start.plan_key)
    with RunStore(folder) as store:
        path, latent = make_video(plan, maker, GrowingVideo(store, settings), before)
    return path.name, latent, maker.sampled


def content(folder: Path) -> dict[str, object]:
    """Return what a run leaves, without the time that it took."""

    def facts(path: Path):
        if path.suffix != ".json":
            return path.read_bytes()
        timed = ("measures", "made", "checksum")
        return {name: value for name, value in json.loads(path.read_text()).items() if name not in timed}

    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "set_aside"]
    return {path.relative_to(folder).as_posix(): facts(path) for path in files if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, begun):
    """A finished run: (folder, name of the video, last latent, content)."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    name, latent, _ = run(folder, begun)
    set_keep(folder, min((folder / "clips").glob("*.safetensors")).stem, True)
    assert len(content(folder)) == FILES
    return folder, name, latent, content(folder)


@pytest.mark.parametrize("number", range(FILES))
def test_any_damage_of_any_file_is_noticed_and_made_good(tmp_path, whole, begun, number, caplog):
    folder, name, latent, expected = whole
    victim = sorted(expected)[number]
    for kind in KINDS[Path(victim).suffix]:
        damage, copy = DAMAGES[kind], tmp_path / kind
        shutil.copytree(folder, copy)
        before = (copy / victim).read_bytes()
        (copy / victim).write_bytes(damage(before))
        caplog.clear()
        again, same, _ = run(copy, begun)
        aside = [path.read_bytes() for path in (copy / "set_aside").iterdir()] if (copy / "set_aside").exists() else []
        assert again == name and torch.equal(same, latent), kind
        assert content(copy) == expected or victim.endswith(".keep"), kind
        if aside or not victim.endswith((".json", ".keep", ".safetensors")):  # a changed blank in a header changes nothing
            assert aside == [damage(before)] and Path(victim).name in caplog.text, kind
    assert len(list(tmp_path.iterdir())) == len(KINDS[Path(victim).suffix])


@pytest.mark.parametrize(("victim", "kind"), [("video.mp4", "flip at 0.62"), ("run.json", "not UTF-8")])
@pytest.mark.parametrize("texts", ["one\n\ntwo\n\nthree", "another\n\ntwo\n\nthree"], ids=["goes on", "another take"])
def test_the_video_of_an_interrupted_run_is_trusted_by_its_hash_only(tmp_path, begun, victim, kind, texts):
    expected = run(tmp_path / "whole", begun, texts, num_clips=3)
    copy, damage = tmp_path / "copy", DAMAGES[kind]
    with pytest.raises(Stop):
        run(copy, begun, "one\n\ntwo\n\nthree", stop_at=2, num_clips=3)
    left = (copy / "video.mp4").read_bytes()
    (copy / victim).write_bytes(damage((copy / victim).read_bytes()))
    again = run(copy, begun, texts, num_clips=3)
    assert again[0] == expected[0] and torch.equal(again[1], expected[1])
    assert (copy / again[0]).read_bytes() == (tmp_path / "whole" / again[0]).read_bytes()
    if texts.startswith("another"):
        kept = [path.read_bytes() for path in [*(copy / "set_aside").glob("*.mp4"), *copy.glob("stopped-*.mp4")]]
        assert kept == [damage(left) if victim == "video.mp4" else left]


def unsealed_folder(folder: Path) -> None:
    """Turn `folder` into one of the version before, whose JSON files had no checksum, and sounds no hash."""
    for path in folder.rglob("*.json"):
        if path.name.startswith("sound-"):
            path.unlink()
        else:
            facts = json.loads(path.read_text())
            del facts["checksum"]
            path.write_text(json.dumps(facts, indent=1))


def test_a_folder_of_before_is_used_as_it_is(tmp_path, whole, begun):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    unsealed_folder(copy)
    name, latent, sampled = run(copy, begun)
    assert name == whole[1] and torch.equal(latent, whole[2]) and sampled == []
    assert not (copy / "set_aside").exists() and content(copy) == whole[3]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"gain"', '"wain"'),
        ('"num_frames": ', '"num_frames": "'),
        ('"segments": {', '"segments": 1, "x": {'),
        ('"key"', '"kez"'),
        ('"colour": {', '"colour": 7, "x": {'),
    ],
)
def test_a_record_of_before_with_other_names_or_types_is_set_aside(tmp_path, whole, begun, old, new):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    unsealed_folder(copy)
    victim = min((copy / "clips").glob("*.json"))
    text = victim.read_text()
    assert old in text
    victim.write_text(text.replace(old, new))
    name, latent, sampled = run(copy, begun)
    assert name == whole[1] and torch.equal(latent, whole[2]) and sampled == []
    assert content(copy) == whole[3]
    assert any(victim.name in path.name for path in (copy / "set_aside").iterdir())


def test_a_damaged_video_is_not_continued(tmp_path, whole):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    video = read_last_video(copy)
    require_unchanged(video)
    video.write_bytes(flipped(0.5)(video.read_bytes()))
    with pytest.raises(ValueError, match=f"{video.name} is damaged, .* run its graph again"):
        require_unchanged(video)


def test_a_video_that_is_no_run_s_may_have_any_file_beside_it(tmp_path, begun):
    shutil.copy(begun, tmp_path / "holiday.mp4")
    (tmp_path / "holiday.json").write_bytes(b"\xff no JSON")
    require_unchanged(tmp_path / "holiday.mp4")


def test_a_damaged_last_latent_is_not_continued_in_silence(tmp_path, whole):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    start = VideoStart(probe_video(read_last_video(copy)))
    assert not start.is_foreign
    path = copy / "clips" / f"{start.clips[-1].key}.safetensors"
    path.write_bytes(flipped(0.9)(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path.name} is damaged .* run the graph of that run again"):
        open_start(start, lambda frames: pytest.fail("its frames were encoded"), FakeMaker(LAYOUT).decode)


def test_a_damaged_own_manifest_is_made_up_for_by_that_of_the_run(tmp_path, whole, caplog):
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    video = read_last_video(copy)
    clips = read_manifest(video)
    video.with_suffix(".json").write_text("{")
    assert read_manifest(video) == clips and f"{video.stem}.json is not a manifest" in caplog.text
    (copy / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is not a manifest of an SVI run"):
        read_manifest(video)


@pytest.mark.parametrize("end", ["removed", "set aside"])
def test_a_video_with_a_manifest_of_its_own_needs_no_other(tmp_path, whole, begun, end):
    """A run in the folder sets a damaged run.json aside, and may be stopped before it writes another one."""
    copy = tmp_path / "run"
    shutil.copytree(whole[0], copy)
    video = read_last_video(copy)
    expected = VideoStart(probe_video(video))
    if end == "removed":
        (copy / "run.json").unlink()
    else:
        (copy / "run.json").write_text("{")
        with RunStore(copy):
            assert not (copy / "run.json").exists()
    start = VideoStart(probe_video(video))
    assert start.clips == expected.clips and torch.equal(start.stored_latent(), whole[2])
    require_unchanged(video)
    video.write_bytes(flipped(0.5)(video.read_bytes()))
    with pytest.raises(ValueError, match=f"{video.name} is damaged"):
        require_unchanged(video)
    video.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=f"{video.stem}.json is not a manifest of an SVI run"):
        require_unchanged(video)


@pytest.mark.parametrize("content", [b"\xff no JSON", b'{"clips": 1, "video": "holiday.mp4"}', b"[]", b'{"format": {}}'])
def test_somebody_else_s_file_beside_a_video_is_left_alone(tmp_path, begun, content):
    shutil.copy(begun, tmp_path / "holiday.mp4")
    (tmp_path / "holiday.json").write_bytes(content)
    start = VideoStart(probe_video(tmp_path / "holiday.mp4"))
    assert [clip.num_frames for clip in start.clips] == [12] and start.is_foreign
    assert (tmp_path / "holiday.json").read_bytes() == content
