"""SVI Generate on a real ComfyUI process: equal to the unrolled graph, right length, survives failure and interrupt."""

import json
import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui.client import ExecutionFailed, ExecutionInterrupted, PromptRejected
from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames
from tests.e2e.graphs import HIGH, LOW, T2V, WAN21, loop_graph, node, unrolled_graph

pytestmark = pytest.mark.e2e

SVI_HIGH = "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors"
SVI_LOW = "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors"


def latent(server: ComfyServer, outputs: dict, name: str) -> torch.Tensor:
    return load_file(server.saved_file(outputs[name]["latents"][0]))["latent_tensor"]


def run_folder(server: ComfyServer, prefix: str) -> Path:
    return server.output_directory / prefix


def manifest(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(
    ("layout", "building_blocks"),
    [
        ({"variant": "2.0 Pro"}, {}),
        ({"variant": "2.0 Pro", "num_motion_frames": 8, "num_frames": 13}, {"num_motion_frames": "8", "num_frames": 13}),
        ({"variant": "Shot"}, {"padding": "anchor frames", "num_motion_frames": "1"}),
        ({"variant": "Film"}, {"padding": "grey frames", "num_motion_frames": "5"}),
    ],
    ids=lambda value: value.get("variant", ""),
)
def test_the_loop_equals_the_unrolled_stock_graph_bit_for_bit(comfy_server, reference_image, layout, building_blocks):
    image = comfy_server.add_input(reference_image)
    unrolled = unrolled_graph(image, **building_blocks)
    outputs = comfy_server.run(unrolled)
    expected = [latent(comfy_server, outputs, f"latent{index}") for index in range(3)]
    assert not torch.equal(expected[0], expected[1])
    for clips in (1, 3):
        found = latent(comfy_server, comfy_server.run(loop_graph(image, clips=clips, **layout)), "latent")
        assert torch.equal(found, expected[clips - 1])


def test_one_model_without_experts_equals_the_unrolled_graph(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    outputs = comfy_server.run(unrolled_graph(image, clips=2, low=None))
    found = latent(comfy_server, comfy_server.run(loop_graph(image, clips=2, low=None)), "latent")
    assert torch.equal(found, latent(comfy_server, outputs, "latent1"))


def test_a_cfg_guider_gives_the_clips_of_cfg_bit_for_bit_and_another_guider_its_own(comfy_server, reference_image):
    """Its model and prompts are not the run's; ComfyUI caches it, so the second run finds it as the first left it."""
    image = comfy_server.add_input(reference_image)
    latents, folders = {}, {}
    for name, guider in {
        "cfg": None,
        "CFGGuider": node("CFGGuider", positive=["other", 0], negative=["other", 0], cfg=2.0),
        "again": node("CFGGuider", positive=["other", 0], negative=["other", 0], cfg=2.0),
        "PerpNegGuider": node(
            "PerpNegGuider",
            positive=["other", 0],
            negative=["other", 0],
            empty_conditioning=["other", 0],
            cfg=2.0,
            neg_scale=0.5,
        ),
    }.items():
        graph = loop_graph(image, clips=2, filename_prefix=f"svi/guided/{name}")
        if guider:
            graph["other"] = node("CLIPTextEncode", clip=["clip", 0], text="")
            graph["guider"] = guider
            guider["inputs"]["model"] = ["model", 0]
            graph["generate"]["inputs"] |= {"guider": ["guider", 0], "cfg": 7.0}
        latents[name] = latent(comfy_server, comfy_server.run(graph), "latent")
        folders[name] = {path.stem for path in (run_folder(comfy_server, f"svi/guided/{name}") / "clips").glob("*.safetensors")}
    assert torch.equal(latents["cfg"], latents["CFGGuider"]) and torch.equal(latents["cfg"], latents["again"])
    assert not torch.equal(latents["cfg"], latents["PerpNegGuider"])
    assert folders["CFGGuider"] == folders["again"] and not folders["CFGGuider"] & (folders["cfg"] | folders["PerpNegGuider"])


def test_a_guider_whose_model_has_a_patch_of_its_own_is_refused_before_any_step(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image), clips=1, filename_prefix="svi/guided/refused")
    graph["patched"] = node("RescaleCFG", model=["model", 0], multiplier=0.7)
    graph["guider"] = node("CFGGuider", model=["patched", 0], positive=["negative", 0], negative=["negative", 0], cfg=2.0)
    graph["generate"]["inputs"]["guider"] = ["guider", 0]
    with pytest.raises(ExecutionFailed, match=r"guider \(CFGGuider\) has a patch on its model \(sampler_cfg_function\)"):
        comfy_server.run(graph)
    assert not run_folder(comfy_server, "svi/guided/refused").exists()


def test_the_model_attention_backend_of_newer_comfyui_attends_and_its_clips_are_known(comfy_server, reference_image):
    if "ModelAttentionBackend" not in comfy_server.object_info():
        pytest.skip("this ComfyUI has no Model Attention Backend")
    graph = loop_graph(comfy_server.add_input(reference_image), clips=2, filename_prefix="svi/backend")
    plain = comfy_server.run(loop_graph(comfy_server.add_input(reference_image), clips=2, filename_prefix="svi/no backend"))
    for model in ("model", "low"):
        graph[f"{model} backend"] = node("ModelAttentionBackend", model=[model, 0], attention="pytorch attention")
    graph["generate"]["inputs"] |= {"model": ["model backend", 0], "model_low_noise": ["low backend", 0]}
    outputs, kept = [], []
    for _ in range(2):
        outputs.append(comfy_server.run(graph))
        kept.append({path.stem for path in (run_folder(comfy_server, "svi/backend") / "clips").glob("*.safetensors")})
        comfy_server.post_json("/free", {"unload_models": True, "free_memory": True})  # the model is made anew
    others = latent(comfy_server, plain, "latent")  # by ComfyUI's own choice on a CPU, which rounds in another order
    torch.testing.assert_close(latent(comfy_server, outputs[0], "latent"), others, rtol=0, atol=1e-5)
    assert len(kept[0]) == 2 and kept[0] == kept[1]


def test_seed_and_seed_mode_matter(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    made = {
        name: latent(comfy_server, comfy_server.run(loop_graph(image, clips=2, **options)), "latent")
        for name, options in {
            "per clip": {},
            "fixed": {"seed_mode": "fixed"},
            "other seed": {"seed": 6},
        }.items()
    }
    assert not torch.equal(made["per clip"], made["fixed"])
    assert not torch.equal(made["per clip"], made["other seed"])


@pytest.mark.parametrize(
    ("variant", "num_frames", "expected"),
    [("2.0 Pro", 81, 3 * 76 + 5), ("2.0", 9, 3 * 8 + 1), ("Shot", 9, 3 * 8 + 1), ("Film", 9, 3 * 4 + 5)],
)
def test_the_video_has_exactly_the_frames_of_the_formula(comfy_server, reference_image, variant, num_frames, expected):
    graph = loop_graph(
        comfy_server.add_input(reference_image),
        variant=variant,
        num_frames=num_frames,
        filename_prefix=f"svi/length {variant}",
        steps=1,
    )
    outputs = comfy_server.run(graph)
    saved = comfy_server.saved_file(outputs["saved"]["images"][0])
    folder = run_folder(comfy_server, f"svi/length {variant}")
    assert count_frames(saved) == count_frames(folder / manifest(folder)["video"]) == expected
    assert sum(count_frames(path) for path in (folder / "clips").glob("*.mp4")) == expected


def test_widgets_may_be_linked(comfy_server, reference_image):
    """A text node, a number node: their values are not known when the graph is queued, and are checked later."""
    graph = loop_graph(comfy_server.add_input(reference_image), clips=1)
    graph["words"] = node("PrimitiveStringMultiline", value="a cat\n\na dog")
    graph["number"] = node("PrimitiveInt", value=9)
    graph["name"] = node("PrimitiveString", value="svi/linked")
    graph["prompts"]["inputs"]["text"] = ["words", 0]
    graph["layout"]["inputs"]["num_frames"] = ["number", 0]
    graph["generate"]["inputs"].update(filename_prefix=["name", 0], num_clips=["prompts", 1])
    outputs = comfy_server.run(graph)
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 13
    graph["number"]["inputs"]["value"] = 10
    with pytest.raises(ExecutionFailed, match="num_frames is 10"):
        comfy_server.run(graph)


def test_a_result_that_was_removed_is_made_again(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image), clips=2, filename_prefix="svi/removed", seed=31)
    comfy_server.run(graph)
    folder = run_folder(comfy_server, "svi/removed")
    (folder / manifest(folder)["video"]).unlink()
    graph["saved"]["inputs"]["filename_prefix"] = "video/again"
    outputs = comfy_server.run(graph)
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 13


def test_one_progress_bar_counts_the_steps_of_the_whole_run(comfy_server, reference_image):
    client = uuid.uuid4().hex
    with comfy_server.events(client) as events:
        graph = loop_graph(comfy_server.add_input(reference_image), steps=40, seed=11)
        comfy_server.wait(comfy_server.queue(graph, client))
        shown = [data for kind, data in events.drain() if kind == "progress" and data["node"] == "generate"]
        assert events.num_previews > 3, "pictures of the steps"
    assert {data["max"] for data in shown} == {3 * 41}, "the frames of a clip count as a step"
    values = [data["value"] for data in shown]
    assert values == sorted(values) and values[-1] == 3 * 41 and len(values) > 5


@pytest.mark.parametrize(
    ("num_clips", "made", "said"),
    [
        (0, ["one", "two"], None),
        (1, ["one"], ("warn", "the schedule describes 2 clips, but num_clips is 1: the rest is not made.")),
        (3, ["one", "two", "two"], ("info", "the schedule describes 2 of 3 clips: its last prompt holds for clip 3.")),
    ],
)
def test_another_number_of_clips_than_of_prompts_is_said(comfy_server, reference_image, num_clips, made, said):
    folder, client = f"svi/number {num_clips}", uuid.uuid4().hex
    image = comfy_server.add_input(reference_image)
    with comfy_server.events(client) as events:
        graph = loop_graph(image, clips=num_clips, prompts=["one", "two"], steps=2, filename_prefix=folder)
        comfy_server.wait(comfy_server.queue(graph, client))
        seen = events.drain()
    assert [clip["prompt"] for clip in manifest(run_folder(comfy_server, folder))["clips"]] == made
    notices = [(data["severity"], data["detail"]) for kind, data in seen if kind == "svi.notice"]
    assert [notice for notice in notices if "schedule describes" in notice[1]] == ([said] if said else [])
    texts = [data["text"] for kind, data in seen if kind == "svi.progress" and data["node"] == "generate"]
    assert texts[0].split("\n")[0] == f"Clip 1 of {len(made)}: reading its prompt" and texts[-1].startswith(f"{len(made)} clip")


def test_interrupt_leaves_a_playable_video_of_the_finished_clips(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image), clips=50, steps=60, seed=12, filename_prefix="svi/interrupted")
    client = uuid.uuid4().hex
    with comfy_server.events(client) as events:
        prompt_id = comfy_server.queue(graph, client)

        cancelled = []

        def interrupt_in_clip_three() -> None:
            """Once: a second Cancel would stop the work on the video, too."""
            if not cancelled and any(kind == "progress" and data["value"] > 140 for kind, data in events.drain()):
                cancelled.append(comfy_server.interrupt())

        with pytest.raises(ExecutionInterrupted):
            comfy_server.wait(prompt_id, on_poll=interrupt_in_clip_three)
    folder = run_folder(comfy_server, "svi/interrupted")
    finished = len(manifest(folder)["clips"])
    assert 2 <= finished < 50
    assert count_frames(folder / "video.mp4") == 9 + 4 * (finished - 1)
    assert not list(folder.rglob("*staging*"))


