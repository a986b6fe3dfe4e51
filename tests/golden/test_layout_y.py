"""Every layout's y, mask and stitched length against a plain implementation of docs/METHOD.md, on the demo's trained VAE.

The expected tensors are built here frame by frame from docs/METHOD.md, 2 and 3, in normalised latent space, and share
nothing with the pack but the VAE itself. Ours come out of the loop's own code, as a run would make them.
"""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from demo.models.tiny_models import VAE_FILE
from svi_core.files.fingerprint import fingerprint

# docs/METHOD.md, 1.1: normalised latent = (mu - mean) / std with the 16 constants of Wan 2.1.
MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)  # fmt: skip
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)  # fmt: skip
NUM_FRAMES, NUM_SLOTS, HEIGHT, WIDTH = 13, 4, 32, 48
PIXEL_LAYOUTS = {  # name: (ref_pad_num of the released script, motion frames): docs/METHOD.md, 3.1 and 3.2
    "2.0": (-1, 1),
    "2.0 (Wan 2.1)": (-1, 5),
    "Shot": (-1, 1),
    "Film": (0, 5),
    "Film-transitions": (0, 5),
    "Tom & Jerry": (0, 1),
    "Talk": (-1, 1),
    "Dance": (-1, 1),
}
STITCHED = {  # frames that 2 and 5 clips of 81 make: docs/METHOD.md, 5.1 and 5.2
    "2.0 Pro": (157, 385), "2.0": (161, 401), "2.0 (Wan 2.1)": (157, 385), "Shot": (161, 401), "Film": (157, 385),
    "Film-transitions": (157, 385), "Tom & Jerry": (161, 401), "Talk": (161, 401), "Dance": (161, 401),
}  # fmt: skip


@dataclass
class Before:
    """A clip that was made before: its latent as the sampler gave it, and its decoded frames."""

    latent: torch.Tensor
    frames: torch.Tensor
    key: str = "0" * 64

    def tail(self, num_frames):
        return self.frames[-num_frames:]


@pytest.fixture(scope="module")
def vae(comfy):
    import comfy.sd
    import comfy.utils

    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE_FILE)))


@pytest.fixture(scope="module")
def anchor(pack, vae):
    image = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))
    return pack.nodes.SVIAnchorEncode.execute(vae, image, WIDTH, HEIGHT, "exact", "crop").args[0]


