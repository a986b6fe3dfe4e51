"""What LoRA files say of themselves: released names, headers of our trainer, and contradictions."""

import pytest

from svi_core.systems.layouts import LAYOUTS, make_layout
from svi_core.systems.lora_variant import AutoLayout, require_lora_variants, resolve_layout, variant_of_lora
from svi_core.systems.variants import VARIANTS

RELEASED = {  # file name (authors, kijai's repacks, copies with other separators): its layout
    "svi-shot.safetensors": "Shot",
    "svi-shot_lora_rank_128_fp16.safetensors": "Shot",
    "svi-film.safetensors": "Film",
    "svi-film-opt-10212025.safetensors": "Film",
    "svi-film-transitions_lora_rank_128_fp16.safetensors": "Film-transitions",
    "SVI_Film_Transitions.safetensors": "Film-transitions",
    "svi-tom.safetensors": "Tom & Jerry",
    "svi-talk.safetensors": "Talk",
    "svi-dance.safetensors": "Dance",
    "version-2.0/SVI_Wan2.1-I2V-14B_lora_v2.0.safetensors": "2.0 (Wan 2.1)",
    "SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0.safetensors": "2.0",
    "SVI_Wan2.2-I2V-A14B_low_noise_lora_v2.0_pro.safetensors": "2.0 Pro",
    "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors": "2.0 Pro",
    "SVI_v20pro_high_noise_comfy.safetensors": "2.0 Pro",
    "wan\\svi-shot.safetensors": "Shot",
}
NOT_SVI = [
    "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors",
    "cinematic_film_look_v2.safetensors",
    "svi_anna.safetensors",
    "Stable-Video-Infinity/style.safetensors",
    "svishot.safetensors",
]


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_are_known_by_name(name):
    variant = variant_of_lora(name, {})
    assert variant.layouts[0] == RELEASED[name] and not variant.is_certain and not variant.is_ambiguous


@pytest.mark.parametrize("name", [file for variant in VARIANTS.values() for file in variant.files])
def test_the_files_of_the_table_are_known_as_what_the_table_says(name):
    (expected,) = [variant.name for variant in VARIANTS.values() if name in variant.files]
    assert variant_of_lora(name, {}).layouts[0] == expected


@pytest.mark.parametrize("name", NOT_SVI)
def test_other_files_name_no_system(name):
    assert variant_of_lora(name, {}) is None


def header(layout="Shot", variant="shot", motion="1"):
    return {"svi.layout": layout, "svi.variant": variant, "svi.num_motion_frames": motion}


def test_the_header_comes_before_the_name():
    variant = variant_of_lora("svi-film.safetensors", header())
    assert variant.layouts == ("Shot",) and variant.is_certain and variant.num_motion_frames == 1
    assert variant_of_lora("x.safetensors", header(variant="talk")).layouts == ("Talk",)
    with pytest.raises(ValueError, match="svi.layout 'Opera'.*update the pack"):
        variant_of_lora("x.safetensors", header("Opera"))


@pytest.mark.parametrize("file", [name for name in RELEASED if "film" not in name.lower()])
def test_each_other_layout_is_refused_with_the_way_out(file):
    variant = variant_of_lora(file, {})
    for name, layout in LAYOUTS.items():
        if name == RELEASED[file]:
            require_lora_variants(layout, [variant])
        else:
            with pytest.raises(ValueError) as caught:
                require_lora_variants(layout, [variant])
            message = str(caught.value)
            assert file in message and f"layout is {name!r}" in message and f"variant {RELEASED[file]!r} or 'auto'" in message
            assert "rename the file" in message


def test_the_two_films_share_a_layout():
    for file in ("svi-film.safetensors", "svi-film-transitions.safetensors"):
        for name in ("Film", "Film-transitions"):
            require_lora_variants(LAYOUTS[name], [variant_of_lora(file, {})])
        with pytest.raises(ValueError, match="Film"):
            require_lora_variants(LAYOUTS["Tom & Jerry"], [variant_of_lora(file, {})])


def test_a_header_is_certain_so_that_renaming_is_not_offered():
    with pytest.raises(ValueError, match="its header says so") as caught:
        require_lora_variants(LAYOUTS["Film"], [variant_of_lora("x.safetensors", header())])
    assert "rename" not in str(caught.value)


def test_auto_takes_layout_and_motion_from_the_lora():
    variants = [variant_of_lora("svi-film.safetensors", {})]
    assert resolve_layout(AutoLayout(41), variants) == make_layout("Film", 41)
    trained = [variant_of_lora("mine.safetensors", header("2.0 Pro", "pro-high", "8"))]
    assert resolve_layout(AutoLayout(), trained) == make_layout("2.0 Pro", 81, 8)
    assert resolve_layout(AutoLayout(81, 4), trained) == make_layout("2.0 Pro", 81, 4)
    assert resolve_layout(AutoLayout(cuts_to_8_bits=True), variants).cuts_to_8_bits
    with pytest.raises(ValueError, match="hands over latents"):
        resolve_layout(AutoLayout(cuts_to_8_bits=True), trained)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "none does, or it was not applied by SVI LoRA Stack"),
        (["svi_lora_v2.0.safetensors"], r"may be 2.0 or 2.0 \(Wan 2.1\)"),
        (["svi-film.safetensors", "svi-shot.safetensors"], "svi-shot.safetensors is for SVI Shot"),
    ],
)
def test_auto_never_guesses(files, words):
    with pytest.raises(ValueError, match=words):
        resolve_layout(AutoLayout(), [variant_of_lora(file, {}) for file in files])


def test_a_layout_without_variants_is_taken_as_it_is():
    assert resolve_layout(LAYOUTS["Shot"], []) is LAYOUTS["Shot"]


def test_an_ambiguous_name_leaves_the_choice_between_its_layouts():
    variant = variant_of_lora("svi_lora_v2.0.safetensors", {})
    assert resolve_layout(LAYOUTS["2.0"], [variant]) and resolve_layout(LAYOUTS["2.0 (Wan 2.1)"], [variant])
    with pytest.raises(ValueError, match="variant '2.0' or '2.0 "):
        resolve_layout(LAYOUTS["Shot"], [variant])
