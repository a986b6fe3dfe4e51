"""The schedule, its reports and its neighbours on a real ComfyUI process."""

import json
import time
import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui.client import ExecutionFailed, ExecutionInterrupted, PromptRejected
from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames
from tests.e2e.graphs import loop_graph, node

pytestmark = pytest.mark.e2e

SVI_HIGH = "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors"
SVI_LOW = "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors"


def scheduled(server: ComfyServer, image: Path, text: str, name: str, **options) -> dict:
    return loop_graph(server.add_input(image), prompts=[text], filename_prefix=f"svi/{name}", **options)


def clips_of(server: ComfyServer, name: str) -> list[dict]:
    return json.loads((server.output_directory / "svi" / name / "run.json").read_text())["clips"]


def latent_of(server: ComfyServer, name: str, key: str) -> torch.Tensor:
    return load_file(server.output_directory / "svi" / name / "clips" / f"{key}.safetensors")["latent"]


def test_cut_hold_seed_and_repeat_show_in_the_video(comfy_server, reference_image):
    text = "[hold 4]\na cat\n\n[cut, seed 99]\na woman\n\n[x2]\na city"
    outputs = comfy_server.run(scheduled(comfy_server, reference_image, text, "cut", clips=4))
    clips = clips_of(comfy_server, "cut")
    assert [clip["num_frames"] for clip in clips] == [9 + 4, 5, 4, 8]
    assert [clip["seed"] for clip in clips] == [5, 99, 89, 131]
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 30


def test_a_list_of_prompts_is_one_story(comfy_server, reference_image):
    """Before, ComfyUI ran SVI Generate once per prompt, in one folder."""
    graph = scheduled(comfy_server, reference_image, "", "listed", clips=2)
    graph["first"], graph["second"] = (node("PrimitiveStringMultiline", value=text) for text in ("a cat", "[seed 99]\na dog"))
    graph["list"] = node("CreateList", **{"inputs.input0": ["first", 0], "inputs.input1": ["second", 0]})
    graph["prompts"]["inputs"]["text"] = ["list", 0]
    outputs = comfy_server.run(graph)
    assert [(clip["prompt"], clip["seed"]) for clip in clips_of(comfy_server, "listed")] == [("a cat", 5), ("a dog", 99)]
    assert len(outputs["saved"]["images"]) == 1


def with_anchor(server: ComfyServer, graph: dict, name: str) -> dict:
    """Add a second anchor, the reference picture upside down, under `name`."""
    graph["flipped"] = node("ImageRotate", image=["image", 0], rotation="180 degrees")
    inputs = {"width": 64, "height": 64, "size_rule": "exact", "resize": "crop"}
    graph["anchor2"] = node("SVIAnchorEncode", vae=["vae", 0], image=["flipped", 0], **inputs)
    graph["named"] = node("SVINamedAnchor", name=name, anchor=["anchor2", 0])
    graph["generate"]["inputs"]["anchors"] = ["named", 0]
    return graph


def test_a_named_anchor_and_an_end_image_change_their_clip(comfy_server, reference_image):
    keys = {}
    for text in ("a\n\nb", "a\n\n[anchor garden]\nb", "a\n\n[cut, anchor garden]\nb", "a\n\n[end garden]\nb"):
        graph = with_anchor(comfy_server, scheduled(comfy_server, reference_image, text, "anchors", clips=2), "garden")
        comfy_server.run(graph)
        keys[text] = [clip["key"] for clip in clips_of(comfy_server, "anchors")]
    assert len({first for first, _ in keys.values()}) == 1
    seconds = [latent_of(comfy_server, "anchors", second) for _, second in keys.values()]
    assert len({tuple(latent.flatten().tolist()) for latent in seconds}) == 4


def with_lora_rows(graph: dict) -> dict:
    graph["row"] = node("SVILora", lora=SVI_HIGH, strength=1.0, lora_low_noise=SVI_LOW, strength_low_noise=1.0)
    graph["generate"]["inputs"]["loras"] = ["row", 0]
    return graph


