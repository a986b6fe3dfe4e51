"""What a stage makes of each clip grows into a video: each clip once, joined rightly, whole at any moment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svi_core.clips import processed_frames as module
from svi_core.clips.processed_frames import Stage, add_processed, finish_processed, frames_of_clip, is_processed
from svi_core.clips.step_by_step import finish_video, next_clip
from svi_core.clips.video_settings import VideoSettings
from svi_core.systems.layouts import make_layout
from svi_core.video.frame_times import count_frames
from svi_core.video.seams import Seam
from svi_core.video.sound import SoundTrack
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames
from tests.core.clips.test_growing_video import moments, state_of
from tests.core.fakes import FakeMaker

LAYOUT = make_layout("2.0 Pro", num_frames=13)
EXACT = VideoCoding(crf=0, pixel_format="yuv444p")
STAGE = Stage("upscale", EXACT)


def begun(folder, layout=LAYOUT, **options):
    """A run that began long ago, so that refreshing its video takes no share of its time."""
    options.setdefault("settings", VideoSettings(EXACT))
    return replace(state_of(folder, layout, **options), started=float("-inf"))


def enlarged(frames):
    return frames.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def interpolated(frames):
    between = (frames[1:] + frames[:-1]) / 2
    return torch.cat([torch.stack([frames[:-1], between], dim=1).flatten(0, 1), frames[-1:]])


def processed(state, num_clips=3, process=enlarged, stage=STAGE, num_context=0, ends=True, after=lambda state: None):
    """Go on from `state` until `num_clips` clips are made and processed, the last of them shown to its end if `ends`."""
    while state.num_clips < num_clips:
        state, _ = next_clip(state, is_last=ends and state.num_clips == num_clips - 1)
        state, frames = frames_of_clip(state, num_context)
        state = add_processed(state, stage, None if is_processed(state, stage) else process(frames))
        after(state)
    return state


def not_again(frames):
    pytest.fail("the stage worked again")


@pytest.fixture
def written(monkeypatch):
    """The names of the parts that are written."""
    names, write = [], module.write_video
    monkeypatch.setattr(module, "write_video", lambda path, *rest: [names.append(path.name), write(path, *rest)][1])
    return names


@pytest.mark.parametrize(
    ("name", "seam"), [("2.0 Pro", Seam.LINEAR), ("2.0 Pro", Seam.DROP), ("Film", Seam.DROP), ("Shot", "eased")]
)
def test_the_processed_video_shows_what_the_video_shows(tmp_path, name, seam):
    layout = make_layout(name, num_frames=13)
    grown = []
    state = processed(
        begun(tmp_path, layout, seam=Seam(seam)),
        after=lambda state: grown.append((count_frames(tmp_path / "processed.mp4"), sum(c.num_frames for c in state.clips))),
    )
    video, final = finish_video(state), finish_processed(state)
    assert (
        np.abs(moments(final) - moments(video)).max() < 2 and len(moments(final)) == 3 * (13 - layout.overlap) + layout.overlap
    )
    assert len(grown) == 3 and all(frames == expected for frames, expected in grown)
    assert (probe_video(final).width, probe_video(final).height) == (32, 32) and final.name.startswith("processed-")
    assert not (tmp_path / "processed.mp4").exists() and probe_video(final).frame_rate == 16


def test_a_run_that_begins_again_writes_no_part_twice(tmp_path, written):
    final = finish_processed(processed(begun(tmp_path), 2))
    changed = final.stat().st_mtime_ns
    assert len(written) == 2
    again = finish_processed(processed(begun(tmp_path), 2, process=not_again))
    assert again == final and len(written) == 2 and final.stat().st_mtime_ns == changed


def test_a_part_that_is_interrupted_leaves_nothing_and_the_video_so_far(tmp_path):
    state, _ = next_clip(processed(begun(tmp_path), 2, ends=False))
    state, frames = frames_of_clip(state, 0)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_processed(state, STAGE, enlarged(frames), interrupt)
    assert not list(tmp_path.rglob("*.staging*")) and not is_processed(state, STAGE)
    assert count_frames(tmp_path / "processed.mp4") == sum(clip.num_frames for clip in state.clips[:2])


def test_a_processed_video_open_in_a_player_fails_neither_a_clip_nor_the_end(tmp_path, monkeypatch, caplog):
    unlink = Path.unlink

    def refuse(path, *rest, **options):
        if Path(path).name == "processed.mp4":
            raise PermissionError(13, "open in a player")
        return real(path, *rest, **options)

    real = module.join_videos
    monkeypatch.setattr(module, "join_videos", refuse)
    state = processed(begun(tmp_path))
    assert caplog.text.count("the growing processed video could not be refreshed") == 3
    monkeypatch.setattr(module, "join_videos", real)
    state, real = processed(begun(tmp_path)), unlink
    monkeypatch.setattr(Path, "unlink", refuse)
    final = finish_processed(state)
    assert count_frames(final) == count_frames(finish_video(state)) and f"the finished video is {final.name}" in caplog.text


def test_a_changed_stage_makes_everything_anew_and_the_old_video_stays(tmp_path, written):
    bright = finish_processed(processed(begun(tmp_path), 2))
    levels = moments(bright)
    for stage in (Stage("darker", STAGE.coding), Stage(STAGE.key, replace(EXACT, crf=1))):
        dark = finish_processed(processed(begun(tmp_path), 2, lambda frames: enlarged(frames) / 2, stage))
        assert dark != bright and np.abs(moments(dark) - levels / 2).max() < 2 and np.array_equal(moments(bright), levels)
    assert len(written) == 6
    assert finish_processed(processed(begun(tmp_path), 2, not_again)) == bright


def test_another_take_of_a_clip_is_processed_with_those_after_it(tmp_path, written):
    processed(begun(tmp_path))
    processed(begun(tmp_path, text="one\n\nanother\n\nthree"))
    assert len(written) == 3 + 2


def test_one_more_clip_shows_the_last_one_anew_up_to_the_seam(tmp_path, written):
    processed(begun(tmp_path, seam=Seam.LINEAR), 2)
    final = finish_processed(processed(begun(tmp_path, seam=Seam.LINEAR), 3))
    assert len(written) == 2 + 2 and np.abs(moments(final) - np.arange(3 * 8 + 5)).max() < 2


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()])
def test_a_damaged_part_is_made_again(tmp_path, written, damage):
    final = finish_processed(processed(begun(tmp_path), 2))
    damage(next((tmp_path / "clips").glob(written[0])))
    final.unlink()
    again = finish_processed(processed(begun(tmp_path), 2))
    assert written[2:] == written[:1] and again == final and count_frames(final) == 2 * 8 + 5


def test_interpolated_frames_lie_between_all_frames(tmp_path):
    state = processed(begun(tmp_path, seam=Seam.LINEAR), process=interpolated, num_context=1)
    final = finish_processed(state)
    assert np.abs(moments(final) - np.arange(2 * 28 + 1) / 2).max() < 2
    assert probe_video(final).frame_rate == 32 and count_frames(tmp_path / "clips" / state.processed[1].path.name) == 16


def test_nothing_is_interpolated_across_a_cut(tmp_path):
    story = "one\n\n[cut]\ntwo\n\nthree"
    state = processed(begun(tmp_path, text=story), process=interpolated, num_context=1)
    video, final = finish_video(state), finish_processed(state)
    assert np.abs(moments(final)[::2] - moments(video)).max() < 2 and [part.multiple for part in state.processed] == [2] * 3


def test_without_the_frame_before_it_a_clip_cannot_be_interpolated(tmp_path):
    with pytest.raises(ValueError, match="those between it and the clip before are missing"):
        processed(begun(tmp_path), process=interpolated)
    assert count_frames(tmp_path / "processed.mp4") == 2 * 13 - 1


def test_frames_before_a_clip_are_those_of_the_video(tmp_path):
    state = processed(begun(tmp_path), 2, num_context=3, ends=False)
    after, frames = frames_of_clip(state, 3)
    assert after.num_context == 3
    levels = (frames.mean(dim=(1, 2, 3)) * 255).tolist()
    assert levels == pytest.approx(range(10, 13 + state.clips[-1].num_frames), abs=1.1)


def test_the_sound_of_the_run_is_heard_with_the_processed_frames(tmp_path):
    sound = SoundTrack(torch.zeros(1, 44_100) + 0.1, 44_100)
    state = processed(begun(tmp_path, settings=VideoSettings(EXACT, sound=sound)), 2, interpolated, num_context=1)
    source = probe_video(finish_processed(state))
    assert source.sound_codec == "aac" and source.frame_rate == 32


def test_at_its_final_length_a_video_takes_no_more_clips(tmp_path, written):
    state = begun(tmp_path, settings=VideoSettings(EXACT, max_frames=15))
    for number in range(4):
        state, _ = next_clip(state)
        state, frames = frames_of_clip(state, 0)
        state = add_processed(state, Stage(f"iteration {min(number, 2)}", STAGE.coding), enlarged(frames))
    assert len(written) == 2 and count_frames(finish_processed(state)) == 15


def test_the_end_of_the_last_clip_must_be_processed(tmp_path):
    state = processed(begun(tmp_path, seam=Seam.LINEAR), 1, ends=False)
    with pytest.raises(ValueError, match="the end of clip 1 was not processed.*switch is_last on"):
        finish_processed(state)


def test_every_clip_passes_once(tmp_path):
    state = processed(begun(tmp_path), 1, ends=False)
    _, frames = frames_of_clip(state, 0)
    assert add_processed(state, STAGE, enlarged(frames)) == state
    with pytest.raises(ValueError, match="clip 1 passed SVI Write Frames twice"):
        add_processed(state, Stage("other", STAGE.coding), enlarged(frames))
    past, _ = next_clip(state)
    with pytest.raises(ValueError, match="1 of 2 clips passed SVI Write Frames"):
        finish_processed(past)
    past, _ = next_clip(past)
    with pytest.raises(ValueError, match="clip 2 did not pass SVI Write Frames, but clip 3 does"):
        is_processed(past, STAGE)


@pytest.mark.parametrize(
    "use", [lambda state: frames_of_clip(state, 0), lambda state: is_processed(state, STAGE), finish_processed]
)
def test_a_run_without_a_clip_has_no_frames(tmp_path, use):
    with pytest.raises(ValueError, match="no clip yet: put SVI Next Clip before this node"):
        use(begun(tmp_path))


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (lambda frames: frames[:, :, :15], "images has 15 x 16 pixels, but yuv420p takes even sizes only"),
        (lambda frames: frames[..., :1], r"images has shape \[13, 16, 16, 1\]: pass on colour frames"),
        (lambda frames: frames[:5], "images has 5 frames, but the clip has 13"),
    ],
)
def test_frames_that_cannot_be_written_are_refused(tmp_path, process, message):
    with pytest.raises(ValueError, match=message):
        processed(begun(tmp_path), process=process, stage=Stage("bad", VideoCoding()))
    assert not list(tmp_path.rglob("*processed*"))


def test_odd_sizes_and_alpha_are_written_where_the_coding_can(tmp_path):
    state = processed(begun(tmp_path), 2, process=lambda frames: frames[:, :15, :15, [0, 1, 2, 0]])
    assert np.abs(moments(finish_processed(state)) - np.arange(21)).max() < 2


def test_another_size_in_one_video_is_refused(tmp_path):
    state, _ = next_clip(processed(begun(tmp_path), 1, ends=False))
    state, frames = frames_of_clip(state, 0)
    with pytest.raises(ValueError, match="16 x 16 pixels, but the clips before have 32 x 32"):
        add_processed(state, STAGE, frames)


def test_another_coding_in_one_video_is_refused_before_the_stage_works(tmp_path):
    state = processed(begun(tmp_path), 1, ends=False)
    other = Stage(STAGE.key, VideoCoding(codec="h265"))
    message = "output of SVI Write Frames is h265-yuv420p-crf18 for clip 2, but h264-yuv444p-crf0 for the clips before"
    with pytest.raises(ValueError, match=message):
        processed(state, 2, not_again, other)


def test_making_room_spares_the_parts_of_the_video(tmp_path, written):
    processed(begun(tmp_path, text="an earlier take"), 1)
    state = replace(processed(begun(tmp_path), 2), budget_bytes=1)
    finish_video(state)
    left = {path.name for path in (tmp_path / "clips").glob("*-processed-*")}
    assert left == {part.path.name for part in state.processed} == set(written[1:])


def test_colours_of_the_parts_are_those_of_the_stage(tmp_path):
    """Frames are RGB on the way in and out, whatever the run's own file declares."""

    class Red(FakeMaker):
        def decode(self, latent):
            for chunk in super().decode(latent):
                yield torch.zeros_like(chunk) + torch.tensor([0.8, 0.2, 0.1])

    state = processed(begun(tmp_path, maker=Red(LAYOUT)), 1)
    frame = next(read_frames(finish_processed(state)))
    assert np.abs(frame.mean(axis=(0, 1)) - np.array([0.8, 0.2, 0.1]) * 255).max() < 4