@pytest.fixture(scope="module")
def before():
    generator = torch.Generator().manual_seed(2)
    latent = torch.randn(1, 16, NUM_SLOTS, HEIGHT // 8, WIDTH // 8, generator=generator)
    return Before(latent, torch.rand(NUM_FRAMES, HEIGHT, WIDTH, 3, generator=generator))


@pytest.fixture(scope="module")
def made_sampler(pack, vae, anchor):
    """(layout name, whether 8 bits) -> the sampler of a run on Wan 2.1, and the plan of its two clips."""
    modules = {
        name: sys.modules[f"{pack.__name__}.{name}"]
        for name in ("nodes.generate", "svi_core.systems.layouts", "svi_core.clips.clip_plan")
    }
    schedule = sys.modules[f"{pack.__name__}.svi_core.schedule.text"].parse_schedule("a")
    wan21 = SimpleNamespace(model=SimpleNamespace(diffusion_model=SimpleNamespace(img_emb=True)))

    def make(name, cuts_to_8_bits=False):
        layout = modules["svi_core.systems.layouts"].make_layout(name, NUM_FRAMES, 0, cuts_to_8_bits)
        links = {"prompts": None, "negative": [], "sampler": None, "sigmas": torch.ones(2), "cfg": 1.0, "boundary": 0.9}
        sampler = modules["nodes.generate"].ClipSampler(model=wan21, vae=vae, anchor=anchor, clip_vision=FakeVision(), **links)
        return sampler, modules["svi_core.clips.clip_plan"].ClipPlan(2, schedule, layout)

    return make


@pytest.fixture(scope="module")
def made_y(made_sampler):
    """(layout name, clip before or None, whether 8 bits) -> y as SVI Generate makes it."""

    def make(name, before, cuts_to_8_bits=False):
        sampler, plan = made_sampler(name, cuts_to_8_bits)
        return sampler.build_y(plan.request(0 if before is None else 1), before)

    return make


def normalised(latent):
    shape = (1, 16, 1, 1, 1)
    return (latent - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)


def encoded(vae, frames):
    """Encode a list of frames [H, W, 3] in [-1, 1] as one video, by the network itself: normalised [1, 16, F, h, w]."""
    pixels = torch.stack(frames).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        return normalised(vae.first_stage_model.encode(pixels.float()))


def expected_pixel_y(vae, reference, before, ref_pad_num, num_motion, cuts_to_8_bits=False):
    """docs/METHOD.md, 3.1: [cond frames (n)] + [pad (T - n)], one encode of the whole clip; pad -1: the reference, 0: zeros."""
    to_signed = [picture * 2 - 1 for picture in (before.frames if before else reference)]
    known = to_signed[-num_motion:] if before else to_signed
    if cuts_to_8_bits and before:
        bytes_of = [torch.clip((picture + 1) * 127.5, 0, 255).to(torch.uint8) for picture in known]
        known = [picture.float() * 2 / 255 - 1 for picture in bytes_of]
    padding = reference[0] * 2 - 1 if ref_pad_num == -1 else torch.zeros(HEIGHT, WIDTH, 3)
    frames = list(known)
    while len(frames) < NUM_FRAMES:
        frames.append(padding)
    return encoded(vae, frames)


def expected_pro_y(vae, reference, before):
    """docs/METHOD.md, 3.3: [anchor, last latent of the clip before, 0 ...], zero in normalised space."""
    slots = [encoded(vae, [reference[0] * 2 - 1])]
    if before:
        slots.append(normalised(before.latent)[:, :, -1:])
    while len(slots) < NUM_SLOTS:
        slots.append(torch.zeros(1, 16, 1, HEIGHT // 8, WIDTH // 8))
    return torch.cat(slots, dim=2)


def require_equal(y, expected):
    assert y.latent.shape == expected.shape == (1, 16, NUM_SLOTS, HEIGHT // 8, WIDTH // 8)
    assert torch.allclose(normalised(y.latent), expected, atol=2e-4), (normalised(y.latent) - expected).abs().max()


def test_every_layout_is_held_here(pack):
    assert set(sys.modules[f"{pack.__name__}.svi_core.systems.layouts"].LAYOUTS) == {"2.0 Pro", *PIXEL_LAYOUTS} == set(STITCHED)


@pytest.mark.parametrize("later", [False, True], ids=["first clip", "later clip"])
@pytest.mark.parametrize("name", PIXEL_LAYOUTS)
def test_y_of_a_pixel_layout(made_y, vae, anchor, before, name, later):
    reference = anchor["svi_frames"]
    require_equal(
        made_y(name, before if later else None),
        expected_pixel_y(vae, reference, before if later else None, *PIXEL_LAYOUTS[name]),
    )


@pytest.mark.parametrize("later", [False, True], ids=["first clip", "later clip"])
def test_y_of_pro(made_y, vae, anchor, before, later):
    y = made_y("2.0 Pro", before if later else None)
    require_equal(y, expected_pro_y(vae, anchor["svi_frames"], before if later else None))
    padding = y.latent[:, :, 2 if later else 1 :]
    assert torch.allclose(padding, torch.tensor(MEAN).view(1, 16, 1, 1, 1).expand_as(padding), atol=1e-6)


@pytest.mark.parametrize("later", [False, True], ids=["first clip", "later clip"])
@pytest.mark.parametrize("name", ["2.0 Pro", *PIXEL_LAYOUTS])
def test_the_mask_knows_slot_0_only(made_y, before, name, later):
    """docs/METHOD.md, 2.1: ones at slot 0, regardless of how many motion frames are given."""
    mask = made_y(name, before if later else None).mask
    assert mask.shape == (1, 1, NUM_SLOTS, HEIGHT // 8, WIDTH // 8)
    assert mask[:, :, 0].eq(1).all() and mask[:, :, 1:].eq(0).all()


@pytest.mark.parametrize("name", ["Shot", "Film"])
def test_8_bits_change_motion_frames_only_and_as_the_released_code_does(made_y, vae, anchor, before, name):
    reference = anchor["svi_frames"]
    require_equal(made_y(name, before, True), expected_pixel_y(vae, reference, before, *PIXEL_LAYOUTS[name], True))
    assert torch.equal(made_y(name, None, True).latent, made_y(name, None, False).latent)
    assert not torch.equal(made_y(name, before, True).latent, made_y(name, before, False).latent)


def test_no_two_paddings_or_motion_counts_give_the_same_y(made_y, before):
    kinds = [made_y(name, before).latent for name in ("2.0 Pro", "Shot", "2.0 (Wan 2.1)", "Film", "Tom & Jerry")]
    for index, one in enumerate(kinds):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in kinds[:index])


@pytest.mark.parametrize("name", STITCHED)
def test_stitched_lengths(pack, name):
    """Frames shown by the clips of a plan, counted one by one."""
    parts = {"clips": "clips.clip_plan", "layouts": "systems.layouts", "schedule": "schedule.text"}
    core = {part: sys.modules[f"{pack.__name__}.svi_core.{module}"] for part, module in parts.items()}
    for num_clips, expected in zip((2, 5), STITCHED[name], strict=True):
        plan = core["clips"].ClipPlan(num_clips, core["schedule"].parse_schedule("a"), core["layouts"].LAYOUTS[name])
        assert sum(showing.num_frames for _, showing in plan.walk()) == expected


class FakeVision:
    """A CLIP vision model that notes the pictures it sees."""

    def __init__(self):
        self.seen = []

    def encode_image(self, image, crop=True):
        self.seen.append((image, crop))


@pytest.mark.parametrize("name", PIXEL_LAYOUTS)
def test_clip_vision_sees_the_first_known_frame_whole(pack, anchor, before, made_sampler, name):
    """docs/METHOD.md, 2.3: clip 1 the reference; later the first motion frame, for Film the 5th from last; no crop."""
    sampler, plan = made_sampler(name)
    for index, previous in ((0, None), (1, before)):
        sampler._clip_vision_features(plan.request(index), previous)
    (first, first_crop), (later, later_crop) = sampler.clip_vision.seen
    assert torch.equal(first, anchor["svi_frames"]) and first_crop is later_crop is False
    assert torch.equal(later, before.frames[-PIXEL_LAYOUTS[name][1]][None])


def test_the_key_of_an_anchor_is_that_of_its_frames_or_else_of_its_latent(made_sampler, anchor):
    """Segments of pinned takes are named after it; nothing is decoded for it."""
    sampler, plan = made_sampler("2.0 Pro")
    sampler.vae = None
    assert sampler.anchor_key(plan.request(0)) == fingerprint(anchor["svi_frames"].float())
    sampler.anchor = {"samples": anchor["samples"]}
    assert sampler.anchor_key(plan.request(0)) == fingerprint(anchor["samples"].float())
