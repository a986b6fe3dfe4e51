"""SVI Write Frames asks for frames only if it needs them, and writes them with the coding that is asked for."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from svi_core.video.source_video import probe_video
from tests.e2e.graphs import node

GRAPH = {
    "next": node("SVINextClip"),
    "frames": node("SVIClipFrames", state=["next", 0], context_frames=0),
    "large": node("ImageScaleBy", image=["frames", 1], upscale_method="nearest-exact", scale_by=2.0),
    "write": node("SVIWriteFrames", state=["frames", 0], images=["large", 0]),
}


@pytest.fixture
def nodes(pack, monkeypatch):
    monkeypatch.setattr(pack.nodes.SVIWriteFrames, "hidden", hidden(GRAPH), raising=False)
    return pack.nodes


def hidden(graph):
    dynprompt = SimpleNamespace(get_node=graph.__getitem__, all_node_ids=graph.keys)
    return SimpleNamespace(dynprompt=dynprompt, unique_id="write")


@pytest.fixture
def begun(pack, tmp_path):
    """A run of the pack's own classes, before its first clip."""
    core = {name: sys.modules[f"{pack.__name__}.svi_core.{name}"] for name in ("clips.step_by_step", "clips.clip_plan")}
    layout = sys.modules[f"{pack.__name__}.svi_core.systems.layouts"].make_layout("2.0 Pro", num_frames=9)
    schedule = sys.modules[f"{pack.__name__}.svi_core.schedule.text"].parse_schedule("one\n\ntwo")
    from tests.core.fakes import FakeMaker

    maker = FakeMaker(layout)
    maker.progress = SimpleNamespace(restart=lambda _: None, end_clip=lambda _: None)
    return core["clips.step_by_step"].RunState(core["clips.clip_plan"].ClipPlan(10_000, schedule, layout), maker, tmp_path)


def written(nodes, state, is_last, **options):
    """Make, process and write one clip; return the state and the part's file."""
    state = nodes.SVINextClip.execute(state, is_last).args[0]
    state, images = nodes.SVIClipFrames.execute(state, 0).args
    assert nodes.SVIWriteFrames.check_lazy_status(state, **options) == ["images"]
    large = images.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    state, clip = nodes.SVIWriteFrames.execute(state, large, **options).args
    assert nodes.SVIWriteFrames.check_lazy_status(state, **options) == []
    return state, Path(clip.get_stream_source())


def test_frames_are_asked_for_once(nodes, begun):
    state, _ = written(nodes, begun, is_last=False)
    state, part = written(nodes, state, is_last=True)
    source = probe_video(part)
    assert (source.num_frames, source.width, source.height) == (4, 32, 32)
    video, processed = (Path(video.get_stream_source()) for video in nodes.SVIFinishVideo.execute(state).args)
    assert probe_video(video).num_frames == probe_video(processed).num_frames == 13
    again = begun
    for is_last in (False, True):
        again = nodes.SVINextClip.execute(again, is_last).args[0]
        again, _ = nodes.SVIClipFrames.execute(again, 0).args
        assert nodes.SVIWriteFrames.check_lazy_status(again) == []
        again, _ = nodes.SVIWriteFrames.execute(again).args
    assert again.processed == state.processed


def test_prompts_that_a_loop_leaves_over_are_said_without_an_input_that_it_lacks(nodes, begun, monkeypatch):
    said = []
    monkeypatch.setattr(sys.modules[nodes.__name__ + ".step_by_step"], "warn", lambda node, text: said.append(text))
    state = nodes.SVINextClip.execute(begun, True).args[0]
    nodes.SVIFinishVideo.execute(state)
    assert said == ["the schedule describes 2 clips, but the loop made 1: the rest is not made."]


