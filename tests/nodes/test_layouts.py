"""SVI Layout: what it offers, gives and refuses, and that its help page says what the tables say."""

import re
import sys
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "web" / "docs" / "SVILayout.md"


@pytest.fixture(scope="module")
def core(pack):
    return {name: sys.modules[f"{pack.__name__}.svi_core.systems.{name}"] for name in ("layouts", "variants", "lora_variant")}


def test_it_offers_every_system_and_auto(pack, core):
    combo = pack.nodes.SVILayout.define_schema().inputs[0]
    assert combo.options == [*core["layouts"].LAYOUTS, "auto"] and combo.default == "2.0 Pro"


def test_it_gives_layout_and_settings(pack, core):
    layout, settings = pack.nodes.SVILayout.execute("Film", 41, 0, True).args
    assert layout == core["layouts"].make_layout("Film", 41, 0, True)
    assert settings == core["variants"].settings_text(layout) and "cut to 8 bits" in settings
    asked, told = pack.nodes.SVILayout.execute("auto", 41, 8).args
    assert asked == core["lora_variant"].AutoLayout(41, 8, False) and "LoRA decides" in told


@pytest.mark.parametrize(
    ("widgets", "words"),
    [
        (("Opera", 81, 0), "layout is 'Opera'"),
        (("auto", 80, 0), "num_frames is 80"),
        (("2.0 Pro", 81, 0, True), "hands over latents"),
        (("Tom & Jerry", 81, 4), "4n \\+ 1 of them"),
    ],
)
def test_bad_values_are_refused_when_queued_and_when_run(pack, widgets, words):
    node = pack.nodes.SVILayout
    with pytest.raises(ValueError, match=words):
        node.execute(*widgets)
    names = ("variant", "num_frames", "num_motion_frames", "cut_to_8_bits")
    assert isinstance(node.validate_inputs(**dict(zip(names, widgets, strict=False))), str)
    assert node.validate_inputs(variant=None, num_frames=81, num_motion_frames=0) is True


def test_the_help_pages_table_is_the_table_of_the_code(core):
    facts = re.compile(
        r"\| `(.+)` \| .+\. On (.+)\. Padding: (.+)\. Motion frames: (.+)\. N clips: (.+) frames\. cfg (.+)\. Needs (.+)\. \|"
    )
    cells = {name: row for name, *row in facts.findall(PAGE.read_text(encoding="utf-8"))}
    assert list(cells) == list_by_page(core["variants"].VARIANTS)
    for name, (base, padding, motion, length, cfg, needs) in cells.items():
        variant = core["variants"].VARIANTS[name]
        layout = variant.layout
        assert (base, padding, length) == (variant.base, layout.padding.value, core["variants"].length_formula(layout))
        assert motion.split()[0] == str(layout.num_motion_frames) and cfg.split()[0] == f"{variant.cfg:g}"
        assert all(str(count) in motion for count in variant.also_trained_with)
        assert ("CLIP vision" in needs) == (variant.clip_vision != "none")


def list_by_page(variants):
    """The page groups by base model: Wan 2.2 first."""
    return sorted(variants, key=lambda name: (variants[name].boundary is None, list(variants).index(name)))


@pytest.mark.parametrize(
    ("dtype", "name", "tiles", "told"),
    [
        (torch.bfloat16, "Shot", "auto", ["runs in bfloat16.*--fp32-vae"]),
        (torch.float32, "Shot", "never", []),
        (torch.float32, "Shot", "always", ["decode_tiles is 'always'.*Use 'auto'"]),
        (torch.float16, "Film", "always", ["runs in float16", "the seams of tiles add up"]),
        (torch.bfloat16, "2.0 Pro", "always", []),
    ],
)
def test_a_vae_in_half_precision_or_tiles_is_told_where_frames_go_through_it(pack, core, dtype, name, tiles, told):
    vaes = sys.modules[f"{pack.__name__}.nodes.bridge.vaes"]
    warnings = list(vaes.hand_over_warnings(core["layouts"].LAYOUTS[name], dtype, vaes.DecodeTiles(tiles)))
    assert len(warnings) == len(told) and all(re.search(words, warning) for words, warning in zip(told, warnings, strict=True))
