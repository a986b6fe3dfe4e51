"""Sample videos: the sampler's arithmetic, what each clip is conditioned on, and the files that are left."""

from dataclasses import replace

import pytest
import torch

from svi_core.clips.clip_plan import ClipPlan, ClipRequest
from svi_core.flow.flow_matching import shifted_sigmas
from svi_core.schedule.spec import ClipSpec, Paragraph, Schedule
from svi_core.video.frame_times import count_frames
from tests.training.fakes import FakeDataset, make_trainer, settings
from training.method.distributed import Group
from training.run.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("training_mode")


class Recorder:
    """A model whose velocity is constant, and which remembers what it was asked."""

    def __init__(self, value: float = 0.5):
        self.value, self.calls = value, []
        self.needs_clip_vision = False

    def velocity(self, noisy, sigma, conditions):
        self.calls.append((noisy, float(sigma), conditions))
        return torch.full_like(noisy, self.value)


def make_maker(wan_folder, layout: str = "2.0 Pro", num_frames: int = 9, **samples):
    from demo.models.tiny_models import VAE_FILE
    from training.model.encoders import load_vae
    from training.run.sample_story import Story
    from training.run.samples import SampleMaker

    data = {"layout": layout, "num_frames": num_frames, "width": 48, "height": 32}
    config = settings(data=data, samples={"steps": 2, "num_clips": 2, **samples})
    trainer = make_trainer(wan_folder, config)
    vae = load_vae(VAE_FILE)
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(1, 32, 48, 3, generator=generator)
    anchor = torch.randn(1, 16, 1, 4, 6, generator=generator)
    story = Story(("a", "b"), {"a": torch.randn(3, 32), "b": torch.randn(3, 32)}, torch.zeros(2, 32), reference, anchor)
    return SampleMaker(trainer, story, vae, None)


def request(maker, index: int) -> ClipRequest:
    schedule = Schedule(tuple(Paragraph(ClipSpec(prompt)) for prompt in maker.story.prompts))
    return ClipPlan(2, schedule, maker.trainer.config.data.svi_layout, seed=7).request(index)


class Previous:
    key = "0" * 64

    def __init__(self):
        self.latent = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))
        self.frames = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(2))

    def tail(self, num_frames: int) -> torch.Tensor:
        return self.frames[-num_frames:]


def test_euler_walks_the_shifted_sigmas_to_the_end(wan_folder):
    maker = make_maker(wan_folder)
    maker.trainer.backbone = recorder = Recorder(0.5)
    latent = maker.sample(request(maker, 0), None)
    noise = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    assert torch.allclose(latent, noise - 0.5, atol=1e-6)
    assert [sigma for _, sigma, _ in recorder.calls] == pytest.approx([1.0, 2.5 / 3.0])
    assert torch.allclose(recorder.calls[1][0], noise + (2.5 / 3.0 - 1.0) * 0.5, atol=1e-6)


