"""Which layers are trained, how they start, and what their state is."""

import math

import pytest
import torch

pytestmark = pytest.mark.usefixtures("training_mode")


@pytest.fixture
def transformer(wan_folder):
    from training.model.loading import load_backbone

    return load_backbone(wan_folder / "wan21_i2v.safetensors").transformer


def adapters(transformer, rank: int = 4, alpha: float = 4.0, seed: int = 0, **options):
    from training.model.adapters import LoraAdapters

    return LoraAdapters(transformer, rank=rank, alpha=alpha, generator=torch.Generator().manual_seed(seed), **options)


def test_ten_layers_a_block_without_the_image_keys(transformer):
    names = list(adapters(transformer).pairs)
    block = [name.removeprefix("blocks.1.") for name in names if name.startswith("blocks.1.")]
    assert block == [
        "self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
        "cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o", "ffn.0", "ffn.2",
    ]  # fmt: skip
    assert len(names) == 30
    assert hasattr(transformer.blocks[0].cross_attn, "k_img")


def test_the_14b_model_at_rank_128_has_the_released_size(comfy):
    """docs/METHOD.md, 6.1: 400 linears, 613 416 960 parameters."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    with torch.device("meta"):
        wan = WanModel(
            model_type="t2v", in_dim=36, dim=5120, ffn_dim=13824, num_heads=40, num_layers=40,
            operations=comfy.ops.disable_weight_init,
        )  # fmt: skip
        lora = adapters(wan, rank=128, alpha=128.0, device="meta")
    assert (len(lora.pairs), lora.num_parameters) == (400, 613_416_960)


def test_down_is_kaiming_and_up_is_zero(transformer):
    pair = adapters(transformer, rank=64).pairs["blocks.0.ffn.2"]
    assert pair.down.dtype is pair.up.dtype is torch.float32
    bound = 1 / math.sqrt(96)  # kaiming uniform with a = sqrt(5) over 96 inputs
    assert 0.98 * bound < float(pair.down.detach().abs().max()) <= bound
    assert float(pair.down.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not pair.up.detach().any()


def test_alpha_over_rank_scales_the_term(transformer):
    pair = adapters(transformer, rank=8, alpha=4.0).pairs["blocks.0.self_attn.q"]
    torch.nn.init.ones_(pair.up)
    x = torch.randn(2, 3, 64)
    assert torch.equal(pair(x), 0.5 * torch.nn.functional.linear(torch.nn.functional.linear(x, pair.down), pair.up))
    assert pair(x.bfloat16()).dtype is torch.bfloat16


def test_the_seed_decides_the_start(transformer):
    first, same, other = (adapters(transformer, seed=seed).state_dict() for seed in (1, 1, 2))
    key = "blocks.2.cross_attn.v.lora_A.weight"
    assert torch.equal(first[key], same[key]) and not torch.equal(first[key], other[key])


def test_state_goes_round(transformer):
    lora, other = adapters(transformer, seed=1), adapters(transformer, seed=2)
    other.load_state_dict({key: value.clone() for key, value in lora.state_dict().items()})
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in lora.state_dict().items())
    with pytest.raises(ValueError, match="LoRA's layers differ"):
        other.load_state_dict({})
    with pytest.raises(ValueError, match=r"\[8, 64\] in the LoRA but \[4, 64\] here"):
        other.load_state_dict(adapters(transformer, rank=8).state_dict())


def test_bad_settings_are_named(transformer):
    with pytest.raises(ValueError, match="'attn.q', but the blocks have no such layer: use some of self_attn.q"):
        adapters(transformer, targets=("attn.q",))
    with pytest.raises(ValueError, match="lora.rank is 0"):
        adapters(transformer, rank=0)