def test_lora_strengths_by_clip_equal_the_stack_at_that_strength(comfy_server, reference_image):
    """Clip 1 without the LoRA, clip 2 with it: each equals a run whose models have, or have not, the LoRA on them."""
    text = "[lora svi=0]\na\n\n[cut]\nb"
    comfy_server.run(with_lora_rows(scheduled(comfy_server, reference_image, text, "rows", clips=2)))
    rows = [latent_of(comfy_server, "rows", clip["key"]) for clip in clips_of(comfy_server, "rows")]
    comfy_server.run(scheduled(comfy_server, reference_image, "a\n\n[cut]\nb", "plain", clips=2))
    plain = [latent_of(comfy_server, "plain", clip["key"]) for clip in clips_of(comfy_server, "plain")]
    stacked = scheduled(comfy_server, reference_image, "a\n\n[cut]\nb", "stack", clips=2)
    stacked = with_lora_rows(stacked)
    del stacked["generate"]["inputs"]["loras"]
    stacked["stack"] = node("SVILoraStack", model=["model", 0], model_low_noise=["low", 0], loras=["row", 0])
    stacked["generate"]["inputs"].update(model=["stack", 0], model_low_noise=["stack", 1])
    comfy_server.run(stacked)
    stack = [latent_of(comfy_server, "stack", clip["key"]) for clip in clips_of(comfy_server, "stack")]
    assert torch.equal(rows[0], plain[0]) and not torch.equal(rows[1], plain[1])
    assert torch.equal(rows[1], stack[1]) and not torch.equal(rows[0], stack[0])


def test_a_lora_of_a_later_clip_is_checked_before_the_first(comfy_server, reference_image, tiny_models):
    """A row at strength 0 that clip 2 raises, with one good file and one of another size of Wan."""
    module = "diffusion_model.blocks.0.self_attn.q"
    tensors = {f"{module}.lora_A.weight": torch.ones(2, 48), f"{module}.lora_B.weight": torch.ones(48, 2)}
    save_file(tensors, tiny_models / "loras" / "small_wan.safetensors")
    graph = with_lora_rows(scheduled(comfy_server, reference_image, "a\n\n[lora small=1]\nb", "later", clips=2))
    small = {"lora": "small_wan.safetensors", "strength": 0.0, "lora_low_noise": "none", "strength_low_noise": 0.0}
    graph["small"] = node("SVILora", loras=["row", 0], **small)
    graph["generate"]["inputs"]["loras"] = ["small", 0]
    with pytest.raises(ExecutionFailed, match=r"LoRA small_wan.safetensors: 0 of 1 modules fit this model.* 2 x 48"):
        comfy_server.run(graph)
    assert not (comfy_server.output_directory / "svi" / "later").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[anchor garden]\na", "the schedule names 'garden', but the anchors input has none"),
        ("[end garden]\na", "the schedule names 'garden'"),
        ("[lora svi=0.5]\na", "the schedule changes LoRA 'svi'"),
        ("[frames 5]\na", "shares 5 frames"),
    ],
)
def test_names_that_nothing_is_connected_for_are_refused_before_sampling(comfy_server, reference_image, text, words):
    with pytest.raises(ExecutionFailed, match=words):
        comfy_server.run(scheduled(comfy_server, reference_image, text, "unconnected"))
    assert not (comfy_server.output_directory / "svi" / "unconnected").exists()


def test_a_mistake_in_the_schedule_is_refused_when_queued(comfy_server, reference_image):
    with pytest.raises(PromptRejected) as caught:
        comfy_server.queue(scheduled(comfy_server, reference_image, "ok\n\n[sede 3]\nx", "mistake"))
    assert "line 3, column 2: option 'sede 3' is not known" in json.dumps(caught.value.node_errors)