def test_another_stage_or_coding_asks_again(nodes, begun, monkeypatch):
    state, _ = written(nodes, begun, is_last=True)
    settings = sys.modules[nodes.__name__ + ".output"].output_settings("h265", 20, "yuv420p", 0.0, "auto", 0.0, 0.0, "auto")
    other = nodes.SVINextClip.execute(begun, True).args[0]
    assert nodes.SVIWriteFrames.check_lazy_status(other, output=settings) == ["images"]
    changed = GRAPH | {"large": node("ImageScaleBy", image=["frames", 1], upscale_method="nearest-exact", scale_by=1.5)}
    monkeypatch.setattr(nodes.SVIWriteFrames, "hidden", hidden(changed))
    assert nodes.SVIWriteFrames.check_lazy_status(other) == ["images"]
    _, part = written(nodes, begun, is_last=True, output=settings)
    assert probe_video(part).codec == "hevc" and state.processed[0].path.exists()


@pytest.mark.parametrize(
    "reference", [("frames", 1), ("next", 1), ("write", 1), ("large", 0)], ids=lambda link: f"{link[0]} {link[1]}"
)
def test_a_stage_that_looks_at_an_earlier_clip_asks_again_if_that_changes(pack, reference):
    """Clip 2 after a cut has a key of its own: only the stage knows of clip 1."""
    matched = node("ColorMatch", image=["frames2", 1], reference=list(reference))
    graph = GRAPH | {
        "next": node("SVINextClip", state=["begin", 0]),
        "next2": node("SVINextClip", state=["write", 0], is_last=True),
        "frames2": node("SVIClipFrames", state=["next2", 0], context_frames=0),
        "write2": node("SVIWriteFrames", state=["frames2", 0], images=["matched", 0]),
        "matched": matched,
    }
    keys = {stage_key(pack, graph | {"begin": node("SVIBeginVideo", seed=seed)}, "write2") for seed in (1, 2)}
    assert len(keys) == 2
    assert len({stage_key(pack, graph | {"begin": node("SVIBeginVideo", seed=seed)}, "write") for seed in (1, 2)}) == 1


def stage_key(pack, graph, node_id):
    """The key of the stage before the SVI Write Frames `node_id`."""
    module = sys.modules[f"{pack.__name__}.nodes.processed_frames"]
    coding = sys.modules[f"{pack.__name__}.svi_core.video.video_file"].VideoCoding()
    state = SimpleNamespace(settings=SimpleNamespace(coding=coding))
    given = SimpleNamespace(dynprompt=hidden(graph).dynprompt, unique_id=node_id)
    return module._stage(given, state, None).key


def test_a_run_without_processed_frames_blocks_their_output_only(nodes, begun):
    from comfy_execution.graph_utils import ExecutionBlocker

    state = nodes.SVINextClip.execute(begun).args[0]
    video, processed = nodes.SVIFinishVideo.execute(state).args
    assert probe_video(Path(video.get_stream_source())).num_frames == 9
    assert isinstance(processed, ExecutionBlocker) and "put SVI Write Frames between" in processed.message


@pytest.mark.parametrize("last", [{}, {"is_last": False}])
def test_processed_frames_without_a_last_clip_are_refused_before_the_first_step(nodes, monkeypatch, last):
    prompt = {**GRAPH, "next": node("SVINextClip", state=["begin", 0], **last)}
    monkeypatch.setattr(nodes.SVIBeginVideo, "hidden", SimpleNamespace(prompt=prompt), raising=False)
    with pytest.raises(ValueError, match="no SVI Next Clip is the last one: switch is_last on for the last"):
        nodes.SVIBeginVideo.execute(None)
    for given in (prompt | {"r": node("SVIRepeatClips")}, prompt | {"n": node("SVINextClip", is_last=["loop", 2])}):
        monkeypatch.setattr(nodes.SVIBeginVideo, "hidden", SimpleNamespace(prompt=given))
        with pytest.raises(TypeError, match="missing"):  # goes on to read the inputs, of which there are none here
            nodes.SVIBeginVideo.execute(None)
