"""Which models SVI takes, by the classes that ComfyUI gives them, and the width of their text."""

import pytest

from svi_core.systems.base_model import require_plain_i2v, require_rgb, require_text_width, require_vision_width


def classes(*names: str) -> type:
    """Return a class of the first name, derived from classes of the other names."""
    kind = object
    for name in reversed(names):
        kind = type(name, (kind,), {})
    return kind


@pytest.mark.parametrize(
    ("model", "transformer"),
    [(["WAN21"], "WanModel"), (["WAN21"], "OptimizedModule"), (["WAN21"], "FastWanModel"), (["FastWAN", "WAN21"], "WanModel")],
)
def test_the_plain_image_to_video_model_is_taken_also_compiled_or_sped_up(model, transformer):
    require_plain_i2v("model", classes(*model), classes(transformer), 36)


@pytest.mark.parametrize(
    ("model", "transformer", "channels", "found"),
    [
        ("WAN21_HuMo", "HumoWanModel", 36, "HuMo (ComfyUI's WAN21_HuMo with HumoWanModel)"),
        ("WAN22_Animate", "AnimateWanModel", 36, "Wan-Animate (ComfyUI's WAN22_Animate"),
        ("WAN21_Camera", "CameraWanModel", 36, "Wan Fun-Camera"),
        ("WAN22_WanDancer", "WanDancerModel", 36, "WanDancer"),
        ("WAN21_Vace", "VaceWanModel", 36, "Wan VACE"),
        ("WAN22_S2V", "WanModel_S2V", 16, "Wan 2.2 S2V"),
        ("WAN22", "WanModel", 48, "Wan 2.2 5B"),
        ("WAN21_FlowRVS", "WanModel", 36, "FlowRVS"),
        ("WAN21", "SomeModel", 0, "another model (ComfyUI's WAN21 with SomeModel)"),
        ("Flux", "Flux", 0, "another model (ComfyUI's Flux with Flux)"),
        ("WAN21", "WanModel", 16, "a model with 16 input channels (a text-to-video model)"),
        ("WAN21", "WanModel", 48, "a model with 48 input channels (a Fun-Control model)"),
        ("WAN21", "WanModel", 20, "a model with 20 input channels, but"),
    ],
)
def test_any_other_model_is_refused_by_what_it_is_and_the_fitting_ones_are_named(model, transformer, channels, found):
    with pytest.raises(ValueError, match="load Wan 2.1 I2V 14B or a Wan 2.2 I2V A14B expert") as error:
        require_plain_i2v("model_low_noise", classes(model), classes(transformer), channels)
    assert str(error.value).startswith(f"model_low_noise is {found}")


def test_text_of_another_width_is_refused_with_both_widths():
    require_text_width("prompts", 4096, "model", 4096)
    with pytest.raises(ValueError, match="prompts is 768 wide, but model reads text embeddings 4096 wide: .*umT5-XXL"):
        require_text_width("prompts", 768, "model", 4096)


def test_clip_vision_of_another_width_is_refused_with_both_widths():
    require_vision_width("clip_vision", 1280, "model", 1280)
    with pytest.raises(
        ValueError, match="clip_vision makes features 1024 wide, but model reads CLIP vision features 1280 wide"
    ):
        require_vision_width("clip_vision", 1024, "model", 1280)


@pytest.mark.parametrize("channels", [(4, 3), (3, 12), (4, 4)])
def test_a_vae_of_other_pictures_is_refused_with_its_channels(channels):
    require_rgb("vae", 3, 3)
    with pytest.raises(ValueError, match="vae encodes {} and decodes to {} colour channels".format(*channels)):
        require_rgb("vae", *channels)
