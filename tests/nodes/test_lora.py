"""LoRA files on ComfyUI's ModelPatcher: all dialects on the 14B layout, the arithmetic, stacking, fp8, and refusals."""

import re
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.nodes.conftest import load_diffusion_model

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"

MODULES_14B = [
    f"blocks.{block}.{layer}"
    for block in range(40)
    for layer in (*(f"{a}.{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"), "ffn.0", "ffn.2")
]
FORMS = {
    "svi 1.0": "pipe.dit.{}.lora_{}.default.weight",
    "svi 2.x": "{}.lora_{}.default.weight",
    "kijai and ours": "diffusion_model.{}.lora_{}.weight",
    "diffsynth": "{}.lora_{}.weight",
    "kohya": "lora_unet_{}.lora_{}.weight",
    "diffusers": "transformer.{}.lora_{}.weight",
    "diffusers, old": "transformer.{}.lora.{}.weight",
    "diffusers, joined": "lora_unet_{}.lora_{}.weight",
}
DIFFUSERS = {"self_attn": "attn1", "cross_attn": "attn2", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"} | {
    f"attn{n}.{ours}": f"attn{n}.{theirs}"
    for n in (1, 2)
    for ours, theirs in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
}


def key_of(form: str, module: str, side: str) -> str:
    if form.startswith("diffusers"):
        for ours, theirs in DIFFUSERS.items():
            module = module.replace(ours, theirs) if module.endswith(ours) or ours.endswith("attn") else module
    if form not in ("svi 1.0", "svi 2.x", "kijai and ours", "diffsynth", "diffusers"):
        side = {"A": "down", "B": "up"}[side]
    if form in ("kohya", "diffusers, joined"):
        return FORMS[form].format(module.replace(".", "_"), side)
    return FORMS[form].format(module, side)


