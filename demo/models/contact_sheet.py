"""Generate a held-out story with the shipped models in ComfyUI's own sampler, and arrange its frames on one picture.

    python -m demo.models.contact_sheet --seed 1000003 --clips 3 --out sheet.png
    python -m demo.models.contact_sheet --seed 1000004 --expert-pair --actions right,still,stay right,still,night hop,still,day

The upper row of each clip is the ground truth, the lower row the models' output from the first frame and the captions.
The layout is SVI 2.0 Pro: [first frame, last latent of the clip before, zeros]. Logs the error against the truth.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from demo.models.comfy_import import import_comfy
from demo.models.tiny_models import HIGH_NOISE_FILE, LOW_NOISE_FILE, TEXT_ENCODER_FILE, TRUNK_FILE, VAE_FILE
from demo.world.scenes import CLIP_FRAMES, SEGMENT_FRAMES, Action, Story, describe, render_story, sample_story

SHIFT = 5.0
BOUNDARY = 0.9
OVERLAP_FRAMES = CLIP_FRAMES - SEGMENT_FRAMES


class Sampler:
    """The shipped models behind ComfyUI's sampling functions; one model, or Wan 2.2's pair."""

    def __init__(self, expert_pair: bool, steps: int, cfg: float, folder: Path | None = None) -> None:
        import comfy.model_sampling
        import comfy.samplers
        import comfy.sd
        import comfy.utils

        from demo import tiny_encoders  # noqa: F401  (lets comfy.sd.load_clip take small encoders)

        self.cfg = cfg
        files = (HIGH_NOISE_FILE, LOW_NOISE_FILE) if expert_pair else (TRUNK_FILE,)
        files = [file if folder is None else folder / file.name for file in files]
        self.models = [_shifted(comfy.sd.load_diffusion_model(str(file))) for file in files]
        self.vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE_FILE)))
        self.clip = comfy.sd.load_clip([str(TEXT_ENCODER_FILE)], clip_type=comfy.sd.CLIPType.WAN)
        schedule = self.models[0].get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(schedule, "simple", steps)
        first_low = int((sigmas >= BOUNDARY).sum()) if expert_pair else len(sigmas)
        self.stages = [sigmas[: first_low + 1], sigmas[first_low:]] if expert_pair else [sigmas]

    def sample_clip(self, caption: str, anchor: Tensor, motion: Tensor | None, seed: int) -> Tensor:
        """Return the latent `[1, 16, 21, h, w]` of one clip; `anchor` and `motion` are one slot each, not normalised."""
        import comfy.sample
        import comfy.samplers

        latent = torch.zeros(1, 16, (CLIP_FRAMES + 3) // 4, *anchor.shape[-2:])
        concat = self.models[0].model.latent_format.process_out(latent.clone())
        concat[:, :, :1] = anchor
        if motion is not None:
            concat[:, :, 1:2] = motion
        mask = torch.ones(1, 1, *latent.shape[2:])
        mask[:, :, 0] = 0.0
        extra = {"concat_latent_image": concat, "concat_mask": mask}
        positive, negative = ([[self._encode(text), dict(extra)]] for text in (caption, ""))
        noise = comfy.sample.prepare_noise(latent, seed)
        for model, sigmas in zip(self.models, self.stages, strict=True):
            if len(sigmas) > 1:
                euler = comfy.samplers.sampler_object("euler")
                latent = comfy.sample.sample_custom(
                    model, noise, self.cfg, euler, sigmas, positive, negative, latent, disable_pbar=True, seed=seed
                )
                noise = torch.zeros_like(latent)
        return latent

    def _encode(self, text: str) -> Tensor:
        return self.clip.encode_from_tokens(self.clip.tokenize(text))


def _shifted(model):
    """Return the model with flow shift 5, as ComfyUI's node ModelSamplingSD3 sets it."""
    import comfy.model_sampling

    class Shifted(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    schedule = Shifted(model.model.model_config)
    schedule.set_parameters(shift=SHIFT, multiplier=1000)
    shifted = model.clone()
    shifted.add_object_patch("model_sampling", schedule)
    return shifted


@torch.inference_mode()
def grow_story(sampler: Sampler, story: Story, first_seed: int = 0) -> Tensor:
    """Return the frames `[T, 3, H, W]` of the whole story, generated clip by clip from its first frame."""
    anchor = sampler.vae.encode(render_story(story, 0, 1).permute(0, 2, 3, 1))
    frames, motion = [], None
    for index, caption in enumerate(story.captions):
        latent = sampler.sample_clip(caption, anchor, motion, first_seed + 42 * index)
        motion = latent[:, :, -1:]
        decoded = sampler.vae.decode(latent)[0].permute(0, 3, 1, 2)
        frames.append(decoded if index == 0 else decoded[OVERLAP_FRAMES:])
    return torch.cat(frames)


def lay_out(truth: Tensor, made: Tensor, columns: int = 7) -> Tensor:
    """Arrange frames of every clip, truth above and output below, as `[H, W, 3]` uint8."""
    rows = []
    for start in range(0, len(truth) - OVERLAP_FRAMES, SEGMENT_FRAMES):
        picks = torch.linspace(start + 4, start + SEGMENT_FRAMES, columns).long()
        rows.append(torch.cat([torch.cat(list(video[picks]), dim=2) for video in (truth, made)], dim=1))
    return (torch.cat(rows, dim=1).permute(1, 2, 0) * 255.0).clamp(0, 255).round().byte()


def direct_story(seed: int, actions: list[str]) -> Story:
    """Return the scene of this seed with these actions, each written as motion,camera,light."""
    scene = sample_story(seed, 1)
    parsed = tuple(Action(*action.split(",")) for action in actions)
    captions = tuple(describe(scene.background, scene.kind, scene.colour, action) for action in parsed)
    return replace(scene, actions=parsed, captions=captions)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1_000_003, help="story; 1000000 and above are held out")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--actions", nargs="+", help="instead of the story's own clips: motion,camera,light for each")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--expert-pair", action="store_true", help="use Wan 2.2's pair instead of the single model")
    parser.add_argument("--folder", type=Path, help="where the video models lie; default demo/models")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"))
    parser.add_argument("--comfyui", help="root of the ComfyUI tree")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    import_comfy(options.comfyui)
    from PIL import Image

    story = sample_story(options.seed, options.clips)
    if options.actions:
        story = direct_story(options.seed, options.actions)
    truth = render_story(story)
    made = grow_story(Sampler(options.expert_pair, options.steps, options.cfg, options.folder), story)
    Image.fromarray(lay_out(truth, made).numpy()).save(options.out)
    for index, caption in enumerate(story.captions):
        part = slice(SEGMENT_FRAMES * index, SEGMENT_FRAMES * (index + 1))
        error = (truth[part] - made[part]).square().mean()
        logging.info("clip %d, PSNR %.1f dB: %s", index + 1, float(-10.0 * torch.log10(error)), caption)


if __name__ == "__main__":
    main()