def poisoned_loop(image: str) -> dict:
    """A loop whose model is broken by a LoRA that holds NaN: the sampler gives NaN, which would decode to black."""
    graph = loop_graph(image, clips=2, filename_prefix="svi/poisoned")
    graph["row"] = node("SVILora", lora="nan_lora.safetensors", strength=1.0, lora_low_noise="none", strength_low_noise=1.0)
    graph["stack"] = node("SVILoraStack", model=["model", 0], model_low_noise=["low", 0], loras=["row", 0])
    graph["generate"]["inputs"]["model"] = ["stack", 0]
    return graph


def test_nan_stops_at_its_clip_and_writes_nothing_black(comfy_server, reference_image, tiny_models):
    from safetensors.torch import save_file

    module = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{module}.lora_A.weight": torch.full((1, 64), float("nan")), f"{module}.lora_B.weight": torch.ones(64, 1)}
    save_file(lora, tiny_models / "loras" / "nan_lora.safetensors")
    with pytest.raises(ExecutionFailed, match=r"clip 1 \(seed 5, prompt 'a cat walking.*NaN or infinite"):
        comfy_server.run(poisoned_loop(comfy_server.add_input(reference_image)))
    assert not list(run_folder(comfy_server, "svi/poisoned").rglob("*.mp4"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clips": -1}, "num_clips"),
        ({"num_frames": 80}, "num_frames is 80"),
        ({"prompts": ["", " "]}, "no prompt"),
        ({"filename_prefix": "../escape"}, "filename_prefix is '../escape'"),
        ({"filename_prefix": "/tmp/escape"}, "filename_prefix"),
        ({"seed": 2**53}, "seed"),
        ({"num_motion_frames": 5}, "4, 8 or 12"),
    ],
    ids=str,
)
def test_bad_values_are_refused_when_queued_before_anything_loads(comfy_server, reference_image, options, words):
    with pytest.raises(PromptRejected) as caught:
        comfy_server.queue(loop_graph(comfy_server.add_input(reference_image), **options))
    assert words in json.dumps(caught.value.node_errors) + str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": T2V}, "model is a model with 16 input channels"),
        ({"low": T2V}, "model_low_noise is a model with 16 input channels"),
        ({"model": WAN21, "low": None}, "connect Load CLIP Vision"),
    ],
    ids=str,
)
def test_models_that_do_not_fit_are_refused_before_sampling(comfy_server, reference_image, options, words):
    with pytest.raises(ExecutionFailed, match=words):
        comfy_server.run(loop_graph(comfy_server.add_input(reference_image), filename_prefix="svi/refused", **options))
    assert not list((comfy_server.output_directory / "svi").glob("refused*"))


