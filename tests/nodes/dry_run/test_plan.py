"""What SVI Plan reads from a queued graph, with ComfyUI's own folders and no node executed."""

import json
import os
import re
import shutil
import sys
import time
import wave
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from svi_core.dry_run.run_estimate import estimate_run
from svi_core.video.colour_tags import Colours
from svi_core.video.video_file import VideoCoding, write_video
from tests.e2e.graphs import HIGH, LOW, loop_graph, node
from tests.nodes.test_lora import Q, lora_path

SVI_HIGH, SVI_LOW = "SVI_v2_PRO_HIGH.safetensors", "SVI_v2_PRO_LOW.safetensors"
FILES = {
    "diffusion_models": (HIGH, LOW),
    "vae": ("wan_2.1_vae.safetensors",),
    "text_encoders": ("umt5_xxl_fp8_e4m3fn_scaled.safetensors",),
    "loras": (SVI_HIGH, SVI_LOW, "lightx2v.safetensors"),
}


@pytest.fixture
def module(pack):
    return lambda name: sys.modules[f"{pack.__name__}.nodes.{name}"]


@pytest.fixture
def folders(pack, tmp_path, monkeypatch):
    """ComfyUI's folders, with model files of 64 bytes and a header each, and a picture."""
    import folder_paths

    for kind, names in FILES.items():
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
        for name in names:
            save_file({"weight": torch.zeros(16)}, tmp_path / kind / name)
    for name in ("input", "output", "user"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    Image.new("RGB", (1000, 500), (200, 10, 10)).save(tmp_path / "input" / "picture.png")
    return tmp_path


@pytest.fixture
def graph(folders):
    graph = loop_graph("picture.png", prompts=["a cat", "a dog"], clips=2, filename_prefix="svi/planned")
    graph["plan"] = node("SVIPlan", video=["generate", 0], plan_only=True)
    for unused in ("saved", "latent"):
        del graph[unused]
    return graph


@pytest.fixture
def read_run(module):
    read_requested_run = module("dry_run.read_graph").read_requested_run
    return lambda graph: read_requested_run(graph, "plan", graph["plan"]["inputs"]["plan_only"])


def test_no_number_of_clips_means_one_for_each_prompt(graph, read_run):
    change = graph["generate"]["inputs"]
    change["num_clips"] = 0
    assert read_run(graph).plan.num_clips == 2
    graph["prompts"]["inputs"]["text"] = "a\n\n[x3]\nb"
    assert read_run(graph).plan.num_clips == 4
    del change["num_clips"]  # as the new default
    assert read_run(graph).plan.num_clips == 4


def test_all_of_a_plain_graph_is_known(graph, read_run, folders):
    found = read_run(graph)
    assert (found.plan.num_clips, found.plan.seed, found.plan.layout.num_frames) == (2, 5, 9)
    assert [found.plan.request(index).spec.prompt for index in range(2)] == ["a cat", "a dog"]
    assert (found.cfg, found.num_steps, found.size, found.value_bytes) == (2.0, 3, (64, 64), 4)
    assert found.folder == folders / "output" / "svi" / "planned"
    assert [(expert.expert, expert.file) for expert in found.experts] == [("high", HIGH), ("low", LOW)]
    assert {file.kind: file.name for file in found.files if file.kind != "diffusion_models"} == {
        "vae": "wan_2.1_vae.safetensors",
        "text_encoders": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    }
    assert all(file.num_bytes > 64 and not file.complaint for file in found.files)
    assert found.not_known == () and found.remarks == ()


def test_the_video_may_pass_through_other_nodes(graph, read_run):
    graph["slice"] = node("Video Slice", video=["generate", 0], start_time=0.0)
    graph["plan"]["inputs"]["video"] = ["slice", 0]
    assert read_run(graph).plan.num_clips == 2


def test_a_video_from_elsewhere_is_refused_by_name(graph, read_run):
    graph["plan"]["inputs"]["video"] = ["loaded", 0]
    graph["loaded"] = node("LoadVideo", file="x.mp4")
    with pytest.raises(ValueError, match="video does not come from SVI Generate"):
        read_run(graph)


@pytest.mark.parametrize(
    ("target", "name", "known"),
    [
        ("generate", "cfg", lambda found: found.cfg),
        ("generate", "filename_prefix", lambda found: found.folder),
        ("generate", "seed", lambda found: found.is_seed_known or None),
        ("sigmas", "steps", lambda found: found.num_steps),
        ("anchor", "width", lambda found: found.size),
    ],
)
def test_primitives_are_followed_and_other_nodes_are_named(graph, read_run, target, name, known):
    value = graph[target]["inputs"][name]
    graph["source"] = node("PrimitiveAnything", value=value)
    graph[target]["inputs"][name] = ["source", 0]
    expected = read_run(graph)
    assert known(expected) is not None and expected.not_known == ()
    graph["source"] = node("Compute", a=value, b=1)
    found = read_run(graph)
    assert known(found) is None and found.not_known == (f"{name}: comes from Compute (node source)",)


@pytest.mark.parametrize(
    ("guider", "cfg", "not_known"),
    [
        (node("CFGGuider", model=["model", 0], cfg=3.5), 3.5, ()),
        (node("BasicGuider", model=["model", 0]), 1.0, ()),
        (
            node("ScheduledCFG", model=["model", 0], cfg=3.5),
            None,
            ("cfg: ScheduledCFG (node guider) guides by settings of its own",),
        ),
    ],
)
def test_a_guider_decides_in_place_of_cfg(graph, read_run, guider, cfg, not_known):
    graph["guider"] = guider
    found = read_run(change(graph, "generate", guider=["guider", 0]))
    assert (found.cfg, found.not_known) == (cfg, not_known)
    assert [(expert.expert, expert.file) for expert in found.experts] == [("high", HIGH), ("low", LOW)]
    assert (found.work_of(found.plan.request(0)) is None) == (cfg is None) and found.remarks == ()
    graph["prompts"]["inputs"]["text"] = "[cfg 3]\na cat\n\na dog"
    told = read_run(change(graph, "generate", guider=["guider", 0])).remarks
    assert ["the schedule sets cfg, but" in remark for remark in told] == (
        [] if guider["class_type"] == "CFGGuider" else [True]
    )


@pytest.fixture
def talking(graph, folders):
    """The graph following a sound of 1 second, 25 frames, in clips of 9 frames, their number as the sound asks."""
    with wave.open(str(folders / "input" / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000))
    graph["sound"] = node("LoadAudio", audio="speech.wav")
    graph["talk"] = node("SVITalk", audio=["sound", 0], layout=["layout", 0], audio_cfg=5.0)
    graph = change(graph, "layout", variant="Talk")
    return change(graph, "generate", control=["talk", 0], num_clips=["talk", 1])


def test_a_sound_says_number_rate_and_passes_of_the_clips(talking, read_run):
    found = read_run(talking)
    assert (found.plan.num_clips, found.coding.frame_rate, found.max_frames) == (3, 25.0, 0)
    assert found.work_of(found.plan.request(0)).num_passes == 3
    plain = read_run(change(talking, "talk", audio_cfg=1.0))
    assert plain.work_of(plain.plan.request(0)).num_passes == 2


def test_one_clip_per_prompt_is_not_silent_where_a_sound_is_followed(talking, read_run):
    assert not any("num_clips is 0" in remark for remark in read_run(talking).remarks)
    (remark,) = (remark for remark in read_run(change(talking, "generate", num_clips=0)).remarks if "num_clips" in remark)
    assert remark.startswith("num_clips is 0, so the prompts set the number of clips, not the sound")


def test_a_layout_that_talk_refuses_is_refused(talking, read_run):
    with pytest.raises(ValueError, match="SVI Talk is connected to control: choose 'Talk'"):
        read_run(change(talking, "layout", variant="2.0 Pro"))


def test_a_sound_that_another_node_makes_is_not_known(talking, read_run):
    talking["made"] = node("TrimAudioDuration", x=1)
    talking = change(talking, "talk", audio=["made", 0])
    with pytest.raises(ValueError, match="num_clips: comes from SVITalk"):
        read_run(talking)
    found = read_run(change(talking, "generate", num_clips=4))
    assert found.plan.num_clips == 4 and any("audio of SVITalk" in text for text in found.not_known)


@pytest.fixture
def dancing(graph, folders):
    """The graph following 20 poses at 24 frames per second in clips of 9 frames, their number as the poses ask."""
    write_video(folders / "input" / "pose.mp4", [np.zeros((20, 32, 32, 3), np.uint8)], VideoCoding(frame_rate=24))
    graph["poses"] = node("LoadVideo", file="pose.mp4")
    dance = {"lora": SVI_HIGH, "when_poses_end": "loop", "pose_in_negative": True, "layout": ["layout", 0]}
    graph["dance"] = node("SVIDance", poses=["poses", 0], **dance)
    graph = change(graph, "layout", variant="Dance")
    return change(graph, "generate", control=["dance", 0], num_clips=["dance", 1])


def test_poses_say_number_rate_and_end_of_the_clips(dancing, read_run):
    """20 poses in clips of 9 frames that share one: 9 + 8 + 8 = 25 frames; stop ends the video at 20."""
    found = read_run(dancing)
    assert (found.plan.num_clips, found.coding.frame_rate, found.max_frames) == (3, 24.0, 0)
    assert read_run(change(dancing, "dance", when_poses_end="stop")).max_frames == 20
    dancing["frames"] = node("GetVideoComponents", video=["poses", 0])
    loose = read_run(change(dancing, "dance", poses=["frames", 0]))
    assert (loose.plan.num_clips, loose.coding.frame_rate) == (3, 25.0)


def test_poses_that_another_node_makes_are_not_known(dancing, read_run):
    dancing["made"] = node("SomeVideo", x=1)
    dancing = change(dancing, "dance", poses=["made", 0])
    with pytest.raises(ValueError, match="num_clips: comes from SVIDance"):
        read_run(dancing)
    found = read_run(change(dancing, "generate", num_clips=4))
    assert found.plan.num_clips == 4 and any("poses of SVIDance" in text for text in found.not_known)


@pytest.mark.parametrize(("target", "name"), [("generate", "num_clips"), ("prompts", "text"), ("layout", "num_frames")])
def test_without_these_no_clip_is_known(graph, read_run, target, name):
    graph["source"] = node("Compute", a=1, b=1)
    graph[target]["inputs"][name] = ["source", 0]
    with pytest.raises(ValueError, match=f"{name}: comes from Compute .node source., so the clips are not known"):
        read_run(graph)


def test_the_prompt_streams_own_count_is_known(graph, read_run):
    graph["prompts"]["inputs"]["text"] = "a\n\nb\n\n[x3]\nc"
    graph["generate"]["inputs"]["num_clips"] = ["prompts", 1]
    assert read_run(graph).plan.num_clips == 5


def test_the_plan_shows_how_the_text_was_read(graph, read_run, module):
    text = "1. [seed 7] a cat\n2. a dog [hold 3]\n\n[cut]\n3. an | owl\n"
    graph["prompts"]["inputs"]["text"] = text
    graph["generate"]["inputs"]["num_clips"] = ["prompts", 1]
    doubt = "schedule, line 5, column 7: '|' is part of the prompt: to begin a clip at each '|', choose split = bars."
    assert read_run(graph).remarks == (doubt,)
    plan = module("dry_run.plan").describe_run(graph, "plan", True)
    rows = [line.split(" | ") for line in plan.text.splitlines() if line.startswith("| ")][1:]
    assert [(row[0], row[3], row[5], row[6]) for row in rows] == [
        ("| 1", "7", "", "a cat |"),
        ("| 2", "47", "hold 3", "a dog |"),
        ("| 3", "89", "cut", "an \\| owl |"),
    ]
    graph["prompts"]["inputs"] |= {"split": "bars", "text": "a cat | a dog"}
    assert [read_run(graph).plan.request(index).spec.prompt for index in range(2)] == ["a cat", "a dog"]
    assert read_run(graph).remarks == ()
    graph["prompts"]["inputs"] |= {"split": "paragraphs", "text": "a cat\n\n#1 racing car"}
    assert "schedule, line 3, column 1: '#1 racing car' may be" in module("dry_run.plan").describe_run(graph, "plan", True).text


@pytest.mark.parametrize(
    ("rule", "expected"), [("exact", (64, 64)), ("fit width", (64, 32)), ("fit area", (80, 32)), ("megapixels", (896, 448))]
)  # 1000 x 500 to 64 wide is 64 x 32; to 4096 pixels 90 x 45, rounded down to 16; to 0.38 megapixels 892.7 x 446.3
def test_the_size_follows_the_picture_where_the_rule_needs_it(graph, read_run, rule, expected):
    graph["anchor"]["inputs"]["size_rule"] = rule
    assert read_run(graph).size == expected
    graph["image"] = node("EmptyImage", width=10, height=10)
    found = read_run(graph)
    assert (found.size == expected) is (rule == "exact") and (found.not_known == ()) is (rule == "exact")


def test_megapixels_count_only_for_their_rule(graph, read_run):
    """Graphs that were saved without the widget keep the hash by which a run of before is found."""
    before = read_run(graph).plan.graph_hash
    graph["anchor"]["inputs"]["megapixels"] = 0.5
    assert read_run(graph).plan.graph_hash == before
    graph["anchor"]["inputs"]["size_rule"] = "megapixels"
    found = read_run(graph)
    graph["anchor"]["inputs"]["megapixels"] = 0.88
    assert found.size == (1024, 512) and read_run(graph).size == (1360, 672)
    assert len({before, found.plan.graph_hash, read_run(graph).plan.graph_hash}) == 3


def test_megapixels_count_for_a_linked_rule_which_may_be_theirs(graph, read_run):
    graph["rule"] = node("PrimitiveString", value="megapixels")
    hashes = set()
    for megapixels in (0.5, 0.88):
        graph["anchor"]["inputs"] |= {"size_rule": ["rule", 0], "megapixels": megapixels}
        hashes.add(read_run(graph).plan.graph_hash)
    assert len(hashes) == 2


def test_a_size_that_wan_cannot_take_is_refused(graph, read_run):
    graph["anchor"]["inputs"]["width"] = 850
    with pytest.raises(ValueError, match="video width is 850 pixels"):
        read_run(graph)


def test_output_settings_and_unknown_sigmas(graph, read_run):
    settings = {"codec": "h265", "crf": 25, "pixel_format": "yuv420p", "seam": "eased", "length_seconds": 1.0}
    graph["output"] = node("SVIOutput", budget_gb=0.0, colour_match=0.0, **settings)
    graph["generate"]["inputs"]["output"] = ["output", 0]
    graph["sigmas"] = node("SplitSigmas", sigmas=["elsewhere", 0], step=2)
    found = read_run(graph)
    assert (found.coding.codec, found.coding.crf, found.plan.seam, found.max_frames) == ("h265", 25, "eased", 16)
    assert found.not_known == ("steps: sigmas come from SplitSigmas (node sigmas)",)


def split(graph, denoise):
    graph["split"] = node("SplitSigmasDenoise", sigmas=["sigmas", 0], denoise=denoise)
    return change(graph, "generate", sigmas=["split", 1])


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_scheduler_that_leaves_noise_out_is_refused_by_name(graph, read_run, is_split, is_linked):
    graph["number"] = node("PrimitiveFloat", value=0.5)
    graph = change(graph, "sigmas", denoise=["number", 0] if is_linked else 0.5)
    with pytest.raises(
        ValueError, match=r"denoise of BasicScheduler \(node sigmas\) is 0.5, but every clip begins as pure noise"
    ):
        read_run(split(graph, 0.34) if is_split else graph)


def test_sigmas_that_are_split_on_purpose_or_not_known_are_taken(graph, read_run):
    read_run(split(graph, 0.34))
    graph["source"] = node("Compute", a=1, b=1)
    read_run(change(graph, "sigmas", denoise=["source", 0]))


def test_output_settings_that_are_not_known_count_as_their_defaults(graph, read_run):
    graph["source"] = node("Compute", a=1, b=1)
    graph["output"] = node("SVIOutput", codec="h265", crf=["source", 0])
    graph = change(graph, "generate", output=["output", 0])
    found = read_run(graph)
    assert (found.coding.codec, found.coding.crf) == ("h265", 18)
    assert found.not_known == ("crf: comes from Compute (node source)",)
    with pytest.raises(ValueError, match="budget_gb is -1"):
        read_run(change(graph, "output", budget_gb=-1))


@pytest.fixture
def today(monkeypatch):
    """The date, which stays the same when midnight passes."""
    now = time.localtime()
    monkeypatch.setattr(time, "localtime", lambda *seconds: now)
    return time.strftime("%Y-%m-%d", now)


def test_the_prefix_holds_what_save_image_knows(graph, read_run, folders, today):
    graph["sampler"]["_meta"] = {"title": "My sampler"}
    graph["elsewhere"] = node("Compute", a=1, b=1)
    prefix = "svi/%date:yyyy-MM-dd%/%My sampler.sampler_name%_%SVIGenerate.cfg%_%width%x%height%_%x%"
    found = read_run(change(graph, "generate", filename_prefix=prefix))
    assert found.folder == folders / "output/svi" / today / "euler_2_64x64_%x%" and found.not_known == ()
    for prefix, words in (
        ("%Nobody.seed%", "filename_prefix holds %Nobody.seed%, but no node is called 'Nobody'"),
        ("%Compute.a%", "that node does not lead to this one"),
        ("%My sampler.seed%", "the node 'My sampler' has no widget 'seed'"),
        ("%date%", "write %date:yyyy-MM-dd% in place of %date%"),
        ("%date:hh:mm%", "use a relative name"),
    ):
        with pytest.raises(ValueError, match=words):
            read_run(change(graph, "generate", filename_prefix=prefix))


def test_a_run_with_the_time_in_its_name_goes_on_where_it_began(graph, read_run, folders, module, today):
    graph = change(graph, "generate", filename_prefix="svi/%year%-%month%-%day%/story")
    run = read_run(graph)
    assert run.folder == folders / "output/svi" / today / "story"
    clips = folders / "output/svi/2001-02-03/story/clips"
    clips.mkdir(parents=True)
    record = {"key": "k", "index": 0, "prompt": "a cat", "seed": 5, "segments": {}, "plan_key": run.plan.first_key}
    (clips / "k.json").write_text(json.dumps(record))
    (clips / "k.safetensors").touch()
    later = change(change(graph, "generate", num_clips=1, seed_mode="fixed"), "prompts", text="a cat\n\n[seed 3]\nan owl")
    for going_on in (graph, later):
        assert read_run(going_on).folder == clips.parent
    assert (
        f"- folder: {clips.parent}, where this run began\n" in module("dry_run.plan").describe_run(graph, "plan", True).summary
    )
    for other in (change(graph, "generate", seed=6), change(graph, "prompts", text="an owl")):
        assert read_run(other).folder == run.folder
        assert f"- folder: {run.folder}\n" in module("dry_run.plan").describe_run(other, "plan", True).summary


def test_a_folder_that_depends_on_what_is_not_known_is_not_known(graph, read_run):
    graph["source"] = node("Compute", a=1, b=1)
    dated = change(graph, "generate", filename_prefix="svi/%year%", seed=["source", 0])
    assert read_run(dated).folder is None
    assert any("whether this run began earlier is not known" in what for what in read_run(dated).not_known)
    named = change(graph, "generate", filename_prefix="svi/%SVIGenerate.cfg%", cfg=["source", 0])
    assert any("filename_prefix holds %SVIGenerate.cfg%, which no widget sets" in what for what in read_run(named).not_known)
    sized = change(change(graph, "generate", filename_prefix="svi/%width%"), "anchor", width=["source", 0])
    assert "filename_prefix: width is not known yet" in read_run(sized).not_known


def test_a_video_to_continue_is_read_where_it_is_a_file(graph, read_run, folders, pack):
    video_file = sys.modules[f"{pack.__name__}.svi_core.video.video_file"]
    video_file.write_video(folders / "input" / "before.mp4", [np.zeros((20, 64, 64, 3), np.uint8)], video_file.VideoCoding())
    graph["loaded"] = node("LoadVideo", file="before.mp4")
    graph["start"] = node("SVIContinueVideo", video=["loaded", 0], run="", trim_end=4)
    graph["generate"]["inputs"]["continue_from"] = ["start", 0]
    found = read_run(graph)
    assert (found.num_start_frames, found.start_seconds, found.has_keys) == (16, 1.0, True)
    assert len(found.plan.continues) == 64 and not found.plan.request(0).starts_anew
    graph["loaded"] = node("VideoMaker", seed=1)
    found = read_run(graph)
    assert found.num_start_frames == 0 and not found.has_keys and not found.plan.request(0).starts_anew
    assert found.not_known[0].startswith("continue_from: ") and "VideoMaker (node loaded)" in found.not_known[0]


def test_a_continued_video_that_the_run_would_refuse_is_refused(graph, read_run, folders):
    write_video(folders / "input" / "before.mp4", [np.zeros((20, 64, 64, 3), np.uint8)], VideoCoding())
    graph["loaded"] = node("LoadVideo", file="before.mp4")
    graph["start"] = node("SVIContinueVideo", video=["loaded", 0], run="", trim_end=0)
    graph = change(graph, "generate", continue_from=["start", 0])
    graph["source"] = node("Compute", a=1, b=1)
    write_video(folders / "input" / "wide.mp4", [np.zeros((2, 62, 128, 3), np.uint8)], VideoCoding())
    write_video(folders / "input" / "hdr.mp4", [np.zeros((2, 64, 64, 3), np.uint8)], VideoCoding(colours=Colours(9, 9, 18)))
    for target, inputs, words in (
        ("loaded", {"file": "wide.mp4"}, r"wide.mp4\) has 128 x 62 pixels, .* 64 x 64: encode the anchor at 128 x 64"),
        ("loaded", {"file": "hdr.mp4"}, r"hdr.mp4 has HDR \(HLG\) colours"),
        ("start", {"run": "svi/other"}, "either video or run"),
        ("start", {"trim_end": 20}, "trim_end is 20, but before.mp4 has 20 frames"),
        ("start", {"trim_end": ["source", 0]}, "trim_end: comes from Compute .* so the clips are not known"),
        ("loaded", {"file": ["source", 0]}, "file: comes from Compute .* so the clips are not known"),
        ("loaded", {"file": "gone.mp4"}, "is not in ComfyUI's input folder"),
    ):
        with pytest.raises(ValueError, match=words):
            read_run(change(graph, target, **inputs))


def test_loras_are_read_from_rows_stacks_and_stock_loaders(graph, read_run):
    graph["row"] = node("SVILora", lora=SVI_HIGH, strength=1.0, lora_low_noise=SVI_LOW, strength_low_noise=0.8)
    graph["stack"] = node("SVILoraStack", model=["fast", 0], model_low_noise=["low", 0], loras=["row", 0])
    graph["fast"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name="lightx2v.safetensors", strength_model=0.5)
    graph["generate"]["inputs"].update(model=["stack", 0], model_low_noise=["stack", 1])
    high, low = read_run(graph).experts
    assert [(use.name, use.strength, use.named_for) for use in high.loras] == [
        (SVI_HIGH, 1.0, "high"),
        ("lightx2v.safetensors", 0.5, None),
    ]
    assert [(use.name, use.strength, use.named_for) for use in low.loras] == [(SVI_LOW, 0.8, "low")]
    assert (high.file, low.file) == (HIGH, LOW)
    graph["generate"]["inputs"].update(model=["fast", 0], model_low_noise=["low", 0], loras=["row", 0])
    found = read_run(graph)
    assert found.lora_rows == (SVI_HIGH, SVI_LOW)
    assert [use.name for use in found.experts[0].loras] == ["lightx2v.safetensors", SVI_HIGH]


def test_the_header_of_a_lora_says_more_than_its_name(graph, read_run, folders):
    save_file({"a": torch.zeros(1)}, folders / "loras" / "lightx2v.safetensors", {"svi.expert": "low"})
    graph["fast"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name="lightx2v.safetensors", strength_model=1.0)
    graph["generate"]["inputs"]["model"] = ["fast", 0]
    assert read_run(graph).experts[0].loras[0].named_for == "low"


def test_files_that_are_missing_or_cut_off_are_found(graph, read_run, folders):
    (folders / "vae" / "wan_2.1_vae.safetensors").unlink()
    path = folders / "diffusion_models" / HIGH
    path.write_bytes(path.read_bytes()[:-4])
    files = {file.name: file for file in read_run(graph).files}
    assert files["wan_2.1_vae.safetensors"].num_bytes is None
    assert "cannot be read as safetensors" in files[HIGH].complaint and files[LOW].complaint == ""


@pytest.mark.parametrize(
    ("model", "in_dim", "found"),
    [
        ("CameraWanModel", 36, "is Wan Fun-Camera .*, but SVI needs a Wan image-to-video model"),
        ("WanModel", 16, "a text-to-video model"),
        ("WanModel", 36, None),
    ],
)
def test_a_model_that_the_run_refuses_is_found_in_its_header(graph, read_run, folders, model, in_dim, found):
    import comfy.ldm.wan.model
    import comfy.ops

    sizes = {"dim": 128, "ffn_dim": 8, "num_heads": 1, "num_layers": 1, "text_dim": 8}
    made = getattr(comfy.ldm.wan.model, model)("t2v", in_dim=in_dim, operations=comfy.ops.disable_weight_init, **sizes)
    prefixed = {f"model.diffusion_model.{key}": value for key, value in made.state_dict().items()}  # as in a checkpoint
    save_file(prefixed, folders / "diffusion_models" / LOW)
    (complaint,) = [file.complaint for file in read_run(graph).files if file.name == LOW]
    assert re.search(found, complaint) and complaint.startswith(LOW) if found else complaint == ""


@pytest.mark.parametrize(
    ("file", "layout", "is_linked", "matters"),
    [
        ("wan 2.1", "2.0 Pro", True, True),
        ("wan 2.1", "2.0 Pro", False, False),
        ("wan 2.2", "2.0 Pro", True, False),
        ("unknown", "2.0 Pro", True, True),
        ("damaged", "2.0 Pro", True, True),
        ("wan 2.2", "2.0", False, True),
    ],
)
def test_clips_in_tiles_are_told_from_others_where_clip_vision_or_the_layout_sees_frames(
    graph, read_run, folders, file, layout, is_linked, matters
):
    """Otherwise the plan calls the clips of a whole decode stored, and the run samples each anew."""
    import comfy.ldm.wan.model
    import comfy.ops

    if file == "damaged":
        (folders / "diffusion_models" / HIGH).write_bytes(b"no header")
    elif file != "unknown":
        sizes = {"dim": 128, "ffn_dim": 8, "num_heads": 1, "num_layers": 1, "text_dim": 8}
        kind = "i2v" if file == "wan 2.1" else "t2v"
        made = comfy.ldm.wan.model.WanModel(kind, in_dim=36, operations=comfy.ops.disable_weight_init, **sizes)
        save_file(made.state_dict(), folders / "diffusion_models" / HIGH)
    graph["layout"]["inputs"]["variant"] = layout
    graph["output"] = node("SVIOutput", codec="h264", crf=18, pixel_format="yuv420p", decode_tiles="auto")
    graph["generate"]["inputs"]["output"] = ["output", 0]
    if is_linked:
        graph["vision"] = node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors")
        graph["generate"]["inputs"]["clip_vision"] = ["vision", 0]

    def keys():
        plan = read_run(graph).plan
        return plan.graph_hash, plan.first_key

    whole = keys()
    graph["output"]["inputs"]["decode_tiles"] = "never"
    assert keys() == whole
    graph["output"]["inputs"]["decode_tiles"] = "always"
    assert all(tiled != other for tiled, other in zip(keys(), whole, strict=True)) is matters


def test_a_malformed_lora_is_told_before_anything_loads(graph, read_run, folders):
    save_file({"blocks.0.ffn.0.lora_B.weight": torch.ones(4, 1)}, folders / "loras" / "lightx2v.safetensors")
    graph["fast"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name="lightx2v.safetensors", strength_model=1.0)
    graph["generate"]["inputs"]["model"] = ["fast", 0]
    files = {file.name: file for file in read_run(graph).files}
    assert "'lora_A.weight' is missing beside 'blocks.0.ffn.0.lora_B.weight'" in files["lightx2v.safetensors"].complaint


def test_results_past_the_plan_are_told_only_for_a_dry_run(graph, read_run):
    graph["latent"] = node("SaveLatent", samples=["generate", 1], filename_prefix="x")
    assert "SaveLatent (node latent) is connected to SVI Generate" in read_run(graph).remarks[0]
    graph["plan"]["inputs"]["plan_only"] = False
    assert read_run(graph).remarks == ()


def change(graph, target, **inputs):
    return {**graph, target: {**graph[target], "inputs": {**graph[target]["inputs"], **inputs}}}


@pytest.mark.parametrize(
    ("target", "inputs", "matters"),
    [
        ("prompts", {"text": "other words", "split": "lines"}, False),
        ("generate", {"num_clips": 9, "seed": 3, "seed_mode": "fixed", "filename_prefix": "svi/x"}, False),
        ("layout", {"num_frames": 81}, False),  # each clip's own key holds it
        ("generate", {"cfg": 2.5}, True),
        ("generate", {"boundary": 0.5}, True),
        ("sigmas", {"steps": 4}, True),
        ("sampler", {"sampler_name": "uni_pc"}, True),
        ("negative", {"text": "grey"}, True),
        ("anchor", {"resize": "stretch"}, True),
        ("model", {"weight_dtype": "fp8_e4m3fn"}, True),
        ("generate", {"model": ["low", 0]}, True),
    ],
)
def test_the_graph_hash_changes_with_what_changes_clips(graph, module, target, inputs, matters):
    graph_hash = module("bridge.queued_graph").graph_hash
    before = graph_hash(graph, "generate")
    assert len(before) == 64 and (graph_hash(change(graph, target, **inputs), "generate") != before) is matters


def test_the_graph_hash_knows_files_and_not_ids(graph, module, folders):
    graph_hash = module("bridge.queued_graph").graph_hash
    before = graph_hash(graph, "generate")
    renamed = {f"10:{name}": {**entry, "inputs": dict(entry["inputs"])} for name, entry in graph.items()}
    for entry in renamed.values():
        links = {key: [f"10:{value[0]}", value[1]] for key, value in entry["inputs"].items() if isinstance(value, list)}
        entry["inputs"].update(links)
    assert graph_hash(renamed, "10:generate") == before
    shutil.copyfile(folders / "input" / "picture.png", folders / "input" / "copy.png")
    os.replace(folders / "input" / "copy.png", folders / "input" / "picture.png")
    assert graph_hash(graph, "generate") == before, "a picture is known by its content"
    Image.new("RGB", (1000, 500), (10, 200, 10)).save(folders / "input" / "picture.png")
    assert graph_hash(graph, "generate") != before
    os.utime(folders / "diffusion_models" / LOW, ns=(1, 1))
    touched = graph_hash(graph, "generate")
    assert len({before, touched, graph_hash(graph, "not there")}) == 3 and graph_hash(graph, "not there") == "" == graph_hash(
        None, "1"
    )


def test_a_cycle_or_a_missing_node_ends_the_walk(module):
    graph = {"a": node("A", x=["b", 0]), "b": node("B", x=["a", 0], y=["gone", 1])}
    assert len(module("bridge.queued_graph").graph_hash(graph, "a")) == 64
    assert module("bridge.queued_graph").QueuedGraph(graph).upstream("a") == ["a", "b"]


def test_what_a_run_took_is_noted_for_its_models(graph, module, folders, pack):
    store_module = sys.modules[f"{pack.__name__}.svi_core.store.run_store"]
    measures = {"num_steps": 3, "num_passes": 2, "num_slots": 3, "latent_height": 8, "latent_width": 8, "sample_seconds": 2.0}
    key = "a" * 64
    hidden = SimpleNamespace(prompt=graph, unique_id="generate")
    with store_module.RunStore(folders / "run") as store:
        store.save_latent(store_module.ClipRecord(key, 0, "", 0, {}, measures=measures), torch.zeros(1))
        clips = [store_module.ShownClip(key, "", 0, 9), store_module.ShownClip("", "", 0, 9)]
        module("bridge.clip_times").note_run(hidden, store, clips)
        module("bridge.clip_times").note_run(SimpleNamespace(prompt=None, unique_id=None), store, clips)
    (time,) = module("bridge.clip_times").earlier_times()
    assert (time.seconds, time.models, time.work.num_slots) == (2.0, (HIGH, LOW), 3)


def test_a_plan_of_nothing_says_what_is_wrong(module, folders):
    run = module("dry_run.plan").describe_run({"plan": node("SVIPlan", plan_only=True)}, "plan", True)
    assert run.text == run.summary
    assert run.text.startswith("This run cannot be planned: video does not come from SVI Generate")
    assert run.picture.shape[1:] == (1280, 3)


def test_the_video_is_asked_for_only_when_it_is_to_be_made(module):
    plan = module("dry_run.plan").SVIPlan
    assert plan.check_lazy_status(True) == [] and plan.check_lazy_status(False) == ["video"]
    assert plan.check_lazy_status(False, video=object()) == []
    assert plan.fingerprint_inputs(plan_only=False) == ""
    assert plan.fingerprint_inputs(plan_only=True) != ""


def with_lora(graph, name, stock=False):
    """Return `graph` with a LoRA on its model, put on by SVI LoRA Stack or by ComfyUI's own loader."""
    graph["row"] = node("SVILora", lora=name, strength=1.0, lora_low_noise="none", strength_low_noise=1.0)
    graph["stack"] = node("SVILoraStack", model=["model", 0], loras=["row", 0])
    if stock:
        graph["stack"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name=name, strength_model=1.0)
    graph["generate"]["inputs"]["model"] = ["stack", 0]
    return graph


def test_auto_takes_the_layout_from_the_lora_as_the_run_will(graph, read_run, folders):
    save_file({"weight": torch.zeros(16)}, folders / "loras" / "svi-film.safetensors")
    graph["layout"]["inputs"]["variant"] = "auto"
    assert read_run(with_lora(graph, "svi-film.safetensors")).plan.layout.name == "Film"
    assert read_run(with_lora(graph, SVI_HIGH)).plan.layout.name == "2.0 Pro"
    for lora, stock in (("lightx2v.safetensors", False), ("svi-film.safetensors", True)):
        with pytest.raises(ValueError, match="'auto' needs a LoRA that says"):
            read_run(with_lora(graph, lora, stock))


def test_a_lora_of_another_system_is_noted_for_the_advice(graph, read_run, folders):
    save_file({"weight": torch.zeros(16)}, folders / "loras" / "mine.safetensors", {"svi.layout": "Film"})
    for stock in (False, True):
        (use,) = read_run(with_lora(graph, "mine.safetensors", stock)).experts[0].loras
        assert use.variant.layouts[0] == "Film" and use.variant.is_certain and use.is_checked is not stock


@pytest.mark.parametrize(("form", "is_lost"), [("svi 1.0", True), ("kijai and ours", False)])
def test_a_lora_whose_keys_comfyui_s_own_loader_drops_is_told(graph, read_run, folders, tiny_models, form, is_lost):
    """The dialects are those of the released files; SVI LoRA Stack reads both."""
    shutil.copy(tiny_models / "diffusion_models" / HIGH, folders / "diffusion_models" / HIGH)
    lora_path(folders / "loras", SVI_HIGH, [Q], form=form)
    for stock in (True, False):
        run = read_run(with_lora(graph, SVI_HIGH, stock))
        assert run.experts[0].loras[0].changes_nothing is (is_lost and stock)
        warned = [
            warning for warning in estimate_run(run).warnings if f"applies {SVI_HIGH} finds none of its weights" in warning
        ]
        assert bool(warned) is (is_lost and stock)


def test_a_lora_of_svi_that_comes_by_a_switch_is_not_called_missing(graph, read_run):
    bare = graph | {"generate": {**graph["generate"], "inputs": {**graph["generate"]["inputs"], "model": ["choice", 0]}}}
    bare["choice"] = node("AnySwitch", first=["lora", 0], second=["model", 0])
    bare["lora"] = node("LoraLoaderModelOnly", model=["model", 0], lora_name=SVI_HIGH, strength_model=0.9)

    def warned():
        return [
            text for text in estimate_run(read_run(bare)).warnings if "needs the LoRA of SVI" in text and "on model " in text
        ]

    assert str(read_run(bare).experts[0].on_it.loras[0]) == f"{SVI_HIGH} at 0.9" and not warned()
    bare["lora"]["inputs"]["lora_name"] = "lightx2v.safetensors"
    assert warned()


@pytest.mark.parametrize(
    ("name", "links", "chain_ends"),
    [
        ("ModelMergeSimple", {"model1": ["model", 0], "model2": ["low", 0]}, True),
        ("ExpertSwitch", {"model_high": ["model", 0], "model_low": ["low", 0]}, True),
        ("ComboPatcher", {"model": ["model", 0], "low": ["low", 0]}, False),
    ],
)
def test_one_model_that_another_node_makes_of_both_experts_is_not_called_half_a_pair(graph, read_run, name, links, chain_ends):
    """Such a node switches or merges by itself: SVI Generate samples all steps with what it gives."""
    graph["joined"] = node(name, **links)
    graph["loaded"] = node("LoraLoaderModelOnly", model=["joined", 0], lora_name=SVI_HIGH, strength_model=1.0)
    graph = change(graph, "generate", model=["loaded", 0])
    del graph["generate"]["inputs"]["model_low_noise"]
    found = read_run(graph)
    assert [(expert.expert, expert.file) for expert in found.experts] == [("model", None if chain_ends else HIGH)]
    told = [warning for warning in estimate_run(found).warnings if "expert" in warning or "LoRA" in warning]
    assert told == []
    graph["generate"]["inputs"]["model"] = ["joined", 0]
    (told,) = [warning for warning in estimate_run(read_run(graph)).warnings if "expert" in warning or "LoRA" in warning]
    assert told.startswith("it cannot be told whether a LoRA of SVI is merged into model, but")
    graph["generate"]["inputs"]["model"] = ["model", 0]
    (half, missing) = [
        warning for warning in estimate_run(read_run(graph)).warnings if "expert" in warning or "LoRA" in warning
    ]
    assert f"{HIGH} is the high-noise expert" in half + missing and "no LoRA is on model" in half + missing


def test_the_lora_of_the_other_expert_is_not_taken_for_one_by_a_switch(graph, read_run):
    both = with_lora(graph, "none")
    both["row"]["inputs"]["lora_low_noise"] = SVI_LOW
    both["low"] = node("UNETLoader", unet_name=LOW, weight_dtype="default")
    both["stack"]["inputs"]["model_low_noise"] = ["low", 0]
    both["generate"]["inputs"] |= {"model": ["stack", 0], "model_low_noise": ["stack", 1]}
    on = [[str(lora) for lora in expert.on_it.loras] for expert in read_run(both).experts]
    assert on == [[], [f"{SVI_LOW} at 1"]]


def test_a_vae_in_half_precision_is_told_where_frames_go_through_it(graph, read_run, monkeypatch):
    import comfy.model_management

    graph["layout"]["inputs"]["variant"] = "Shot"
    assert read_run(graph).remarks == ()  # on the CPU it runs in fp32
    monkeypatch.setattr(comfy.model_management, "vae_dtype", lambda device, dtypes: dtypes[0])
    (remark,) = read_run(graph).remarks
    assert "layout 'Shot' sends frames through the VAE between clips, and it runs in bfloat16" in remark
    graph["layout"]["inputs"]["variant"] = "2.0 Pro"
    assert read_run(graph).remarks == ()