@pytest.fixture(scope="module")
def model_14b(comfy):
    """The Wan 2.2 I2V A14B expert as ComfyUI builds it, on the meta device: shapes without memory."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.WAN21_T2V(
        {"image_model": "wan2.1", "model_type": "t2v", "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40,
         "in_dim": 36, "out_dim": 16, "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1), "qk_norm": True,
         "cross_attn_norm": True, "eps": 1e-6}
    )  # fmt: skip
    config.set_inference_dtype(torch.bfloat16, None)
    network = comfy.model_base.WAN21(config, image_to_video=False, device="meta")
    return comfy.model_patcher.ModelPatcher(network, torch.device("cpu"), torch.device("cpu"))


@pytest.fixture(scope="module")
def lora_nodes(pack):
    return sys.modules[f"{pack.__name__}.nodes.lora"]


@pytest.fixture(scope="module")
def core_lora(pack):
    return sys.modules[f"{pack.__name__}.svi_core.systems.lora"]


@pytest.fixture(scope="module")
def canonical_key(pack):
    return sys.modules[f"{pack.__name__}.svi_core.systems.lora_keys"].canonical_key


@pytest.mark.parametrize("form", FORMS)
def test_all_400_modules_of_the_14b_layout_match_in_every_dialect(model_14b, lora_nodes, core_lora, canonical_key, form):
    shape = {key.removesuffix(".weight"): value.shape for key, value in model_14b.model.state_dict().items()}
    tensors = {}
    for module in MODULES_14B:
        out, into = shape[f"diffusion_model.{module}"]
        tensors[key_of(form, module, "A")] = torch.empty(128, into, device="meta")
        tensors[key_of(form, module, "B")] = torch.empty(out, 128, device="meta")
    renamed = {canonical_key(key): tensor for key, tensor in tensors.items()}
    assert len(renamed) == 800
    lora = core_lora.LoraFile("x.safetensors", renamed, {}, tuple(tensors))
    patched, report = lora_nodes.apply_lora(model_14b, lora, "high", 1.0)
    assert (report.num_matched, report.unmatched) == (400, ())
    assert len(patched.patches) == 400 and not model_14b.patches


def lora_path(folder, name, modules, rank=4, out=64, into=64, seed=0, alpha=None, form="kijai and ours"):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in modules:
        tensors[key_of(form, module, "A")] = torch.randn(rank, into, generator=generator)
        tensors[key_of(form, module, "B")] = torch.randn(out, rank, generator=generator)
        if alpha is not None:
            tensors[key_of(form, module, "A").split(".lora_")[0] + ".alpha"] = torch.tensor(alpha)
    save_file(tensors, folder / name)
    return tensors


def apply(pack, model, rows, low=None):
    stack = ()
    for name, strength, low_name, low_strength in rows:
        stack = pack.nodes.SVILora.execute(name, strength, low_name, low_strength, stack).args[0]
    return pack.nodes.SVILoraStack.execute(model, stack, low).args


def patched_weight(model, module):
    """Return the weight that ComfyUI computes for `module`, without loading the model."""
    import comfy.lora
    import comfy.utils

    key = f"diffusion_model.{module}.weight"
    weight = comfy.utils.get_attr(model.model, key).float().clone()
    return comfy.lora.calculate_weight(model.patches[key], weight, key) if key in model.patches else weight


Q, K = "blocks.0.self_attn.q", "blocks.1.cross_attn.k"


def test_weight_is_w_plus_strength_times_b_a_and_stacks_add_up(pack, model, loras):
    first = lora_path(loras, "a.safetensors", [Q, K], seed=1)
    second = lora_path(loras, "b.safetensors", [Q], seed=2, form="svi 1.0", rank=3)
    patched, low, report = apply(pack, model, [("a.safetensors", 0.5, "none", 1.0), ("b.safetensors", -2.0, "none", 1.0)])
    delta_a = first[f"diffusion_model.{Q}.lora_B.weight"] @ first[f"diffusion_model.{Q}.lora_A.weight"]
    delta_b = second[f"pipe.dit.{Q}.lora_B.default.weight"] @ second[f"pipe.dit.{Q}.lora_A.default.weight"]
    expected = patched_weight(model, Q) + 0.5 * delta_a - 2.0 * delta_b
    assert torch.allclose(patched_weight(patched, Q), expected, atol=1e-4)
    assert low is None and not model.patches
    assert re.findall(r"(\d) of (\d) modules matched", report) == [("2", "2"), ("1", "1")]


def test_alpha_scales_by_alpha_over_rank_and_its_absence_means_1(pack, model, loras):
    tensors = lora_path(loras, "alpha.safetensors", [Q], rank=4, alpha=2.0)
    patched = apply(pack, model, [("alpha.safetensors", 1.0, "none", 1.0)])[0]
    delta = tensors[f"diffusion_model.{Q}.lora_B.weight"] @ tensors[f"diffusion_model.{Q}.lora_A.weight"]
    assert torch.allclose(patched_weight(patched, Q) - patched_weight(model, Q), 0.5 * delta, atol=1e-4)


def test_each_expert_gets_its_own_file(pack, model, loras):
    lora_path(loras, "x_HIGH.safetensors", [Q], seed=1)
    lora_path(loras, "x_LOW.safetensors", [K], seed=2)
    high, low, report = apply(pack, model, [("x_HIGH.safetensors", 1.0, "x_LOW.safetensors", 0.5)], low=model)
    assert set(high.patches) == {f"diffusion_model.{Q}.weight"} and set(low.patches) == {f"diffusion_model.{K}.weight"}
    assert "x_HIGH.safetensors -> high at 1:" in report and "x_LOW.safetensors -> low at 0.5:" in report
    assert "WARNING" not in report


def test_swapped_experts_are_reported(pack, model, loras):
    lora_path(loras, "x_HIGH.safetensors", [Q])
    report = apply(pack, model, [("none", 1.0, "x_HIGH.safetensors", 1.0)], low=model)[2]
    assert "for the high-noise expert but was put on the low-noise one" in report


def test_strength_0_and_none_change_nothing(pack, model, loras):
    lora_path(loras, "a.safetensors", [Q])
    patched, _, report = apply(pack, model, [("a.safetensors", 0.0, "none", 1.0), ("none", 1.0, "none", 1.0)])
    assert not patched.patches and report == "no LoRA applied"


def test_partial_match_is_counted_and_named(pack, model, loras):
    lora_path(loras, "partial.safetensors", [Q, "blocks.7.self_attn.q"])
    report = apply(pack, model, [("partial.safetensors", 1.0, "none", 1.0)])[2]
    assert "1 of 2 modules matched" in report and "blocks.7.self_attn.q" in report


def test_a_pose_encoder_is_told_and_two_of_them_are_warned_of(pack, model, loras):
    for name in ("svi-dance.safetensors", "UniAnimate.safetensors"):
        tensors = lora_path(loras, name, [Q], form="svi 1.0")
        save_file({**tensors, "pipe.dwpose_embedding.0.bias": torch.zeros(16)}, loras / name)
    patched, _, report = apply(pack, model, [("svi-dance.safetensors", 1.0, "none", 1.0)])
    assert set(patched.patches) == {f"diffusion_model.{Q}.weight"}
    assert "1 of 1 modules matched" in report and "pose encoder (1 tensors)" in report and "follows poses" not in report
    rows = [("svi-dance.safetensors", 1.0, "none", 1.0), ("UniAnimate.safetensors", 1.0, "none", 1.0)]
    assert apply(pack, model, rows)[2].count("WARNING: svi-dance.safetensors follows poses too") == 1


@pytest.mark.parametrize(
    ("modules", "sizes", "words"),
    [
        (["single_blocks.0.linear1", "x.y"], {}, r"LoRA bad.safetensors: 0 of 2 modules .*single_blocks.0.linear1"),
        ([Q], {"into": 48}, r"self_attn.q has lora_A.weight 4 x 48, lora_B.weight 64 x 4, but the model's weight is 64 x 64"),
    ],
)
def test_files_for_other_models_are_errors(pack, model, loras, modules, sizes, words):
    lora_path(loras, "bad.safetensors", modules, form="diffsynth", **sizes)
    with pytest.raises(ValueError, match=words):
        apply(pack, model, [("bad.safetensors", 1.0, "none", 1.0)])


def test_low_file_without_low_model_is_an_error(pack, model, loras):
    lora_path(loras, "a.safetensors", [Q])
    with pytest.raises(ValueError, match="lora_low_noise is 'a.safetensors', but no model_low_noise"):
        apply(pack, model, [("none", 1.0, "a.safetensors", 1.0)])


def test_pickle_with_a_safetensors_name_is_refused(pack, model, loras):
    torch.save({"a": torch.zeros(1)}, loras / "evil.safetensors")
    with pytest.raises(ValueError, match="evil.safetensors is a pickle"):
        apply(pack, model, [("evil.safetensors", 1.0, "none", 1.0)])


def test_nan_strength_is_refused(pack):
    with pytest.raises(ValueError, match="strength is nan"):
        pack.nodes.SVILora.execute("none", float("nan"), "none", 1.0)


def test_fp8_weights_are_patched_through_the_model_patcher(pack, tiny_models, loras, comfy):
    import comfy.sd

    path = str(tiny_models / "diffusion_models" / HIGH)
    model = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float8_e4m3fn})
    lora_path(loras, "a.safetensors", [Q])
    patched = apply(pack, model, [("a.safetensors", 1.0, "none", 1.0)])[0]
    before = patched.model.diffusion_model.blocks[0].self_attn.q.weight.float().clone()
    patched.patch_model()
    weight = patched.model.diffusion_model.blocks[0].self_attn.q.weight
    changed = weight.float()
    assert weight.dtype is torch.float8_e4m3fn and not torch.equal(changed, before)
    patched.unpatch_model()
    assert torch.equal(patched.model.diffusion_model.blocks[0].self_attn.q.weight.float(), before)


def test_the_report_and_the_model_say_which_system_a_lora_is_for(pack, lora_nodes, model, loras):
    lora_path(loras, "svi-shot.safetensors", [Q])
    lora_path(loras, "style.safetensors", [K])
    patched, _, report = apply(
        pack, model, [("svi-shot.safetensors", 1.0, "none", 1.0), ("style.safetensors", 1.0, "none", 1.0)]
    )
    assert report.count("for SVI") == 1 and "  for SVI Shot (its name says so)" in report
    for clone in (patched, patched.clone(), patched.clone().clone()):
        assert [claim.file for claim in lora_nodes.attached_variants(clone)] == ["svi-shot.safetensors"]
    assert lora_nodes.attached_variants(model) == ()


def test_a_lora_of_the_other_wan_is_warned_of(pack, model, loras, tiny_models):
    """Only Wan 2.1 has an input for CLIP vision; the header of a LoRA of one's own is trusted."""
    wan21 = load_diffusion_model(tiny_models, "wan2.1_i2v_480p_14B_fp16.safetensors")
    lora_path(loras, "svi-shot.safetensors", [Q])
    lora_path(loras, "SVI_v2_PRO.safetensors", [Q])
    save_file({key_of("kijai and ours", Q, side): torch.ones(*shape) for side, shape in (("A", (4, 64)), ("B", (64, 4)))},
              loras / "own.safetensors", {"svi.layout": "Shot"})  # fmt: skip
    for name, base, warns in (
        ("svi-shot", model, True),
        ("svi-shot", wan21, False),
        ("SVI_v2_PRO", wan21, True),
        ("own", model, False),
    ):
        report = apply(pack, base, [(f"{name}.safetensors", 1.0, "none", 1.0)])[2]
        assert ("but this model is Wan 2." in report) is warns, report