def test_a_pro_clip_knows_anchor_and_motion_latent(wan_folder):
    maker, previous = make_maker(wan_folder), Previous()
    maker.trainer.backbone = recorder = Recorder()
    maker.sample(request(maker, 1), previous)
    y, mask = recorder.calls[0][2].y_latent, recorder.calls[0][2].mask
    assert torch.equal(y[:, :, :1], maker.story.anchor) and torch.equal(y[:, :, 1:2], previous.latent[:, :, -1:])
    assert not y[:, :, 2:].any() and mask[0, 0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(recorder.calls[0][2].text[0], maker.story.texts["b"])


@pytest.mark.parametrize(("layout", "pads_with_reference"), [("Film", False), ("Shot", True)])
def test_a_pixel_layout_encodes_motion_and_padding_in_one_clip(wan_folder, layout, pads_with_reference):
    from training.model.encoders import encode_video

    maker, previous = make_maker(wan_folder, layout), Previous()
    maker.trainer.backbone = recorder = Recorder()
    maker.sample(request(maker, 1), previous)
    num_motion = maker.trainer.config.data.svi_layout.num_motion_frames
    pad = maker.story.reference if pads_with_reference else torch.full((1, 32, 48, 3), 0.5)
    frames = torch.cat([previous.frames[-num_motion:], pad.expand(9 - num_motion, -1, -1, -1)])
    assert torch.allclose(recorder.calls[0][2].y_latent[0], encode_video(maker.vae, frames), atol=1e-5)


def test_clips_of_dance_follow_the_poses_of_the_story_over_and_over(wan_folder):
    maker, previous = make_maker(wan_folder, "Dance", cfg=2.0), Previous()
    poses = torch.randint(0, 256, (9, 32, 48, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    maker.story = replace(maker.story, poses=poses)
    torch.nn.init.normal_(maker.trainer.poses.encoder[-1].weight, generator=torch.Generator().manual_seed(5))
    maker.trainer.backbone = recorder = Recorder()
    maker.sample(replace(request(maker, 1), start_frame=8), previous)  # the loop sets it
    expected = maker.trainer.poses.tokens([poses[[8, 0, 1, 2, 3, 4, 5, 6, 7]]])
    assert len(recorder.calls) == 4  # two steps, both passes of guidance
    assert all(torch.equal(conditions.pose_tokens, expected) for _, _, conditions in recorder.calls)


def test_guidance_leads_away_from_the_negative_prompt(wan_folder):
    maker = make_maker(wan_folder, cfg=3.0)

    class Guided(Recorder):
        def velocity(self, noisy, sigma, conditions):
            self.calls.append(conditions)
            return torch.full_like(noisy, 0.0 if conditions.text.abs().sum() == 0 else 1.0)

    maker.trainer.backbone = guided = Guided()
    latent = maker.sample(request(maker, 0), None)
    noise = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    assert torch.allclose(latent, noise - 3.0, atol=1e-5) and len(guided.calls) == 4


def test_the_other_expert_takes_over_at_the_boundary(wan_folder):
    maker = make_maker(wan_folder, steps=6)
    maker.trainer.backbone, maker.other = trained, other = Recorder(), Recorder()
    maker.sample(request(maker, 0), None)
    sigmas = shifted_sigmas(6)[:-1].tolist()
    assert [sigma for _, sigma, _ in trained.calls] == pytest.approx([sigma for sigma in sigmas if sigma >= 0.9])
    assert [sigma for _, sigma, _ in other.calls] == pytest.approx([sigma for sigma in sigmas if sigma < 0.9])


def test_a_sample_is_a_video_and_a_filmstrip(wan_folder, tmp_path):
    from training.run.samples import make_sample

    maker = make_maker(wan_folder)
    run = RunFolder(tmp_path / "run", Group())
    path = make_sample(maker, run)
    assert count_frames(path) == 2 * (9 - 5) + 5  # two clips that share 5 frames
    assert sorted(item.name for item in path.parent.iterdir()) == ["step_00000000.mp4", "step_00000000.png"]
    run.close()


def test_pictures_are_cropped_to_the_clips_shape(tmp_path):
    import numpy as np
    from PIL import Image

    from training.run.sample_story import _read_image

    pixels = np.zeros((100, 400, 3), np.uint8)
    pixels[:, 150:250] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = _read_image(tmp_path / "wide.png", 32, 32)
    assert image.shape == (1, 32, 32, 3) and float(image.min()) > 0.9
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="samples.image is .*text.png"):
        _read_image(tmp_path / "text.png", 32, 32)


def test_samples_do_not_change_the_training(wan_folder, tmp_path):
    from demo.models.tiny_models import VAE_FILE
    from training.run.samples import make_sampler
    from training.run.session import run_training

    loras = []
    for every in (0, 2):
        run = tmp_path / f"every{every}" / "run"
        config = settings(
            run,
            model={"expert": "high", "path": str(wan_folder / "fp32.safetensors"), "vae": str(VAE_FILE)},
            data={"num_frames": 9, "width": 48, "height": 32},
            samples={"every": every, "steps": 2, "num_clips": 2},
            loop={"steps": 4},
        )
        run_training(config, Group(), lambda *_: FakeDataset(), sampler=make_sampler)
        loras.append((run / "run.safetensors").read_bytes())
        assert len(list(run.glob("samples/*.mp4"))) == (2 if every else 0)
    assert loras[0] == loras[1]


def make_sampler_for(wan_folder, tmp_path, **samples):
    from demo.models.tiny_models import VAE_FILE
    from training.run.samples import make_sampler

    config = settings(
        model={"expert": "high", "vae": str(VAE_FILE)}, samples={"every": 1, "steps": 1, "num_clips": 1, **samples}
    )
    return make_sampler(make_trainer(wan_folder, config, folder=tmp_path), RunFolder(tmp_path / "run", Group()))


def test_what_is_missing_is_known_before_the_first_video(wan_folder, tmp_path):
    with pytest.raises(ValueError, match="samples.other_expert is 'gone.safetensors'"):
        make_sampler_for(wan_folder, tmp_path, other_expert="gone.safetensors")
    with pytest.raises(ValueError, match="samples.image is 'gone.png'"):
        make_sampler_for(wan_folder, tmp_path / "b", image="gone.png")
    with pytest.raises(ValueError, match="model.text_encoder is empty"):
        make_sampler_for(wan_folder, tmp_path / "c", prompts=["a cat"])


def test_a_video_that_finds_no_memory_does_not_end_the_training(wan_folder, tmp_path, monkeypatch, caplog):
    from training.run import samples as module

    sampler = make_sampler_for(wan_folder, tmp_path)

    def out_of_memory(maker, run):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "make_sample", out_of_memory)
    assert sampler(lambda: False) is None and "memory ran out" in caplog.text
    monkeypatch.setattr(module, "make_sample", lambda maker, run: 1 / 0)
    assert sampler(lambda: False) is None and "step 0 failed; training goes on without it" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_video_is_left_at_the_next_step_when_the_training_shall_end(wan_folder, tmp_path):
    from training.run.samples import SampleAbandoned

    maker = make_maker(wan_folder, steps=5)
    maker.trainer.backbone = recorder = Recorder()
    maker.should_stop = lambda: len(recorder.calls) == 2
    with pytest.raises(SampleAbandoned):
        maker.sample(request(maker, 0), None)
    assert len(recorder.calls) == 2
    with pytest.raises(SampleAbandoned):
        next(maker.decode(torch.zeros(1, 16, 3, 4, 6)))
    sampler = make_sampler_for(wan_folder, tmp_path)
    assert sampler(lambda: True) is None and not list((tmp_path / "run").glob("samples/*.mp4"))
    assert sampler(lambda: False).is_file()  # what was left does not stand in the way
