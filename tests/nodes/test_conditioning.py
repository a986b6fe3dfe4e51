"""What reaches the network: checked on ComfyUI's own concat_cond, with values computed by hand."""

import pytest
import torch

# The first three of Wan 2.1's 16 latent means and standard deviations (docs/METHOD.md, 1.1).
MEAN = [-0.7571, -0.7089, -0.9113]
STD = [2.8184, 1.4541, 2.3275]


def latents(slots, seed, batch=1):
    return torch.randn(batch, 16, slots, 8, 8, generator=torch.Generator().manual_seed(seed))


def network_input(model, conditioning, batch=1, slots=3):
    """Return the 20 conditioning channels [B, 20, F, h, w] that the network gets, by ComfyUI's own code."""
    values = conditioning[0][1]
    return model.model.concat_cond(
        noise=torch.zeros(batch, 16, slots, 8, 8),
        concat_latent_image=values["concat_latent_image"].clone(),
        concat_mask=values["concat_mask"],
        device=torch.device("cpu"),
    )


def condition(pack, **inputs):
    defaults = {"positive": [[torch.zeros(1, 4, 32), {}]], "negative": [[torch.ones(1, 4, 32), {}]], "padding": "zero latent"}
    return pack.nodes.SVIConditioning.execute(**{**defaults, **inputs}).args


def test_network_sees_mask_then_normalised_anchor_motion_and_exact_zeros(pack, model):
    anchor, motion = latents(1, 0), latents(1, 1)
    positive, negative, empty = condition(pack, anchor={"samples": anchor}, motion={"samples": motion}, num_frames=9)
    seen = network_input(model, positive)
    assert seen.shape == (1, 20, 3, 8, 8)
    assert seen[:, :4, 0].eq(1).all() and seen[:, :4, 1:].eq(0).all()
    for channel in range(3):
        for slot, part in ((0, anchor), (1, motion)):
            expected = (part[:, channel, 0] - MEAN[channel]) / STD[channel]
            assert torch.allclose(seen[:, 4 + channel, slot], expected, atol=1e-5)
    assert seen[:, 4:, 2].eq(0).all()
    assert torch.equal(network_input(model, negative), seen)
    assert empty["samples"].shape == (1, 16, 3, 8, 8) and empty["samples"].eq(0).all()


def test_prompts_keep_their_own_values_and_are_not_changed_in_place(pack):
    positive = [[torch.zeros(1, 4, 32), {"pooled_output": None, "mark": 1}]]
    out, _, _ = condition(pack, positive=positive, anchor={"samples": latents(1, 0)}, num_frames=9)
    assert out[0][1]["mark"] == 1 and "concat_mask" not in positive[0][1]


def test_batch_of_anchors_makes_a_batch_of_clips(pack, model):
    positive, _, empty = condition(
        pack, anchor={"samples": latents(1, 0, batch=2)}, motion={"samples": latents(1, 1)}, num_frames=9
    )
    assert empty["samples"].shape[0] == 2
    seen = network_input(model, positive, batch=2)
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[0, :, 1], seen[1, :, 1])


def test_anchor_is_each_image_alone_as_a_video_of_one_frame(pack, vae):
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    anchor, resized, width, height = pack.nodes.SVIAnchorEncode.execute(vae, images, 64, 64, "exact", "crop").args
    assert anchor["samples"].shape == (2, 16, 1, 8, 8) and (width, height) == (64, 64)
    for index in range(2):
        assert torch.equal(anchor["samples"][index : index + 1], vae.encode(images[index : index + 1]))
    assert torch.equal(resized, images)


def test_the_anchor_node_says_the_size_that_it_chose(pack, vae):
    image = torch.rand(1, 90, 160, 3)
    made = pack.nodes.SVIAnchorEncode.execute(vae, image, 832, 480, "megapixels", "crop", megapixels=0.01)
    assert made.args[0]["samples"].shape == (1, 16, 1, 10, 18) and made.args[2:] == (144, 80)
    assert made.ui == {"svi_summary": ("144 x 80 pixels (0.01 megapixels), from an image of 160 x 90",)}


