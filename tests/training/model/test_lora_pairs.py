"""Low-rank pairs are found in every dialect, and cut to the nearest change of a lower rank."""

import pytest
import torch

from training.model.lora_pairs import LowRankPair, cut_to_rank, low_rank_pairs, squared_norm


def a_pair(rank: int, alpha: float | None = None) -> LowRankPair:
    generator = torch.Generator().manual_seed(rank)
    down, up = torch.randn(rank, 12, generator=generator), torch.randn(20, rank, generator=generator)
    return LowRankPair(down, up, None if alpha is None else torch.tensor(alpha))


def change(pair: LowRankPair) -> torch.Tensor:
    return pair.scale * pair.up.double() @ pair.down.double()


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_cut_is_the_truncated_singular_value_decomposition(alpha):
    pair = a_pair(8, alpha)
    left, values, right = torch.linalg.svd(change(pair), full_matrices=False)
    cut = cut_to_rank(pair, 4)
    assert cut.rank == 4 and cut.scale == 1.0
    torch.testing.assert_close(change(cut), (left[:, :4] * values[:4]) @ right[:4], rtol=0, atol=1e-5)
    share = float(values[:4].square().sum() / values.square().sum())
    assert squared_norm(cut) / squared_norm(pair) == pytest.approx(share, rel=1e-5) and 0.5 < share < 0.95
    for side in (cut.up, cut.down.T):  # both matrices are of one size, so that both learn
        torch.testing.assert_close(side.norm(dim=0).double(), values[:4].sqrt(), rtol=1e-5, atol=0)


def test_a_change_of_low_rank_is_kept_whole_by_a_cut():
    pair = a_pair(4)
    doubled = LowRankPair(torch.cat([pair.down, pair.down]), torch.cat([pair.up, 2 * pair.up], 1))
    torch.testing.assert_close(change(cut_to_rank(doubled, 4)), 3 * change(pair), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rank", [8, 9])
def test_a_pair_of_no_higher_rank_stays_as_it_is(rank):
    pair = a_pair(8, 2.0)
    assert cut_to_rank(pair, rank) is pair


def test_the_squared_norm_is_that_of_the_change():
    pair = a_pair(8, 2.0)
    assert squared_norm(pair) == pytest.approx(float(change(pair).square().sum()), rel=1e-9)


def test_other_keys_are_told_apart():
    a, b = torch.zeros(2, 3), torch.zeros(4, 2)
    tensors = {
        "diffusion_model.blocks.0.ffn.0.lora_A.weight": a,
        "diffusion_model.blocks.0.ffn.0.lora_B.weight": b,
        "diffusion_model.blocks.0.ffn.0.dora_scale": b,
        "lora_unet_blocks_1_cross_attn_k_img.lora_down.weight": a,
        "lora_unet_blocks_1_cross_attn_k_img.lora_up.weight": b,
        "diffusion_model.blocks.2.ffn.0.alpha": torch.tensor(1.0),
        "diffusion_model.blocks.3.norm3.diff": a,
    }
    pairs, others = low_rank_pairs(tensors)
    assert set(pairs) == {"blocks.0.ffn.0", "blocks.1.cross_attn.k_img"}
    assert set(others) == {key for key in tensors if key.endswith(("dora_scale", "2.ffn.0.alpha", "diff"))}


def test_two_pairs_for_one_layer_are_refused():
    names = ("diffusion_model.blocks.0.ffn.0", "lora_unet_blocks_0_ffn_0")
    tensors = {f"{name}.{side}.weight": torch.zeros(2, 2) for name in names for side in ("lora_A", "lora_B")}
    with pytest.raises(ValueError, match="change the same layer"):
        low_rank_pairs(tensors)