def test_a_live_schedule_steers_a_run_until_it_is_stopped(comfy_server, reference_image, tmp_path):
    source = tmp_path / "live schedule.txt"
    source.write_text("one\n\ntwo", encoding="utf-8")
    name = comfy_server.add_input(source)
    live = Path(comfy_server.output_directory).parent / "input" / name
    graph = scheduled(comfy_server, reference_image, "unused", "live", clips=1, steps=20)
    graph["prompts"] = node("SVILiveSchedule", clip=["clip", 0], file=name, until_stopped=True)
    prompt_id = comfy_server.queue(graph, uuid.uuid4().hex)
    folder = comfy_server.output_directory / "svi" / "live" / "clips"
    deadline, cancelled = time.monotonic() + 120, []

    def finished() -> list[Path]:
        return [path for path in folder.glob("*.safetensors") if "staging" not in path.name]

    def steer() -> None:
        assert time.monotonic() < deadline
        if len(finished()) >= 2 and "steered" not in live.read_text(encoding="utf-8"):
            live.write_text("one\n\ntwo" + "\n\nsteered" * 100, encoding="utf-8")
        if len(finished()) >= 6 and not cancelled:
            cancelled.append(comfy_server.interrupt())

    with pytest.raises(ExecutionInterrupted):
        comfy_server.wait(prompt_id, on_poll=steer)
    prompts = [clip["prompt"] for clip in clips_of(comfy_server, "live")]
    assert prompts[:2] == ["one", "two"] and prompts[-1] == "steered" and len(prompts) >= 5
    assert count_frames(folder.parent / "video.mp4") == 9 + 4 * (len(prompts) - 1)


OUTPUT = {"budget_gb": 0.0, "seam": "auto", "colour_match": 0.0, "length_seconds": 0.0}


def test_output_settings_reach_the_file_and_the_budget_keeps_the_video(comfy_server, reference_image):
    graph = scheduled(comfy_server, reference_image, "a\n\nb", "output", clips=2)
    graph["output"] = node("SVIOutput", codec="h265", crf=30, pixel_format="yuv420p", **OUTPUT)
    graph["generate"]["inputs"]["output"] = ["output", 0]
    comfy_server.run(graph)
    folder = comfy_server.output_directory / "svi" / "output"
    graph["output"]["inputs"].update(codec="h264", budget_gb=1e-6)
    graph["generate"]["inputs"]["seed"] = 77
    outputs = comfy_server.run(graph)
    kept = {path.name.split("-")[0].split(".")[0] for path in (folder / "clips").iterdir()}
    assert kept == {clip["key"] for clip in clips_of(comfy_server, "output")}
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 13
    latents = {path.name: path.stat().st_ino for path in (folder / "clips").glob("*.safetensors")}
    graph["output"]["inputs"].update(budget_gb=0.0, decode_tiles="always")
    comfy_server.run(graph)
    assert {path.name: path.stat().st_ino for path in (folder / "clips").glob("*.safetensors")} == latents
    assert len(list((folder / "clips").glob("*-tiled-h264-*.mp4"))) == 2  # decoded again, not sampled again


def test_filmstrip_and_drift_report_of_a_run(comfy_server, reference_image):
    graph = scheduled(comfy_server, reference_image, "a cat\n\nb", "report", clips=3)
    graph["strip"] = node("SVIFilmstrip", video=["generate", 0], columns=3, frame_width=96, clip_length=0)
    graph["report"] = node("SVIDriftReport", video=["generate", 0], clip_length=0)
    graph["text"] = node("PreviewAny", source=["report", 0])
    graph["pictures"] = node("SaveImage", images=["strip", 0], filename_prefix="svi/strip")
    graph["plots"] = node("SaveImage", images=["report", 2], filename_prefix="svi/plot")
    outputs = comfy_server.run(graph)
    table = "".join(outputs["text"]["text"])
    assert table.startswith("**") and table.count("\n| ") == 1 + 3
    for name in ("pictures", "plots"):
        assert comfy_server.saved_file(outputs[name]["images"][0]).stat().st_size > 1000


def test_a_foreign_video_needs_a_clip_length(comfy_server, reference_image):
    graph = scheduled(comfy_server, reference_image, "a", "foreign", clips=2)
    comfy_server.run(graph)
    saved = max((comfy_server.output_directory / "video").glob("loop*.mp4"), key=lambda path: path.stat().st_mtime)
    name = comfy_server.add_input(saved)
    graph = {
        "video": node("LoadVideo", file=name),
        "report": node("SVIDriftReport", video=["video", 0], clip_length=0),
        "text": node("PreviewAny", source=["report", 0]),
    }
    with pytest.raises(ExecutionFailed, match="not the last video of an SVI run"):
        comfy_server.run(graph)
    graph["report"]["inputs"]["clip_length"] = 9
    assert "| 2 |" in "".join(comfy_server.run(graph)["text"]["text"])