def test_rows_claim_what_their_headers_say_without_being_applied(lora_nodes, loras):
    tensors = {key_of("kijai and ours", Q, side): torch.zeros(4, 4) for side in "AB"}
    save_file(tensors, loras / "mine.safetensors", {"svi.layout": "Film", "svi.num_motion_frames": "5"})
    lora_path(loras, "svi-shot.safetensors", [Q])
    rows = [
        lora_nodes.LoraRow("mine.safetensors", 1.0, "none", 1.0),
        lora_nodes.LoraRow("svi-shot.safetensors", 0.0, "none", 1.0),
    ]
    assert {name: claim.layouts[0] for name, claim in lora_nodes.variants_of_rows(tuple(rows)).items()} == {
        "mine.safetensors": "Film",
        "svi-shot.safetensors": "Shot",
    }


def test_a_flattened_convolution_is_taken_as_comfyui_s_own_trainer_writes_it(pack, model, loras):
    """Its Train LoRA node makes matrices for the patch embedding too: in features are channels times kernel."""
    weight = model.model.diffusion_model.patch_embedding.weight
    num_in = weight[0].numel()
    tensors = {
        "diffusion_model.patch_embedding.lora_up.weight": torch.ones(len(weight), 2),
        "diffusion_model.patch_embedding.lora_down.weight": torch.full((2, num_in), 0.5),
    }
    save_file(tensors, loras / "own.safetensors")
    patched = apply(pack, model, [("own.safetensors", 1.0, "none", 1.0)])[0]
    change = patched_weight(patched, "patch_embedding") - weight.float()
    assert change.shape == weight.shape and torch.allclose(change, torch.ones_like(change), atol=1e-2)
    tensors["diffusion_model.patch_embedding.lora_down.weight"] = torch.ones(2, num_in // 4)
    save_file(tensors, loras / "own.safetensors")
    with pytest.raises(
        ValueError, match=f"lora_down.weight 2 x {num_in // 4}, lora_up.weight {len(weight)} x 2, but the model's"
    ):
        apply(pack, model, [("own.safetensors", 1.0, "none", 1.0)])


BOTH_BLOCKS = [f"blocks.{block}.{layer}" for block in (0, 1) for layer in (*(f"self_attn.{p}" for p in "qkvo"), "cross_attn.k")]


def test_diffusers_names_change_the_weights_as_wans_own_do(pack, model, loras):
    lora_path(loras, "wan.safetensors", BOTH_BLOCKS, seed=3)
    ours = apply(pack, model, [("wan.safetensors", 1.0, "none", 1.0)])[0]
    for form in ("diffusers", "diffusers, old", "diffusers, joined"):
        lora_path(loras, "simpletuner.safetensors", BOTH_BLOCKS, seed=3, form=form)
        theirs, _, report = apply(pack, model, [("simpletuner.safetensors", 1.0, "none", 1.0)])
        assert "10 of 10 modules matched" in report and theirs.patches.keys() == ours.patches.keys()
        for module in BOTH_BLOCKS:
            assert torch.equal(patched_weight(theirs, module), patched_weight(ours, module))


def test_a_t2v_lora_gives_all_but_its_patch_embedding(pack, model, loras):
    """A text-to-video model reads 16 channels: the layers behind fit, as people use such LoRAs."""
    tensors = lora_path(loras, "t2v.safetensors", BOTH_BLOCKS)
    tensors["diffusion_model.patch_embedding.lora_A.weight"] = torch.ones(4, 16 * 4)
    tensors["diffusion_model.patch_embedding.lora_B.weight"] = torch.ones(64, 4)
    save_file(tensors, loras / "t2v.safetensors")
    patched, _, report = apply(pack, model, [("t2v.safetensors", 1.0, "none", 1.0)])
    assert set(patched.patches) == {f"diffusion_model.{module}.weight" for module in BOTH_BLOCKS}
    assert report.splitlines() == [
        "t2v.safetensors -> model at 1: 10 of 11 modules matched",
        "  not merged (1): diffusion_model.patch_embedding has lora_A.weight 4 x 64, lora_B.weight 64 x 4, but the model's "
        "weight is 64 x 36 x 1 x 2 x 2",
    ]


def test_an_untrained_lora_is_refused(pack, model, loras):
    tensors = lora_path(loras, "step0.safetensors", [Q, K])
    save_file({k: torch.zeros_like(t) if "lora_B" in k else t for k, t in tensors.items()}, loras / "step0.safetensors")
    with pytest.raises(
        ValueError, match="LoRA step0.safetensors would change nothing: in each of its 2 modules a matrix is all"
    ):
        apply(pack, model, [("step0.safetensors", 1.0, "none", 1.0)])


def test_a_lora_that_fits_one_expert_only_is_refused_on_the_other(pack, model, loras):
    lora_path(loras, "a.safetensors", [Q])
    lora_path(loras, "b.safetensors", [Q], out=48)
    with pytest.raises(ValueError, match="LoRA b.safetensors: 0 of 1 modules fit this model"):
        apply(pack, model, [("a.safetensors", 1.0, "b.safetensors", 1.0)], low=model)


def test_fp8_models_are_judged_by_their_own_sizes(pack, tiny_models, loras, comfy):
    import comfy.sd

    path = str(tiny_models / "diffusion_models" / HIGH)
    model = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float8_e4m3fn})
    lora_path(loras, "both.safetensors", [Q, K])
    tensors = lora_path(loras, "wrong.safetensors", [Q], into=32)
    save_file(tensors | lora_path(loras, "both.safetensors", [K]), loras / "wrong.safetensors")
    assert "1 of 2 modules matched" in apply(pack, model, [("wrong.safetensors", 1.0, "none", 1.0)])[2]


