"""What ComfyUI merges of a LoRA: each kind of adapter by the weight that it yields, and what does not fit by name."""

import logging
import sys

import pytest
import torch
from safetensors.torch import save_file

Q, FFN, PATCH, NORM = "blocks.0.self_attn.q", "blocks.1.ffn.0", "patch_embedding", "blocks.0.self_attn.norm_q"
SIZES = {Q: (64, 64), FFN: (128, 64), PATCH: (64, 36, 1, 2, 2), NORM: (64,)}


def made(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.1


@pytest.fixture(scope="module")
def lora_file(pack, tmp_path_factory):
    """Return a function that writes a LoRA and reads it back as the pack does."""
    folder = tmp_path_factory.mktemp("loras")

    def read(tensors: dict[str, torch.Tensor], name: str = "x.safetensors"):
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
        return sys.modules[f"{pack.__name__}.svi_core.systems.lora"].read_lora(folder / name)

    return read


@pytest.fixture(scope="module")
def match_lora(pack, bridge):
    return sys.modules[f"{bridge.__name__}.lora_patches"].match_lora


@pytest.fixture(scope="module")
def apply_lora(pack):
    return sys.modules[f"{pack.__name__}.nodes.lora"].apply_lora


def parts_of(module: str, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"diffusion_model.{module}.{part}": tensor for part, tensor in parts.items()}


def loha(rows: int, columns: int) -> dict[str, torch.Tensor]:
    shapes = {"hada_w1_a": (rows, 4), "hada_w1_b": (4, columns), "hada_w2_a": (rows, 4), "hada_w2_b": (4, columns)}
    return {part: made(*shape, seed=index) for index, (part, shape) in enumerate(shapes.items())}


def glora(rows: int, columns: int) -> dict[str, torch.Tensor]:
    shapes = {"a1.weight": (columns, 4), "a2.weight": (4, columns), "b1.weight": (rows, 4), "b2.weight": (4, columns)}
    return {part: made(*shape, seed=index) for index, (part, shape) in enumerate(shapes.items())}


def rotated(weight: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return `weight` with its rows turned block by block, as OFT does: Cayley's transform of a skew-symmetric matrix."""
    skew = blocks - blocks.mT
    turn = (torch.eye(blocks.shape[1]) + skew) @ (torch.eye(blocks.shape[1]) - skew).inverse()
    rows = weight.reshape(len(blocks), blocks.shape[1], -1)
    return torch.einsum("k n m, k n c -> k m c", turn, rows).reshape(weight.shape)


PAIR = {"lora_A.weight": made(4, 64), "lora_B.weight": made(128, 4)}
FLAT = {"lora_down.weight": made(4, 36 * 4), "lora_up.weight": made(64, 4), "alpha": torch.tensor(2.0)}
TUCKER = {part: made(4, 4, 2, 2) for part in ("hada_t1", "hada_t2")} | {
    part: made(4, 64 if part.endswith("a") else 36) for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
}
KRON = {"lokr_w1": made(8, 8), "lokr_w2_a": made(16, 2), "lokr_w2_b": made(2, 8)}
LOHA, GLORA = loha(128, 64), glora(128, 64)
BLOCKS = made(8, 16, 16)
SCALE = made(128, 1).abs() + 1
FITTING = {  # module, its parts, and the weight that they make of w
    "LoRA": (FFN, PAIR, lambda w: w + PAIR["lora_B.weight"] @ PAIR["lora_A.weight"]),
    "LoRA of a convolution, alpha half its rank": (
        PATCH, FLAT, lambda w: w + 0.5 * (FLAT["lora_up.weight"] @ FLAT["lora_down.weight"]).reshape(w.shape)),
    "LoHa": (FFN, LOHA, lambda w: (
        w + (LOHA["hada_w1_a"] @ LOHA["hada_w1_b"]) * (LOHA["hada_w2_a"] @ LOHA["hada_w2_b"]))),
    "LoHa of a convolution": (PATCH, TUCKER, lambda w: w + torch.einsum(
        "i j k l, j r, i p -> p r k l", *map(TUCKER.get, ("hada_t1", "hada_w1_b", "hada_w1_a")))[:, :, None] ** 2),
    "LoKr": (FFN, KRON, lambda w: w + torch.kron(KRON["lokr_w1"], KRON["lokr_w2_a"] @ KRON["lokr_w2_b"])),
    "GLoRA": (FFN, GLORA, lambda w: (
        w + w @ GLORA["a1.weight"] @ GLORA["a2.weight"] + GLORA["b1.weight"] @ GLORA["b2.weight"])),
    "OFT, limited": (FFN, {"oft_blocks": BLOCKS, "alpha": torch.tensor(1e4)}, lambda w: rotated(w, BLOCKS)),
    "DoRA": (FFN, {**PAIR, "dora_scale": SCALE}, lambda w: (
        (w + PAIR["lora_B.weight"] @ PAIR["lora_A.weight"]) * SCALE / w.norm(dim=1, keepdim=True))),
    "difference": (NORM, {"diff": made(64)}, lambda w: w + made(64)),
    "set": (NORM, {"set_weight": made(64)}, lambda w: made(64)),
    "reshaped to its own size": (FFN, {**PAIR, "reshape_weight": torch.tensor([128, 64])}, lambda w: (
        w + PAIR["lora_B.weight"] @ PAIR["lora_A.weight"])),
}  # fmt: skip


@pytest.mark.parametrize(("module", "parts", "expected"), FITTING.values(), ids=FITTING)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_every_kind_that_fits_is_merged_into_the_right_weight(model, lora_file, apply_lora, module, parts, expected, mode):
    import comfy.lora
    import comfy.utils

    with mode():  # ComfyUI runs nodes in inference mode
        patched, report = apply_lora(model, lora_file(parts_of(module, parts)), "model", 1.0)
        assert (report.num_matched, report.misfits, report.unmatched) == (1, (), ())
        key = f"diffusion_model.{module}.weight"
        weight = comfy.utils.get_attr(model.model, key).float().clone()
        made_by_comfyui = comfy.lora.calculate_weight(patched.patches[key], weight.clone(), key)
    assert torch.allclose(made_by_comfyui, expected(weight), atol=1e-4)


def other(rows: int, columns: int) -> dict[str, torch.Tensor]:
    return {"lora_A.weight": made(4, columns), "lora_B.weight": made(rows, 4)}


MISFITS = {
    "LoRA": (FFN, other(64, 64)),
    "LoRA with as many values": (FFN, other(64, 128)),  # ComfyUI would fold it into the weight's shape, as noise
    "LoRA of a convolution": (PATCH, {"lora_down.weight": made(4, 64), "lora_up.weight": made(64, 4)}),
    "LoCon of a convolution": (
        PATCH,
        {
            "lora_down.weight": made(4, 36, 1, 1, 1),
            "lora_mid.weight": made(4, 4, 1, 2, 2),
            "lora_up.weight": made(64, 4, 1, 1, 1),
        },
    ),
    "LoHa": (FFN, loha(64, 64)),
    "LoHa with as many values": (FFN, loha(64, 128)),
    "LoKr": (FFN, {"lokr_w1": made(8, 8), "lokr_w2": made(16, 16)}),
    "LoKr with as many values": (FFN, {"lokr_w1": made(8, 8), "lokr_w2": made(8, 16)}),
    "GLoRA": (FFN, glora(64, 64)),
    "OFT": (FFN, {"oft_blocks": made(4, 16, 16)}),
    "BOFT without its limit, which ComfyUI cannot merge": (FFN, {"oft_blocks": made(2, 8, 16, 16)}),
    "DoRA": (FFN, {**PAIR, "dora_scale": made(64, 2)}),
    "DoRA of a flat scale": (FFN, {**PAIR, "dora_scale": made(64)}),
    "difference": (NORM, {"diff": made(1536)}),
    "difference of one value": (NORM, {"diff": made(1)}),
    "difference of a bias": (FFN, {"diff_b": made(64)}),
    "norm": (NORM, {"w_norm": made(32)}),
}


@pytest.mark.parametrize(("module", "parts"), MISFITS.values(), ids=MISFITS)
def test_every_kind_that_does_not_fit_is_named_and_left_out(model, lora_file, apply_lora, caplog, module, parts):
    lora = lora_file({**parts_of(module, parts), **parts_of("blocks.1.self_attn.q", other(64, 64))})
    with caplog.at_level(logging.WARNING):
        patched, report = apply_lora(model, lora, "model", 1.0)
    assert "1 of 2 modules matched" in str(report)
    first = min(parts)
    size = " x ".join(map(str, parts[first].shape))
    target = "bias is 128" if "diff_b" in parts else "weight is " + " x ".join(map(str, SIZES[module]))
    assert report.misfits[0].startswith(f"diffusion_model.{module} has {first} {size}")
    assert report.misfits[0].endswith(f", but the model's {target}")
    assert set(patched.patches) == {"diffusion_model.blocks.1.self_attn.q.weight"}
    assert not caplog.records  # ComfyUI's own errors are not shown for what is told here


@pytest.mark.parametrize(("module", "parts"), MISFITS.values(), ids=MISFITS)
def test_a_file_that_would_change_nothing_is_refused(model, lora_file, apply_lora, module, parts):
    lora = lora_file(parts_of(module, parts), "nothing.safetensors")
    with pytest.raises(ValueError, match=f"LoRA nothing.safetensors: 0 of 1 modules fit .*diffusion_model.{module} has"):
        apply_lora(model, lora, "model", 1.0)


def test_a_boft_with_a_limit_is_merged(model, lora_file, match_lora):
    parts = {"oft_blocks": made(2, 8, 16, 16), "alpha": torch.tensor(0.5)}
    assert match_lora(model, lora_file(parts_of(FFN, parts)))[1].merged == {f"diffusion_model.{FFN}"}


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ({"set_weight": made(64)}, "64"),
        ({"set_weight": made(1)}, "1"),  # which ComfyUI would copy into every value
        ({**PAIR, "reshape_weight": torch.tensor([30_000, 30_000])}, "30000 x 30000"),
        ({**PAIR, "reshape_weight": torch.tensor([64, 128])}, "64 x 128"),
        ({**PAIR, "reshape_weight": torch.tensor([128.5, 64.0])}, "128.5 x 64.0"),
        ({**PAIR, "reshape_weight": torch.zeros(1000, 1000, dtype=torch.int64)}, "1000 x 1000"),
    ],
)
def test_a_weight_of_another_size_is_refused_before_anything_is_patched(model, lora_file, match_lora, parts, size):
    key = "set_weight" if "set_weight" in parts else "reshape_weight"
    lora = lora_file({**parts_of(FFN, parts), **parts_of(Q, other(64, 64))})
    words = f"LoRA x.safetensors: diffusion_model.{FFN}.{key} makes .*{FFN}.weight {size}, but the model's is 128 x 64"
    with pytest.raises(ValueError, match=words):
        match_lora(model, lora)
    assert not model.patches


