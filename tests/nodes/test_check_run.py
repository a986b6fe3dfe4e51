"""What a run is refused for before its first step, on real models of ComfyUI: relatives of Wan, text, CLIP vision, VAEs."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.nodes.conftest import PACK, load_diffusion_model

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
WAN21 = "wan2.1_i2v_480p_14B_fp16.safetensors"
T2V = "wan2.1_t2v_14B_fp16.safetensors"


@pytest.fixture(scope="module")
def module(pack):
    """Return modules of the pack by name."""
    return lambda name: sys.modules[f"{PACK}.{name}"]


@pytest.fixture(scope="module")
def load(comfy, tiny_models):
    return lambda name: load_diffusion_model(tiny_models, name)


@pytest.fixture(scope="module")
def make_run(module, load, vae):
    """Return sampler and plan of a run of two clips; keywords replace its inputs, `text` the width of its prompts."""
    import comfy.samplers

    bridge, schedule = module("nodes.bridge"), module("svi_core.schedule.text").parse_schedule("a cat")
    image = torch.full((1, 64, 64, 3), 0.5)
    anchor = {"samples": bridge.vaes.encode_images(vae, image), bridge.latents.FRAMES_KEY: image}
    experts = {"model": load(HIGH), "model_low_noise": load(LOW)}

    def make(text: int = 32, layout: str = "2.0 Pro", **changes):
        made = module("svi_core.systems.layouts").make_layout(layout, num_frames=9)
        plan = module("svi_core.clips.clip_plan").ClipPlan(2, schedule, made)
        text_encoder = SimpleNamespace(
            tokenize=str, encode_from_tokens_scheduled=lambda prompt: [[torch.zeros(1, 12, text), {}]]
        )
        inputs = {
            **experts,
            "prompts": module("nodes.schedule").EncodedPrompts(schedule, text_encoder),
            "negative": [[torch.zeros(1, 12, 32), {}]],
            "vae": vae,
            "anchor": anchor,
            "sampler": comfy.samplers.sampler_object("euler"),
            "sigmas": torch.tensor([1.0, 0.9, 0.5, 0.0]),
            "cfg": 2.0,
            "boundary": 0.9,
        }
        return module("nodes.clip_sampler").ClipSampler(**inputs | changes), plan

    return make


@pytest.fixture(scope="module")
def check(module, make_run):
    """Check a run; keywords as for `make_run`."""
    return lambda **changes: module("nodes.check_run").check_run(*make_run(**changes))


def wan_of(model_class: str, transformer_class: str, **sizes):
    """Return a MODEL of one of ComfyUI's own classes, without weights."""
    base, wan = importlib.import_module("comfy.model_base"), importlib.import_module("comfy.ldm.wan.model")
    rooms = (wan, *(importlib.import_module(f"comfy.ldm.wan.{name}") for name in ("model_animate", "model_wandancer")))
    transformer = next(getattr(room, transformer_class) for room in rooms if hasattr(room, transformer_class))
    model = getattr(base, model_class).__new__(getattr(base, model_class))
    torch.nn.Module.__init__(model)
    tiny = {"dim": 128, "ffn_dim": 64, "num_heads": 1, "num_layers": 1, "text_dim": 32, "in_dim": 36}
    operations = importlib.import_module("comfy.ops").disable_weight_init
    model.diffusion_model = transformer(**tiny | sizes, device="meta", operations=operations)
    return SimpleNamespace(model=model, model_options={}, patches={})


def test_a_run_that_can_work_is_let_through(check):
    check()


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (("WAN21_HuMo", "HumoWanModel"), "HuMo"),
        (("WAN22_Animate", "AnimateWanModel"), "Wan-Animate"),
        (("WAN21_Camera", "CameraWanModel"), "Wan Fun-Camera"),
        (("WAN22_WanDancer", "WanDancerModel"), "WanDancer"),
        (("WAN21_Vace", "VaceWanModel"), "Wan VACE"),
        (("WAN21_FlowRVS", "WanModel"), "FlowRVS"),
    ],
)
@pytest.mark.parametrize("place", ["model", "model_low_noise"])
def test_relatives_of_wan_with_36_input_channels_are_refused_by_what_they_are(check, bridge, classes, found, place):
    """They ran without their conditions; HuMo ignored the anchor altogether."""
    more = {"vace_in_dim": 96, "vace_layers": 1} if "Vace" in classes[0] else {}
    relative = wan_of(*classes, **more)
    assert relative.model.diffusion_model.patch_embedding.weight.shape[1] == 36
    with pytest.raises(ValueError, match=f"^{place} is {found} .*SVI needs a Wan image-to-video model"):
        bridge.models.require_i2v(relative, place)
    with pytest.raises(ValueError, match=f"^{place} is {found} "):
        check(**{place: relative})


def test_tiles_enter_a_key_only_where_clips_continue_from_frames(make_run, module, load):
    """Keys of runs without a choice are those of before: the choice is the last part, and only "always" has one."""
    tiles, fingerprint = module("nodes.bridge.vaes").DecodeTiles, module("svi_core.files.fingerprint").fingerprint

    def key(choice=tiles.AUTO, **run):
        sampler, plan = make_run(**run)
        sampler.tiles = choice
        return fingerprint(sampler.determinants(plan.request(0)))

    single = {"model": load(WAN21), "model_low_noise": None}
    for run, counts in (({}, False), ({"layout": "Film"}, True), ({"layout": "2.0 Pro", **single}, True)):
        assert key(**run) == key(tiles.NEVER, **run)
        assert (key(tiles.ALWAYS, **run) != key(**run)) is counts, run


