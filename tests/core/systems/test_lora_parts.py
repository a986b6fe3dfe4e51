"""A LoRA file whose parts do not fit each other is refused by file and key, from the shapes in its header."""

import pytest
import torch
from safetensors.torch import save_file

from svi_core.systems.lora import read_lora
from svi_core.systems.lora_keys import canonical_key
from svi_core.systems.lora_parts import require_fitting_parts, silent_modules

Q = "pipe.dit.blocks.0.self_attn.q"
LOHA = {"hada_w1_a": [64, 4], "hada_w1_b": [4, 64], "hada_w2_a": [64, 4], "hada_w2_b": [4, 64]}
TUCKER = {"hada_w1_a": [4, 64], "hada_w1_b": [4, 36], "hada_w2_a": [4, 64], "hada_w2_b": [4, 36]}
GLORA = {"a1.weight": [64, 4], "a2.weight": [4, 64], "b1.weight": [64, 4], "b2.weight": [4, 64]}
PAIR = {"lora_A.weight": [4, 64], "lora_B.weight": [64, 4]}
SOUND = {
    "LoRA": {"lora_A.default.weight": [4, 64], "lora_B.default.weight": [128, 4], "alpha": []},
    "LoRA, alpha in a list": {"lora_down.weight": [4, 64], "lora_up.weight": [128, 4], "alpha": [1]},
    "LoRA of a convolution": {"lora_down.weight": [4, 16, 1, 2, 2], "lora_up.weight": [64, 4, 1, 1, 1]},
    "LoCon": {"lora_down.weight": [4, 16, 1, 1], "lora_mid.weight": [4, 4, 3, 3], "lora_up.weight": [64, 4, 1, 1]},
    "LoHa": LOHA,
    "LoHa of a convolution": {**TUCKER, "hada_t1": [4, 4, 2, 2], "hada_t2": [4, 4, 2, 2]},
    "LoKr": {"lokr_w1": [8, 8], "lokr_w2_a": [16, 2], "lokr_w2_b": [2, 8]},
    "GLoRA": GLORA,
    "OFT": {"oft_blocks": [4, 16, 16]},
    "differences": {"diff": [64, 64], "diff_b": [64]},
}
STANDS_ALONE = {"alpha", "diff", "diff_b", "oft_blocks", "lora_mid.weight"}


def require(parts: dict[str, list[int]]) -> None:
    shapes = {f"{Q}.{part}": shape for part, shape in parts.items()}
    require_fitting_parts("x.safetensors", {canonical_key(key): key for key in shapes}, shapes)


@pytest.mark.parametrize("parts", SOUND.values(), ids=SOUND)
def test_sound_modules_of_every_kind_pass(parts):
    require(parts)


@pytest.mark.parametrize(("kind", "missing"), [(k, p) for k, parts in SOUND.items() for p in parts if p not in STANDS_ALONE])
def test_each_half_that_is_missing_is_told(kind, missing):
    rest = {part: shape for part, shape in SOUND[kind].items() if part != missing}
    with pytest.raises(
        ValueError, match=r"^LoRA x.safetensors is malformed: .*(is missing beside .*self_attn.q|self_attn.q.* is one factor)"
    ):
        require(rest)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"lora_down.weight": [1, 64], "lora_up.weight": [64, 4]}, "lora_up.weight' is 64 x 4 and .*down.weight' is 1 x 64: t"),
        ({**PAIR, "lora_B.weight": [64]}, "lora_B.weight' is 64, not a matrix"),
        ({**PAIR, "lora_A.weight": []}, "lora_A.weight' is 1 number, not a matrix"),
        ({**SOUND["LoCon"], "lora_mid.weight": [4, 5, 3, 3]}, "lora_mid.weight' is 4 x 5 x 3 x 3: their inner sizes"),
        ({**LOHA, "hada_w2_a": [64, 5]}, "hada_w2_a' is 64 x 5 and .*hada_w2_b' is 4 x 64: their inner sizes"),
        ({**LOHA, "hada_w2_b": [4, 1]}, "hada_w1_b' is 4 x 64 and .*hada_w2_b' is 4 x 1: a LoHa"),
        ({**TUCKER, "hada_t1": [4, 4, 2, 2], "hada_t2": [4, 3, 2, 2]}, "hada_t2' is 4 x 3 x 2 x 2: their inner sizes"),
        ({"lokr_w1": [8, 8], "lokr_w2_a": [16, 2], "lokr_w2_b": [3, 8]}, "lokr_w2_b' is 3 x 8: their inner sizes"),
        ({**PAIR, "alpha": [3]}, "q.alpha' holds 3 numbers, but alpha is one number"),
        ({**PAIR, "alpha": [0]}, "q.alpha' holds 0 numbers, but alpha is one number"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(parts, words):
    with pytest.raises(ValueError, match=f"LoRA x.safetensors is malformed: .*{words}"):
        require(parts)


def test_a_file_is_refused_from_its_header_before_its_tensors_are_read(tmp_path, monkeypatch):
    save_file({f"{Q}.lora_B.default.weight": torch.ones(64, 1)}, tmp_path / "half.safetensors")
    monkeypatch.setattr("svi_core.systems.lora.read_tensors", lambda path: pytest.fail("read"))
    with pytest.raises(
        ValueError, match=rf"half.safetensors is malformed: 'lora_A.weight' is missing beside '{Q}.lora_B.default"
    ):
        read_lora(tmp_path / "half.safetensors")


@pytest.mark.parametrize("parts", SOUND.values(), ids=SOUND)
def test_a_module_of_zeros_is_silent_in_every_kind(parts):
    def silent(*zeros, **others):
        filled = {part: torch.full(shape, float(part not in zeros)) for part, shape in parts.items()}
        return silent_modules({canonical_key(f"{Q}.{part}"): tensor for part, tensor in {**filled, **others}.items()})

    module = "diffusion_model.blocks.0.self_attn.q"
    assert silent() == frozenset() and silent(*parts) == {module}
    assert silent(*parts, dora_scale=torch.ones(64, 1)) == frozenset()
    factors = "lora_B.default.weight lora_up.weight hada_w2_a lokr_w1 a2.weight b1.weight oft_blocks diff".split()
    assert silent(*factors) == (frozenset() if "diff_b" in parts else {module})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_zeros_are_found_in_every_dtype(dtype):
    ones, zeros = (torch.full((4, 4), value).to(dtype) for value in (1.0, -0.0))
    pair = {"m.lora_A.weight": ones, "m.lora_B.weight": ones}
    assert silent_modules(pair) == frozenset()
    assert silent_modules({**pair, "m.lora_B.weight": zeros}) == silent_modules({**pair, "m.alpha": zeros[0, 0]}) == {"m"}
    assert silent_modules({**pair, "m.lora_B.weight": torch.zeros(4, 0, dtype=dtype)}) == {"m"}
