"""A pinned take: shown in place of a new clip, whatever its prompt says, and what it leaves as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svi_core.clips.clip_plan import ClipPlan
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.clips.step_by_step import RunState, finish_video, next_clip
from svi_core.clips.video_settings import VideoSettings
from svi_core.files.fingerprint import fingerprint
from svi_core.schedule.spec import ClipSpec
from svi_core.schedule.text import parse_schedule
from svi_core.store.records import read_manifest, read_records
from svi_core.store.run_store import RunStore
from svi_core.store.takes import PinnedTakes
from svi_core.systems.layouts import make_layout
from svi_core.video.frame_times import count_frames
from svi_core.video.seams import Seam
from svi_core.video.video_file import read_frames
from tests.core.fakes import FakeMaker

LAYOUT = make_layout("2.0 Pro", num_frames=9)


def run(folder, text, num_clips=3, seam=Seam.LINEAR, maker=None, budget_bytes=0, **settings):
    maker = maker or FakeMaker(LAYOUT)
    with RunStore(folder) as store:
        plan = ClipPlan(num_clips, parse_schedule(text), LAYOUT, graph_hash="g", seam=seam, takes=PinnedTakes(folder, (2, 2)))
        path, _ = make_video(plan, maker, GrowingVideo(store, VideoSettings(**settings)), budget_bytes=budget_bytes)
    return path, [clip.key for clip in read_manifest(path)], maker.sampled


def test_a_pinned_take_is_shown_and_nothing_is_sampled_for_it(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo\n\nthree")
    _, again, sampled = run(tmp_path, "one\n\n[seed 9]\ntwo\n\nthree")
    assert sampled == [1, 2] and again[1] != first[1]
    path, pinned, sampled = run(tmp_path, f"one\n\n[seed 9, take {first[1][:12]}]\nsomething else\n\nthree")
    assert (pinned, sampled) == (first, [])  # the clip after it is that of the first run
    assert [(clip.prompt, clip.seed) for clip in read_manifest(path)] == [("one", 0), ("two", 42), ("three", 84)]


def test_a_pinned_clip_begins_as_any_other_so_that_progress_counts_it(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo\n\nthree")
    maker = FakeMaker(LAYOUT)
    run(tmp_path, f"one\n\n[take {first[1][:12]}]\ntwo\n\nthree", maker=maker)
    assert maker.begun == [0, 1, 2]


def test_pinning_what_is_shown_changes_no_key_and_no_frame(tmp_path):
    before, keys, _ = run(tmp_path, "one\n\ntwo\n\nthree")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").glob("*.mp4")}
    for digits in (key[:8] for key in keys):
        after, pinned, sampled = run(tmp_path, f"one\n\n[take {digits}]\ntwo\n\nthree".replace(digits, keys[1][:8]))
        assert (after, pinned, sampled) == (before, keys, [])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").glob("*.mp4")} == files


def test_a_take_of_another_clip_is_used_as_it_is_with_frames_of_its_own_seam(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo\n\nthree")
    own = set((tmp_path / "clips").glob(f"{first[1]}-*.mp4"))
    path, keys, sampled = run(tmp_path, f"[seed 7]\none\n\n[take {first[1][:12]}]\ntwo\n\nthree")
    assert keys[0] != first[0] and keys[1:] == first[1:] and sampled == [0]
    (new,) = set((tmp_path / "clips").glob(f"{first[1]}-*.mp4")) - own
    assert f"-after{keys[0][:12]}-" in new.name and count_frames(path) == 17
    moments = np.array([frame.mean() for frame in read_frames(path)])
    assert np.abs(moments - np.arange(17)).max() < 2


def coloured(anchor, decode=lambda: None):
    """Return the settings of a run whose colours follow `anchor`; `decode` is called when its frames are needed."""

    def frame(request):
        decode()
        return anchor

    return {"colour_strength": 1.0, "anchor_frame": frame, "anchor_key": lambda request: fingerprint(anchor)}


def test_colours_of_a_take_follow_the_anchor_of_today(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo", 2)
    text = f"one\n\n[take {first[1][:12]}]\ntwo"
    shown = {}
    for grey in (0.2, 0.8):
        anchor = torch.full((1, 2, 2, 3), grey) + torch.linspace(-0.1, 0.1, 12).view(1, 2, 2, 3)
        path, keys, _ = run(tmp_path, text, 2, **coloured(anchor))
        assert keys == first
        shown[grey] = np.mean(list(read_frames(path))[-1]) / 255
    assert shown[0.8] - shown[0.2] > 0.3, shown


def test_the_anchor_of_a_take_is_decoded_only_where_frames_are_made(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo", 2)
    text, anchor, decoded = f"one\n\n[take {first[1][:12]}]\ntwo", torch.rand(1, 2, 2, 3), []
    run(tmp_path, text, 2, **coloured(anchor, lambda: decoded.append(1)))
    assert decoded
    decoded.clear()
    run(tmp_path, text, 2, **coloured(anchor, lambda: decoded.append(1)))
    assert not decoded, "the segments are stored"


def test_a_take_whose_anchor_cannot_be_hashed_at_first_is_in_the_video_of_a_failed_run(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo", 2)
    text, failures = f"one\n\n[take {first[1][:12]}]\ntwo", [RuntimeError("out of memory")]
    settings = coloured(torch.rand(1, 2, 2, 3))

    def key(request):
        if failures:
            raise failures.pop()
        return "a key"

    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, text, 2, **settings | {"anchor_key": key})
    assert [clip.key for clip in read_manifest(tmp_path / "video.mp4")] == first


def test_a_take_keeps_its_own_length(tmp_path):
    _, first, _ = run(tmp_path, "one\n\n[frames 17]\ntwo\n\nthree")
    path, keys, sampled = run(tmp_path, f"one\n\n[take {first[1]}]\ntwo\n\nthree")
    assert (keys, sampled, count_frames(path)) == (first, [], 9 + 12 + 4)


def test_a_take_can_stand_at_several_places_and_first(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo\n\nthree")
    _, keys, sampled = run(tmp_path, f"[take {first[2][:12]}]\nany\n\n[cut, take {first[0][:12]}]\nany\n\nnew")
    assert keys[:2] == [first[2], first[0]] and sampled == [2]


def test_a_take_that_is_gone_is_refused_before_anything_is_made(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo\n\nthree")
    (tmp_path / "clips" / f"{first[1]}.safetensors").unlink()
    text = f"[seed 5]\none\n\n[take {first[1][:12]}]\ntwo"
    plan = ClipPlan(2, parse_schedule(text), LAYOUT, takes=PinnedTakes(tmp_path))
    with pytest.raises(ValueError, match=f"clip 2 of the schedule: take {first[1][:12]} is not among the stored clips"):
        plan.require_joints(parse_schedule(text))


def test_a_take_that_is_damaged_is_refused_and_set_aside(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo")
    path = tmp_path / "clips" / f"{first[1]}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"take {first[1][:12]} of clip 2 is gone from .*clips, or damaged"):
        run(tmp_path, f"one\n\n[take {first[1][:12]}]\ntwo")


class Cancelled(BaseException):
    pass


def earlier_take(folder):
    """Make clip 3 twice; return the key of its earlier take, which is not in the last video."""
    _, earlier, _ = run(folder, "one\n\ntwo\n\nthree")
    run(folder, "one\n\ntwo\n\n[seed 9]\nthree")
    return earlier[2]


def test_cancel_before_a_pinned_clip_leaves_its_take_within_any_budget(tmp_path):
    key, maker = earlier_take(tmp_path), FakeMaker(LAYOUT)

    def cancel(request, previous):
        raise Cancelled

    maker.sample = cancel
    with pytest.raises(Cancelled):
        run(tmp_path, f"one\n\nmore\n\n[take {key[:12]}]\nthree", maker=maker, budget_bytes=1)
    assert (tmp_path / "clips" / f"{key}.safetensors").exists()


def test_a_pinned_clip_that_a_video_does_not_come_to_keeps_its_take(tmp_path):
    key = earlier_take(tmp_path)
    text = f"one\n\ntwo\n\n[take {key[:12]}]\nthree"
    for ended in ({"num_clips": 2}, {"max_frames": 9}):
        run(tmp_path, text, budget_bytes=1, **ended)
        assert (tmp_path / "clips" / f"{key}.safetensors").exists(), ended
    plan = ClipPlan(3, parse_schedule(text), LAYOUT, graph_hash="g", seam=Seam.LINEAR, takes=PinnedTakes(tmp_path, (2, 2)))
    state, _ = next_clip(RunState(plan, FakeMaker(LAYOUT), tmp_path, budget_bytes=1))
    finish_video(state)
    assert (tmp_path / "clips" / f"{key}.safetensors").exists()


def test_records_tell_options_parent_and_time(tmp_path):
    _, keys, _ = run(tmp_path, "one\n\n[cfg 2.5, hold 3, seed 4]\ntwo\n\n[cut]\nthree")
    records = read_records(tmp_path)
    assert [record.options for record in records] == ["", "cfg 2.5", "cut"]
    assert [record.parent for record in records] == ["", keys[0], ""]
    assert all(record.made > 1.7e9 for record in records)


def test_a_clip_at_another_place_takes_that_place(tmp_path):
    run(tmp_path, "one\n\n[cut, seed 3]\ntwo", num_clips=2)
    run(tmp_path, "one\n\nmore\n\n[cut, seed 3]\ntwo")
    assert [(record.index, record.prompt) for record in read_records(tmp_path)] == [(0, "one"), (1, "more"), (2, "two")]


def test_a_pinned_clip_at_another_place_takes_that_place(tmp_path):
    _, first, _ = run(tmp_path, "one\n\ntwo", num_clips=2)
    text = f"one\n\nmore\n\n[take {first[1][:12]}]\ntwo"
    run(tmp_path, text)
    assert [record.index for record in read_records(tmp_path) if record.key == first[1]] == [2]


def test_a_pin_leaves_the_keys_of_graphs_of_before_as_they_are():
    spec = ClipSpec("a cat", seed=3, cfg=2.0)
    plan = ClipPlan(1, parse_schedule("a"), LAYOUT, graph_hash="g")
    request = plan.request_for(0, spec)
    assert plan.plan_key(request, None) == plan.plan_key(replace(request, spec=replace(spec, take="0" * 12)), None)
    assert plan.plan_key(request, None).startswith("e1c50d1ca9c4e0aa")