def test_motion_from_images_is_the_last_slot_of_the_whole_clip(pack, vae):
    frames = torch.rand(13, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    motion = pack.nodes.SVIMotionLatent.execute("4", images=frames, vae=vae).args[0]
    assert torch.equal(motion["samples"], vae.encode(frames)[:, :, -1:])


def test_motion_from_a_latent_makes_no_vae_round_trip(pack):
    clip = latents(21, 0)
    for frames, slots in (("4", 1), ("8", 2), ("12", 3)):
        motion = pack.nodes.SVIMotionLatent.execute(frames, samples={"samples": clip}).args[0]
        assert torch.equal(motion["samples"], clip[:, :, -slots:])


def test_reference_padding_is_one_encode_of_known_and_repeated_frames(pack, vae, model):
    """docs/METHOD.md, 3.1, Shot: y = VAE([last frame, reference x 8]) in one causal encode, slot 0 known."""
    image, frames = torch.rand(1, 64, 64, 3), torch.rand(9, 64, 64, 3)
    anchor = pack.nodes.SVIAnchorEncode.execute(vae, image, 64, 64, "exact", "crop").args[0]
    motion = pack.nodes.SVIMotionLatent.execute("1", images=frames, vae=vae).args[0]
    positive, _, _ = condition(pack, anchor=anchor, motion=motion, num_frames=9, padding="anchor frames", vae=vae)
    expected = vae.encode(torch.cat([frames[-1:], image.expand(8, -1, -1, -1)]))
    assert torch.equal(positive[0][1]["concat_latent_image"], expected)
    seen = network_input(model, positive)
    assert seen[:, :4, 0].eq(1).all() and seen[:, :4, 1:].eq(0).all()


def test_grey_padding_is_grey_pixels_and_only_slot_0_is_known_with_5_motion_frames(pack, vae, model):
    """docs/METHOD.md, 2.1 and 3.1, Film: 5 motion frames fill two slots, but the mask marks one."""
    image, frames = torch.rand(1, 64, 64, 3), torch.rand(9, 64, 64, 3)
    anchor = pack.nodes.SVIAnchorEncode.execute(vae, image, 64, 64, "exact", "crop").args[0]
    motion = pack.nodes.SVIMotionLatent.execute("5", images=frames, vae=vae).args[0]
    positive, _, _ = condition(pack, anchor=anchor, motion=motion, num_frames=9, padding="grey frames", vae=vae)
    expected = vae.encode(torch.cat([frames[-5:], torch.full((4, 64, 64, 3), 0.5)]))
    assert torch.equal(positive[0][1]["concat_latent_image"], expected)
    seen = network_input(model, positive)
    assert seen[:, :4, 0].eq(1).all() and seen[:, :4, 1:].eq(0).all()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"anchor": {"samples": torch.zeros(1, 4, 8, 8)}}, "anchor has shape"),
        ({"anchor": {"samples": torch.zeros(1, 16, 2, 8, 8)}}, "anchor has 2 latent slots"),
        ({"motion": {"samples": torch.zeros(1, 16, 1, 4, 8)}}, "anchor and motion differ in size"),
        ({"motion": {"samples": torch.zeros(1, 16, 2, 8, 8)}}, "leaves nothing"),
        ({"motion": {"samples": torch.zeros(1, 16, 2, 8, 8), "svi_frames": torch.zeros(5, 64, 64, 3)}}, "4, 8 or 12"),
        ({"num_frames": 10}, "num_frames is 10"),
        ({"padding": "anchor frames"}, "connect the VAE"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(pack, inputs, words):
    with pytest.raises(ValueError, match=words):
        condition(pack, **{"anchor": {"samples": latents(1, 0)}, "num_frames": 9, **inputs})


def test_pixel_padding_without_frames_says_how_to_get_them(pack, vae):
    with pytest.raises(ValueError, match="make it from images, with SVI Anchor Encode"):
        condition(pack, anchor={"samples": latents(1, 0)}, num_frames=9, padding="anchor frames", vae=vae)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "connect exactly one"),
        ({"samples": {"samples": latents(3, 0)}, "images": torch.zeros(9, 64, 64, 3)}, "connect exactly one"),
        ({"images": torch.zeros(9, 64, 64, 3)}, "vae is missing"),
        ({"samples": {"samples": latents(1, 0)}}, "only 0 frames"),
        ({"samples": {"samples": torch.zeros(1, 4, 8, 8)}}, "samples has shape"),
    ],
)
def test_motion_needs_one_source(pack, inputs, words):
    with pytest.raises(ValueError, match=words):
        pack.nodes.SVIMotionLatent.execute("4", **inputs)


def test_motion_from_too_short_a_video_is_refused(pack, vae):
    with pytest.raises(ValueError, match="images holds 4 frame.*need 5"):
        pack.nodes.SVIMotionLatent.execute("4", images=torch.zeros(4, 64, 64, 3), vae=vae)
