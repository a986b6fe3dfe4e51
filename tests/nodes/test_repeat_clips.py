"""SVI Repeat Clips copies what lies between SVI Begin Video and itself, once for each clip, and nothing else."""

import sys
from types import SimpleNamespace

import pytest

from tests.e2e.graphs import node

BODY = {
    "begin": node("SVIBeginVideo"),
    "upscaler": node("UpscaleModelLoader", model_name="4x.pth"),
    "next": node("SVINextClip", state=["begin", 0]),
    "frames": node("SVIClipFrames", state=["next", 0], context_frames=1),
    "large": node("ImageUpscaleWithModel", upscale_model=["upscaler", 0], image=["frames", 1]),
    "write": node("SVIWriteFrames", state=["frames", 0], images=["large", 0]),
    "preview": node("PreviewImage", images=["large", 0]),
    "repeat": node("SVIRepeatClips", state=["write", 0], num_clips=3),
}


@pytest.fixture
def expand(pack, monkeypatch):
    """Execute the node in a graph and return the nodes it makes and the link to its result."""

    def run(graph, num_clips=3):
        cls = pack.nodes.SVIRepeatClips
        dynprompt = SimpleNamespace(get_node=graph.__getitem__, all_node_ids=graph.keys)
        monkeypatch.setattr(cls, "hidden", SimpleNamespace(dynprompt=dynprompt, unique_id="repeat"), raising=False)
        result = cls.execute(graph["repeat"]["inputs"]["state"], num_clips)
        return result.expand, result.args[0]

    return run


def test_each_clip_gets_a_copy_that_goes_on_from_the_one_before(expand):
    nodes, last = expand(BODY)
    names = ("next", "frames", "large", "write")
    assert nodes.keys() == {f"repeat.clip{number}.{name}" for number in (1, 2, 3) for name in names}
    assert [nodes[f"repeat.clip{number}.next"]["inputs"]["state"] for number in (1, 2, 3)] == [
        ["begin", 0],
        ["repeat.clip1.write", 0],
        ["repeat.clip2.write", 0],
    ]
    assert last == ["repeat.clip3.write", 0]
    assert nodes["repeat.clip2.large"] == {
        "class_type": "ImageUpscaleWithModel",
        "inputs": {"upscale_model": ["upscaler", 0], "image": ["repeat.clip2.frames", 1]},
        "override_display_id": "large",
    }
    assert nodes["repeat.clip2.frames"]["inputs"] == {"state": ["repeat.clip2.next", 0], "context_frames": 1}


@pytest.mark.parametrize("num_clips", [1, 2, 5])
def test_the_last_copy_alone_is_the_last_clip(expand, num_clips):
    body = {**BODY, "next": node("SVINextClip", state=["begin", 0], is_last=True)}
    nodes, _ = expand(body, num_clips)
    marks = [entry["inputs"]["is_last"] for entry in nodes.values() if entry["class_type"] == "SVINextClip"]
    assert marks == [False] * (num_clips - 1) + [True]


def test_the_graph_itself_stays_as_it_is(expand):
    before = str(BODY)
    expand(BODY)
    assert str(BODY) == before


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"repeat": node("SVIRepeatClips", state=["begin", 0])}, "1 SVI Begin Video and 0 SVI Next Clip"),
        ({"next": node("SVINextClip", state=["other", 0]), "other": node("Reroute")}, "0 SVI Begin Video and 0 SVI Next Clip"),
        ({"write": node("SVINextClip", state=["next", 0])}, "1 SVI Begin Video and 2 SVI Next Clip"),
    ],
)
def test_anything_but_one_clip_of_one_run_is_refused(expand, change, found):
    with pytest.raises(ValueError, match=f"SVI Repeat Clips found {found} before it: put one SVI Next Clip between"):
        expand(BODY | change)


def test_a_row_that_comfyui_could_not_follow_is_refused_with_the_number_that_fits(expand):
    """Its cache keys are a recursion: without the check a long row ended in RecursionError."""
    assert len(expand(BODY, 224)[0]) == 4 * 224
    told = "^num_clips is 225, in a row of 1 . 225 x 4 nodes, but ComfyUI follows about 900: use 224 or fewer, or Start Loop"
    with pytest.raises(ValueError, match=told):
        expand(BODY, 225)
    upstream = {f"model{index}": node("LoraLoaderModelOnly", model=[f"model{index + 1}", 0]) for index in range(40)}
    with pytest.raises(ValueError, match="in a row of 42 . 224 x 4 nodes.*use 214 or fewer"):
        expand(BODY | upstream | {"model40": node("UNETLoader"), "begin": node("SVIBeginVideo", model=["model0", 0])}, 224)


def test_unrolled_clips_have_the_same_limit(pack, monkeypatch):
    cls, graph = pack.nodes.SVIUnrollClips, {"begin": node("SVIBeginVideo", anchor=["anchor", 0]), "anchor": node("Anchor")}
    dynprompt = SimpleNamespace(get_node=graph.__getitem__, all_node_ids=graph.keys)
    monkeypatch.setattr(cls, "hidden", SimpleNamespace(dynprompt=dynprompt, unique_id="unroll"), raising=False)
    assert len(cls.execute(["begin", 0], 898).expand) == 898
    with pytest.raises(
        ValueError, match="^num_clips is 899, in a row of 2 .*use 898 or fewer, or SVI Generate, which needs no row"
    ):
        cls.execute(["begin", 0], 899)


def test_the_same_stage_has_the_same_hash_in_every_copy(expand, pack):
    module = sys.modules[f"{pack.__name__}.nodes.bridge.queued_graph"]
    given = sys.modules[f"{pack.__name__}.nodes.processed_frames"]._given
    nodes, _ = expand(BODY)
    graph = module.QueuedGraph(BODY | nodes)
    writes = ("write", "repeat.clip1.write", "repeat.clip3.write")
    hashes = {module.stage_hash(graph, graph.link(name, "images"), given(graph, name)) for name in writes}
    assert len(hashes) == 1
    other = module.QueuedGraph(BODY | {"upscaler": node("UpscaleModelLoader", model_name="2x.pth")})
    assert module.stage_hash(other, graph.link("write", "images"), given(other, "write")) not in hashes


def test_a_run_that_continues_another_is_repeated_alone(expand):
    def renamed(value):
        return [f"a.{value[0]}", value[1]] if isinstance(value, list) else value

    first = {
        f"a.{name}": node(entry["class_type"], **{key: renamed(value) for key, value in entry["inputs"].items()})
        for name, entry in BODY.items()
    }
    first["a.finish"] = node("SVIFinishVideo", state=["a.repeat", 0])
    nodes, _ = expand(BODY | first | {"begin": node("SVIBeginVideo", continue_from=["a.finish", 0])}, 2)
    assert {name.removeprefix("repeat.clip1.") for name in nodes if "clip1" in name} == {"next", "frames", "large", "write"}
    assert nodes["repeat.clip1.next"]["inputs"]["state"] == ["begin", 0]