def test_sizes_are_those_of_the_unpatched_model(model, lora_file, match_lora):
    """A patch that reshapes, from another loader, must not make a LoRA of its size look right."""
    import comfy.model_management

    comfy.model_management.unload_all_models()  # another test may have left it loaded, and then no patch is applied
    key = f"diffusion_model.{FFN}.weight"
    stretched = model.clone()
    stretched.add_patches({key: ("diff", (made(130, 70), {"pad_weight": True}))})
    stretched.patch_model()
    try:
        assert stretched.model.diffusion_model.blocks[1].ffn[0].weight.shape == (130, 70)
        assert match_lora(stretched, lora_file(parts_of(FFN, PAIR)))[1].merged == {f"diffusion_model.{FFN}"}
        assert not match_lora(stretched, lora_file(parts_of(FFN, other(130, 70))))[1].touched
    finally:
        stretched.unpatch_model()


def test_nothing_large_is_made_for_the_check(model, lora_file, match_lora):
    """A pair of half a megabyte that yields 40 000 x 40 000, and four that yield it twice: 6 GB each, if it were made."""
    resource = pytest.importorskip("resource", reason="Windows does not tell the peak of memory")
    rows, columns = torch.ones(40_000, 1), torch.ones(1, 40_000)
    pair = {"lora_B.weight": rows, "lora_A.weight": columns}
    hadamard = {"hada_w1_a": rows, "hada_w1_b": columns, "hada_w2_a": rows.clone(), "hada_w2_b": columns.clone()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    match = match_lora(model, lora_file({**parts_of(Q, pair), **parts_of(FFN, hadamard)}))[1]
    assert set(match.misfits) == {f"diffusion_model.{Q}", f"diffusion_model.{FFN}"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def test_parts_that_comfyui_does_not_read_are_named(model, lora_file, match_lora):
    tensors = {
        **parts_of(FFN, {**PAIR, "diff": made(128, 64)}),  # the difference wins
        **parts_of(Q, {**other(64, 64), "diff_b": made(64), "b_norm": made(64)}),  # b_norm belongs to w_norm
        **parts_of("blocks.9.ffn.0", PAIR),
        **parts_of("blocks.0.ffn.0", {"lora_B.bias": made(128)}),
        **parts_of("blocks.0.ffn.2", {"alpha": torch.tensor(1.0)}),
    }
    match = match_lora(model, lora_file(tensors))[1]
    assert match.merged == set() and match.touched == {f"diffusion_model.{FFN}", f"diffusion_model.{Q}"}
    assert list(match.unmatched.values()) == [
        "diffusion_model.blocks.0.ffn.0.lora_B.bias",
        "diffusion_model.blocks.0.ffn.2",
        "diffusion_model.blocks.0.self_attn.q (b_norm)",
        "diffusion_model.blocks.1.ffn.0 (lora_A.weight, lora_B.weight)",
        "diffusion_model.blocks.9.ffn.0",
    ]


def test_the_same_weight_under_two_names_is_told(model, lora_file, match_lora):
    """ComfyUI takes one of them, and would drop the other without a word."""
    flat = {
        key.replace("diffusion_model.blocks.1.ffn.0", "lora_unet_blocks_1_ffn_0"): t for key, t in parts_of(FFN, PAIR).items()
    }
    match = match_lora(model, lora_file({**parts_of(FFN, PAIR), **flat}))[1]
    assert (len(match.merged), len(match.unmatched)) == (1, 1)


def test_a_bias_that_fits_beside_a_weight_that_does_not_is_merged(model, lora_file, match_lora):
    tensors = parts_of(FFN, {**other(64, 64), "diff_b": made(128)})
    patches, match = match_lora(model, lora_file(tensors))
    assert set(patches) == {f"diffusion_model.{FFN}.bias"} and match.merged == set()
    assert list(match.misfits) == [f"diffusion_model.{FFN}"] and match.touched == {f"diffusion_model.{FFN}"}


def test_a_comfyui_that_merges_otherwise_is_named_and_not_the_file(match_lora, lora_file, model, monkeypatch):
    def other(*_):
        raise TypeError("calculate_weight() missing 1 required positional argument")

    monkeypatch.setattr("comfy.lora.calculate_weight", other)
    lora = lora_file(parts_of(FFN, PAIR))
    with pytest.raises(RuntimeError, match="this ComfyUI merges LoRAs in a way"):
        match_lora(model, lora)