def test_a_timed_order_of_the_vae_enters_a_key_only_where_clips_continue_from_frames(make_run, module, monkeypatch):
    """Frames then differ by rounding, and so do the clips that continue from them. Where nothing is timed, keys stay."""
    tiles, order = module("nodes.bridge.vaes").DecodeTiles, module("nodes.bridge.decode_order")
    fingerprint = module("svi_core.files.fingerprint").fingerprint

    def key(choice=tiles.AUTO, **run):
        sampler, plan = make_run(**run)
        sampler.tiles = choice
        return fingerprint(sampler.determinants(plan.request(0)))

    kinds = {"latents": {}, "frames": {"layout": "Film"}, "tiles": {"layout": "Film", "choice": tiles.ALWAYS}}
    before = {kind: key(**run) for kind, run in kinds.items()}
    monkeypatch.setenv(order.SETTING, "timed")
    assert {kind: key(**run) for kind, run in kinds.items()} == before, "a processor is not timed"
    monkeypatch.setattr(order.ORDER, "device_type", "cpu")
    assert [kind for kind, run in kinds.items() if key(**run) != before[kind]] == ["frames"]


def test_a_guider_is_checked_with_the_run_and_replaces_cfg_in_the_key(check, make_run, module, load):
    import comfy.samplers

    fingerprint = module("svi_core.files.fingerprint").fingerprint
    model = make_run()[0].model

    def guider(cfg, width=32, **more):
        made = comfy.samplers.CFGGuider(model)
        made.inner_set_conds({name: [[torch.zeros(1, 5, width), {}]] for name in ("positive", "negative", *more)})
        made.set_cfg(cfg)
        return made

    def key(**run):
        sampler, plan = make_run(**run)
        return fingerprint(sampler.determinants(plan.request(0)))

    check(guider=guider(2.0))
    assert key(cfg=7.0, guider=guider(2.0)) == key(cfg=1.0, guider=guider(2.0)) != key(guider=guider(3.0))
    assert key(cfg=2.0) not in (key(cfg=3.0), key(cfg=2.0, guider=guider(2.0)))
    with pytest.raises(ValueError, match="guider's middle prompt is 48 wide, but model reads text embeddings 32 wide"):
        check(guider=guider(2.0, width=48, middle=True))
    with pytest.raises(ValueError, match="guider is a SimpleNamespace"):
        check(guider=SimpleNamespace())


def test_what_the_prompts_of_a_guider_set_besides_text_is_named(check, make_run, caplog):
    """Hooks and ControlNets on them were lost in silence; y and what belongs to the text are not meant for clips."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(make_run()[0].model)
    conditioning = [[torch.zeros(1, 5, 32), {"pooled_output": None, "concat_latent_image": None}]]
    guider.inner_set_conds({"positive": conditioning, "negative": conditioning})
    check(guider=guider)
    assert "guider" not in caplog.text
    guider.original_conds["negative"][0] |= {"start_percent": 0.5, "hooks": None}
    check(guider=guider)
    assert "the prompts of guider set hooks, start_percent, which this run leaves out" in caplog.text


def test_a_text_to_video_model_is_refused(check, load):
    with pytest.raises(ValueError, match=r"^model is a model with 16 input channels \(a text-to-video model\)"):
        check(model=load(T2V))


@pytest.mark.parametrize("experts", [{}, {"model_low_noise": None}])
def test_prompts_of_a_text_encoder_of_another_width_are_refused_with_both_widths(check, experts):
    with pytest.raises(ValueError, match="prompts is 48 wide, but model reads text embeddings 32 wide"):
        check(text=48, **experts)


def test_a_negative_prompt_of_another_width_is_refused_with_both_widths(check):
    with pytest.raises(ValueError, match="negative is 4096 wide, but model reads text embeddings 32 wide"):
        check(negative=[[torch.zeros(1, 12, 4096), {}]])


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        (None, "reads CLIP vision features: connect Load CLIP Vision"),
        (
            SimpleNamespace(config={"hidden_size": 1024}),
            "makes features 1024 wide, but model reads CLIP vision features 1280 wide",
        ),
    ],
)
def test_clip_vision_that_wan21_cannot_read_is_refused(check, load, vision, words):
    with pytest.raises(ValueError, match=words):
        check(model=load(WAN21), model_low_noise=None, clip_vision=vision, layout="Shot")


def test_clip_vision_that_fits_is_let_through_and_wan22_reads_none(check, load):
    check(model=load(WAN21), model_low_noise=None, clip_vision=SimpleNamespace(config={"hidden_size": 1280}), layout="Shot")
    check(clip_vision=SimpleNamespace(config={"hidden_size": 1024}))


def test_sigmas_of_every_scheduler_are_taken_and_only_a_late_start_is_told(check, load, caplog):
    import comfy.samplers

    sampling = load(HIGH).get_model_object("model_sampling")
    told = set()
    for name in comfy.samplers.SCHEDULER_NAMES:
        caplog.clear()
        check(sigmas=comfy.samplers.calculate_sigmas(sampling, name, 4).cpu())
        told |= {name} if "every clip begins as pure noise" in caplog.text else set()
    assert told == {"ddim_uniform"}  # at 0.96 here