def test_wan21_runs_with_clip_vision(comfy_server, reference_image):
    graph = loop_graph(
        comfy_server.add_input(reference_image), model=WAN21, low=None, variant="Shot", filename_prefix="svi/wan21"
    )
    graph["vision"] = node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors")
    graph["generate"]["inputs"]["clip_vision"] = ["vision", 0]
    outputs = comfy_server.run(graph)
    assert count_frames(comfy_server.saved_file(outputs["saved"]["images"][0])) == 3 * 8 + 1


def test_wrong_vae_is_refused(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image))
    graph["vae"] = node("VAELoader", vae_name="pixel_space")
    with pytest.raises(ExecutionFailed, match="makes 3-channel"):
        comfy_server.run(graph)


def test_a_scheduler_that_leaves_noise_out_is_refused_before_sampling(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image), filename_prefix="svi/refused")
    graph["sigmas"]["inputs"]["denoise"] = 0.5
    with pytest.raises(ExecutionFailed, match="denoise of BasicScheduler .* is 0.5, but every clip begins as pure noise"):
        comfy_server.run(graph)


def wider_text_encoder(tiny_models: Path, width: int) -> str:
    """Write the tiny text encoder with `width` columns in place of 32, the others random, and return its name."""
    folder = tiny_models / "text_encoders"
    tensors = load_file(folder / "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    inner = {"q": 0, "k": 0, "v": 0, "o": 1}  # the side of a projection that is as long as the heads are wide
    for key, tensor in tensors.items():
        part = key.split(".")[-2] if "." in key else ""
        sides = [side for side in range(tensor.ndim) if tensor.shape[side] == 32 and inner.get(part) != side]
        if sides and "bias" not in part:
            shape = [width if side in sides else length for side, length in enumerate(tensor.shape)]
            tensors[key] = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(tensor.dtype)
    save_file(tensors, folder / "umt5_wider.safetensors")
    return "umt5_wider.safetensors"


def test_a_text_encoder_of_another_width_is_refused_before_sampling(comfy_server, reference_image, tiny_models):
    graph = loop_graph(comfy_server.add_input(reference_image), filename_prefix="svi/refused")
    graph["clip"]["inputs"]["clip_name"] = wider_text_encoder(tiny_models, 48)
    with pytest.raises(ExecutionFailed, match="prompts is 48 wide, but model reads text embeddings 32 wide"):
        comfy_server.run(graph)


def test_a_second_run_of_uni_pc_gets_the_sigmas_of_the_first(comfy_server, reference_image):
    """uni_pc wrote into the sigmas that ComfyUI caches, so the second run of a session was refused."""
    image = comfy_server.add_input(reference_image)
    first, second = (loop_graph(image, clips=2, filename_prefix=f"svi/uni_pc{number}") for number in range(2))
    for graph in (first, second):
        graph["sampler"]["inputs"]["sampler_name"] = "uni_pc"
    latents = [latent(comfy_server, comfy_server.run(graph), "latent") for graph in (first, second)]
    assert torch.equal(*latents)


def test_an_expert_without_steps_is_not_used(comfy_server, reference_image):
    """One step from sigma 1 belongs to the high-noise expert alone; with only low sigmas the low-noise one is alone."""
    image = comfy_server.add_input(reference_image)
    only_low_sigmas = loop_graph(image, clips=1, model=HIGH, low=LOW)
    low_alone = loop_graph(image, clips=1, model=LOW, low=None)
    for graph in (only_low_sigmas, low_alone):
        graph["scheduled"] = graph["sigmas"]
        graph["scheduled"]["inputs"]["model"] = ["low", 0] if "low" in graph else ["model", 0]
        graph["sigmas"] = node("SplitSigmasDenoise", sigmas=["scheduled", 0], denoise=0.34)
        graph["generate"]["inputs"]["sigmas"] = ["sigmas", 1]
    first, second = (latent(comfy_server, comfy_server.run(graph), "latent") for graph in (only_low_sigmas, low_alone))
    assert torch.equal(first, second)
    only_low = latent(comfy_server, comfy_server.run(loop_graph(image, clips=1, steps=1, boundary=0.99, model=HIGH)), "latent")
    high_alone = latent(comfy_server, comfy_server.run(loop_graph(image, clips=1, steps=1, low=None)), "latent")
    assert torch.equal(only_low, high_alone)  # one step from sigma 1 belongs to the high-noise expert alone


def test_fp8_weights_take_loras(comfy_server, reference_image):
    image = comfy_server.add_input(reference_image)
    made = {}
    for strength in (0.0, 1.0):
        graph = loop_graph(image, clips=2, filename_prefix="svi/fp8")
        for loader in ("model", "low"):
            graph[loader]["inputs"]["weight_dtype"] = "fp8_e4m3fn"
        graph["row"] = node("SVILora", lora=SVI_HIGH, strength=strength, lora_low_noise=SVI_LOW, strength_low_noise=strength)
        graph["stack"] = node("SVILoraStack", model=["model", 0], model_low_noise=["low", 0], loras=["row", 0])
        graph["generate"]["inputs"].update(model=["stack", 0], model_low_noise=["stack", 1])
        made[strength] = latent(comfy_server, comfy_server.run(graph), "latent")
    assert torch.isfinite(made[1.0]).all() and not torch.equal(made[0.0], made[1.0])
