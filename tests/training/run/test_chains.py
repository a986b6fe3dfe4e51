"""Chains from held-out clips: what each clip is conditioned on, what it hands over, and which clips are taken."""

from dataclasses import replace

import pytest
import torch

from tests.training.fakes import FakeDataset, make_trainer, settings

pytestmark = pytest.mark.usefixtures("training_mode")


class Echo:
    """A model that leads from any noise to the conditioning latent, and remembers its conditions."""

    needs_clip_vision, speech = False, None

    def __init__(self):
        self.seen = []

    def velocity(self, noisy, sigma, conditions):
        self.seen.append((noisy.clone(), conditions))
        return (noisy - conditions.y_latent) / sigma


class Windows(FakeDataset):
    """Held-out examples with the names that a cache gives them: two windows of each clip, and one of another size."""

    def validation(self):
        examples = super().validation()
        named = [replace(own, name=f"clip{i // 2}.mp4 window {i % 2} variant 0") for i, own in enumerate(examples)]
        return [named[0], replace(named[1], name="upright.mp4", latent=torch.zeros(16, 3, 6, 4)), *named[1:]]


def make_chains(wan_folder, layout: str = "2.0 Pro", data=None, model=None, samples=None, **diagnosis):
    from demo.models.tiny_models import VAE_FILE
    from training.run.chains import Chains

    config = settings(
        data={"layout": layout, "num_frames": 9, "width": 48, "height": 32, "frame_rate": 25 if layout == "Talk" else 16},
        model={"expert": "single", "vae": str(VAE_FILE), **(model or {})},
        samples=samples or {},
        diagnosis={"num_scenes": 2, "num_clips": 3, "steps": 2, **diagnosis},
    )
    trainer = make_trainer(wan_folder, config, data=data)
    return trainer, Chains(trainer)


def the_clips(trainer, chains):
    """Return the first scene, its clips, and what an echoing model was asked for them: two steps each."""
    trainer.backbone = echo = Echo()
    with chains.scenes() as scenes:
        return scenes[0], list(scenes[0].clips()), echo.seen


def test_clip_1_is_conditioned_as_the_held_out_clip_and_the_next_ones_continue(wan_folder):
    trainer, chains = make_chains(wan_folder)
    _, clips, seen = the_clips(trainer, chains)
    example = chains.examples[0]
    assert len(clips) == 3 and len(seen) == 6
    assert torch.equal(seen[0][1].y_latent[0], example.y_latent) and torch.equal(seen[0][1].mask[0], example.mask)
    assert all(torch.equal(conditions.text[0], example.text) for _, conditions in seen)
    torch.testing.assert_close(clips[0].latent[0], example.y_latent, atol=1e-5, rtol=0)
    for index in (1, 2):
        y = seen[2 * index][1].y_latent
        assert torch.equal(y[0, :, :1], example.y_latent[:, :1])  # the anchor
        assert torch.equal(y[:, :, 1:2], clips[index - 1].latent[:, :, -1:]) and not y[:, :, 2:].any()
    noises = [seen[2 * index][0] for index in range(3)]
    assert not torch.equal(noises[0], noises[1])
    with chains.scenes() as scenes:  # scenes have noise of their own, and the same one each time
        other = [next(scene.clips()) for scene in scenes]
    assert torch.equal(trainer.backbone.seen[6][0], noises[0]) and not torch.equal(trainer.backbone.seen[8][0], noises[0])
    assert len(other) == 2


@pytest.mark.parametrize(("layout", "num_motion"), [("Film", 5), ("Shot", 1)])
def test_pixel_layouts_hand_over_through_frames_and_the_vae(wan_folder, layout, num_motion):
    from training.model.encoders import encode_video

    trainer, chains = make_chains(wan_folder, layout)
    scene, clips, seen = the_clips(trainer, chains)
    pad = torch.full((1, 32, 48, 3), 0.5)
    if layout == "Shot":  # the anchor is what the example's padding shows
        pad = torch.cat(list(scene.maker.decode(scene.example.y_latent[None])))[-1:]
    frames = torch.cat([clips[0].frames[-num_motion:], pad.expand(9 - num_motion, -1, -1, -1)])
    expected = encode_video(scene.maker.vae, frames)
    torch.testing.assert_close(seen[2][1].y_latent[0], expected, atol=1e-4, rtol=1e-4)
    known = scene.known_after(clips[0])
    assert known.shape[1] == (num_motion - 1) // 4 + 1
    torch.testing.assert_close(known, expected[:, : known.shape[1]], atol=1e-4, rtol=1e-4)


def test_frames_are_cut_to_8_bits_where_asked(wan_folder):
    ends = {}
    for cuts in (False, True):
        trainer, chains = make_chains(wan_folder, "Shot", cut_to_8_bits=cuts)
        _, _, seen = the_clips(trainer, chains)
        ends[cuts] = seen[2][1].y_latent
    change = (ends[True] - ends[False]).abs()
    assert 0 < change.max() < 0.2