@pytest.fixture
def patched_models(pack):
    return sys.modules[f"{pack.__name__}.nodes.patched_models"].PatchedModels


def test_rows_are_checked_at_the_strengths_of_each_clip(pack, model, loras, lora_nodes, patched_models):
    """A row at 0 is not used, so it may be anything; a schedule that raises it is refused before its first clip."""
    spec = sys.modules[f"{pack.__name__}.svi_core.schedule.spec"]
    lora_path(loras, "good.safetensors", [Q])
    lora_path(loras, "other.safetensors", [Q], out=48)
    rows = (lora_nodes.LoraRow("good.safetensors", 1.0, "none", 1.0), lora_nodes.LoraRow("other.safetensors", 0.0, "none", 1.0))
    models = patched_models(model, None, rows)
    models.require_loras(spec.ClipSpec("a"))
    models.require_loras(spec.ClipSpec("a", loras=(spec.LoraStrength("good", 0.5, 0.5),)))
    with pytest.raises(ValueError, match="LoRA other.safetensors: 0 of 1 modules fit this model"):
        models.require_loras(spec.ClipSpec("b", loras=(spec.LoraStrength("other", 0.3, 0.3),)))


def test_a_file_is_checked_once_however_many_clips_use_it(pack, model, loras, lora_nodes, patched_models, monkeypatch):
    spec = sys.modules[f"{pack.__name__}.svi_core.schedule.spec"]
    lora_path(loras, "a.safetensors", [Q])
    calls = []
    module = sys.modules[patched_models.__module__]
    monkeypatch.setattr(module, "apply_rows", lambda *given: calls.append(given) or (model, None, []))
    models = patched_models(model, None, (lora_nodes.LoraRow("a.safetensors", 1.0, "none", 1.0),))
    for index in range(1, 1000):
        models.require_loras(spec.ClipSpec("a", loras=(spec.LoraStrength("a", index / 1000, 1.0),)))
    assert len(calls) == 1