def test_what_is_handed_over_for_other_known_slots(wan_folder):
    trainer, chains = make_chains(wan_folder)

    class Copy(Echo):
        def velocity(self, noisy, sigma, conditions):
            self.seen.append(conditions.y_latent)
            return (noisy - conditions.y_latent[:, :, 1:2]) / sigma  # every slot becomes the motion slot

    trainer.backbone = copy = Copy()
    with chains.scenes() as scenes:
        scene = scenes[0]
        known = scene.known_after(scene.truth)
        assert torch.equal(known, scene.example.latent[:, -1:])
        for added in (0.0, 0.3):
            torch.testing.assert_close(scene.handed_over(known + added), known + added, atol=1e-5, rtol=0)
    assert torch.equal(copy.seen[-1][0, :, :1], scene.example.y_latent[:, :1])  # the anchor stays clean


def test_scenes_are_of_many_clips_and_of_one_size(wan_folder):
    from training.run.chains import clip_name

    _, chains = make_chains(wan_folder, data=Windows(num_held_out=6), num_scenes=3)
    assert [clip_name(example) for example in chains.examples] == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]
    _, chains = make_chains(wan_folder, data=Windows(num_held_out=6), num_scenes=5)
    assert [clip_name(example)[4] for example in chains.examples] == ["0", "1", "2", "0", "1"]  # then their other windows


def test_no_scene_has_a_size_that_is_not_trained(wan_folder):
    class UprightFirst(FakeDataset):
        def validation(self):
            examples = super().validation()
            return [replace(examples[0], latent=torch.zeros(16, 3, 6, 4)), *examples[1:]]

    _, chains = make_chains(wan_folder, data=UprightFirst(num_held_out=3))
    assert [tuple(example.latent.shape) for example in chains.examples] == [(16, 3, 4, 6)] * 2
    with pytest.raises(ValueError, match=r"but 1 examples are held out: set data.held_out=8"):
        make_chains(wan_folder, data=UprightFirst(num_held_out=2))


def test_what_chains_need_is_refused_by_name(wan_folder):
    with pytest.raises(ValueError, match=r"but 1 examples are held out: set data.held_out=8"):
        make_chains(wan_folder, data=FakeDataset(num_held_out=1))
    with pytest.raises(ValueError, match="samples.other_expert is empty, .* chains of the high-noise one alone say nothing"):
        make_chains(wan_folder, model={"expert": "high"})
    with pytest.raises(ValueError, match="model.text_encoder is empty"):
        make_chains(wan_folder, samples={"cfg": 3.0})
    with pytest.raises(ValueError, match="samples.other_expert is 'gone.safetensors'"):
        make_chains(wan_folder, model={"expert": "low"}, samples={"other_expert": "gone.safetensors"})


def test_broken_clips_are_named(wan_folder):
    trainer, chains = make_chains(wan_folder)

    class Broken(Echo):
        def velocity(self, noisy, sigma, conditions):
            return torch.full_like(noisy, torch.nan)

    trainer.backbone = Broken()
    with chains.scenes() as scenes, pytest.raises(ValueError, match="clip 1 of a chain from held_out500.mp4: .* are NaN"):
        next(scenes[0].clips())


class Conditioned(FakeDataset):
    """The examples of FakeDataset with random values of one further condition."""

    def __init__(self, condition: str, shape: tuple[int, ...]):
        super().__init__()
        self.condition, self.shape = condition, shape

    def make(self, index, name="clip"):
        values = torch.randint(0, 256, self.shape, generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        extra = values if self.condition == "pose" else values.float()
        return replace(super().make(index, name), extras={self.condition: extra})


def test_dance_follows_the_held_out_clips_poses_over_and_over(wan_folder):
    trainer, chains = make_chains(wan_folder, "Dance", data=Conditioned("pose", (9, 32, 48, 3)))
    torch.nn.init.normal_(trainer.poses.encoder[-1].weight, generator=torch.Generator().manual_seed(5))
    _, _, seen = the_clips(trainer, chains)
    poses = chains.examples[0].extras["pose"]
    for index, shown in enumerate((range(9), [8, *range(8)], [7, 8, *range(7)])):  # clips share a frame
        assert torch.equal(seen[2 * index][1].pose_tokens, trainer.poses.tokens([poses[list(shown)]]))


def test_talk_hears_the_held_out_clips_speech_over_and_over(wan_folder):
    class Speech:
        def tokens(self, sounds):
            return torch.stack(sounds)

    class Hearing(Echo):
        speech = Speech()

    trainer, chains = make_chains(wan_folder, "Talk", data=Conditioned("sound", (13, 2, 4)))
    trainer.backbone = hearing = Hearing()
    with chains.scenes() as scenes:
        list(scenes[0].clips())
    heard = chains.examples[0].extras["sound"]
    first, second = (hearing.seen[2 * index][1].sound_tokens[0] for index in (0, 1))
    assert torch.equal(first[2:-2], heard[2:-2]) and torch.equal(second[2], heard[2 + 8]) and torch.equal(second[3], heard[2])
