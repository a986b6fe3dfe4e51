"""Sample videos of several clips while training, made by the very loop that the nodes use: drift is seen early.

Only the sampler is this file's own: Euler steps on the backbone that is being trained, its LoRA on. For a Wan 2.2 expert the
other expert, if its file is given, takes over at the boundary; it is loaded for the video and let go after it.
Source: SVI_SPEC A1 (Euler, shift 5, guidance), A2 (boundary), A3 (2.0 Pro).
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from svi_core.clips.chain import Clip, Predecessor
from svi_core.clips.clip_plan import ClipPlan, ClipRequest
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.conditioning.build_y import ConditioningLatent, concat_padding, known_mask, motion_tail, padded_frames
from svi_core.conditioning.pose_video import WhenPosesEnd, pose_indices
from svi_core.files.safetensors_file import read_header
from svi_core.flow.flow_matching import shifted_sigmas
from svi_core.look.filmstrip import StripRow, draw_filmstrip, pick_frames, spread
from svi_core.out_of_memory import is_out_of_memory
from svi_core.schedule.spec import ClipSpec, Paragraph, Schedule
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import Padding
from svi_core.video.video_file import to_uint8
from training.method.trainer import Trainer
from training.model import encoders
from training.model.backbone import Backbone
from training.model.comfy_runtime import find_model
from training.model.conditions import Conditions
from training.model.encoders import unload_encoders
from training.run.assembly import load_other_expert
from training.run.progress import MakeSample, no_sample
from training.run.run_folder import RunFolder
from training.run.sample_story import Story, _heard_by, _tell

FRAMES_PER_ROW = 5
_log = logging.getLogger(__name__)


class SampleLeft(Exception):
    """A video was left unfinished because the training shall end."""


@dataclass
class SampleMaker:
    """The model side of the loop, see svi_core.clips.chain.ClipMaker; latents are normalised here.

    Attributes:
        trainer: the run.
        story: what is shown.
        vae: ComfyUI's VAE.
        clip_vision: ComfyUI's CLIP vision model, where the backbone reads image features.
        should_stop: whether to stop; abandons the sample video.
        other: the other expert of Wan 2.2, if it takes part.
    """

    trainer: Trainer
    story: Story
    vae: object
    clip_vision: object | None
    should_stop: Callable[[], bool] = lambda: False
    other: Backbone | None = None

    def determinants(self, request: ClipRequest) -> object:
        """Return what determines the clip within one sample video."""
        return (self.trainer.step, request.index, request.seed, request.spec.prompt)

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Return nothing: how long samples take is not planned with."""
        return {}

    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        """Yield the clip's frames in chunks [t, H, W, 3] in [0, 1]."""
        for chunk in encoders.decode(self.vae, latent[0]):
            self._leave_if_wished()
            yield chunk

    @torch.no_grad()
    def sample(self, request: ClipRequest, previous: Predecessor | None) -> Tensor:
        """Return the latent [1, 16, F, h, w] of a clip, after Euler steps from the noise of its seed."""
        settings = self.trainer.config.samples
        y, vision = self._condition(request, previous)
        text, followed = self.story.texts[request.spec.prompt], self._followed(request)
        latent = torch.randn(y.latent.shape, generator=torch.Generator().manual_seed(request.seed))
        sigmas = shifted_sigmas(settings.steps)
        for sigma, following in zip(sigmas, sigmas[1:], strict=False):
            self._leave_if_wished()
            backbone = self._expert(float(sigma))
            velocity = self._velocity(backbone, latent, sigma, Conditions(y.latent, y.mask, text[None], vision, **followed))
            if settings.cfg != 1.0:
                without = self._velocity(
                    backbone, latent, sigma, Conditions(y.latent, y.mask, self.story.negative[None], vision, **followed)
                )
                velocity = without + settings.cfg * (velocity - without)
            latent = latent + (following - sigma) * velocity
        return latent

    def _followed(self, request: ClipRequest) -> dict[str, Tensor | None]:
        """Return what the clip follows besides text and image, as `Conditions` has it; guidance keeps it in both passes."""
        if self.story.heard is not None:
            heard = _heard_by(self.story.heard, request.start_frame, request.layout.num_frames)
            return {"sound_tokens": self.trainer.backbone.speech.tokens([heard])}
        poses = self.story.poses
        if poses is None:
            return {}
        shown = pose_indices(request.start_frame, request.layout.num_frames, len(poses), WhenPosesEnd.LOOP)
        return {"pose_tokens": self.trainer.poses.tokens([poses[shown]])}

    def _leave_if_wished(self) -> None:
        if self.should_stop():
            raise SampleLeft

    def _expert(self, sigma: float) -> Backbone:
        is_high = sigma >= self.trainer.config.samples.boundary
        trained_for = self.trainer.config.model.expert
        takes_over = self.other is not None and trained_for != ("high" if is_high else "low")
        return self.other if takes_over else self.trainer.backbone

    @staticmethod
    def _velocity(backbone: Backbone, latent: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        return backbone.velocity(latent, sigma[None], conditions).cpu()

    def _condition(self, request: ClipRequest, previous: Predecessor | None) -> tuple[ConditioningLatent, Tensor | None]:
        """Return the clip's conditioning latent and CLIP vision feature [1, 257, 1280], laid out as in generation."""
        layout = request.layout
        if layout.in_latent_space:
            motion = None if previous is None else motion_tail(previous.latent, layout.num_motion_frames)
            return concat_padding(self.story.anchor, motion, torch.zeros(1, 16, 1, 1, 1), layout.num_slots), None
        known = self.story.reference if previous is None else previous.tail(layout.num_motion_frames)
        padding = self.story.reference if layout.padding is Padding.ANCHOR_FRAMES else None
        frames = padded_frames(known, padding, layout.num_frames)
        latent = encoders.encode_video(self.vae, frames, self.trainer.config.data.vae_tile)[None]
        vision = encoders.encode_vision(self.clip_vision, known[0])[None] if self.clip_vision is not None else None
        return ConditioningLatent(latent, known_mask(latent)), vision


def make_sampler(trainer: Trainer, run: RunFolder) -> MakeSample:
    """Return what makes the sample video of the present step and returns its path.

    Texts and the first picture are encoded now, once; only the first process does so.

    Raises:
        ValueError: a model file or the picture is missing or broken: known now, not when the first video is due.
    """
    if not trainer.config.samples.every or not trainer.group.is_first:
        return no_sample
    config = trainer.config
    if config.samples.other_expert:
        read_header(find_model("diffusion_models", config.samples.other_expert, "samples.other_expert"))
    elif config.model.expert != "single":
        _log.warning(
            "SVI: sample videos are made by the %s-noise expert alone, which it cannot do well: set samples.other_expert.",
            config.model.expert,
        )
    vae = encoders.load_vae(find_model("vae", config.model.vae, "model.vae"))
    clip_vision = None
    if trainer.backbone.needs_clip_vision:
        clip_vision = encoders.load_clip_vision(find_model("clip_vision", config.model.clip_vision, "model.clip_vision"))
    story = _tell(config, next(iter(trainer.data.validation()), None) or trainer.data.example(config.seed, 0, 0), vae)
    return lambda should_stop: _sample_or_skip(SampleMaker(trainer, story, vae, clip_vision, should_stop), run)


def _sample_or_skip(maker: SampleMaker, run: RunFolder) -> Path | None:
    """Make a video, or none where that goes wrong or the training shall end: the training matters more."""
    try:
        return make_sample(maker, run)
    except SampleLeft:
        _log.info("SVI: the sample video of step %d is left, since the training ends", maker.trainer.step)
    except Exception as error:
        if is_out_of_memory(error):
            _log.warning("SVI: memory ran out while a sample video was made; training goes on without it (%s)", error)
        else:
            _log.warning(
                "SVI: the sample video of step %d failed; training goes on without it", maker.trainer.step, exc_info=True
            )
        unload_encoders()
    return None


def make_sample(maker: SampleMaker, run: RunFolder) -> Path:
    """Make one video and its filmstrip below `run`/samples and return the video's path."""
    config = maker.trainer.config
    folder = run.path / "samples"
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    final = folder / f"step_{maker.trainer.step:08d}.mp4"
    schedule = Schedule(tuple(Paragraph(ClipSpec(prompt)) for prompt in maker.story.prompts))
    plan = ClipPlan(config.samples.num_clips, schedule, config.data.svi_layout, config.samples.seed)
    rows: list[StripRow] = []
    with RunStore(work) as store, _other_expert(maker):
        path, _ = make_video(plan, maker, GrowingVideo(store), on_clip=lambda clip: rows.append(_row(clip)))
        path.replace(final)
    Image.fromarray(draw_filmstrip(rows)).save(final.with_suffix(".png"))
    shutil.rmtree(work, ignore_errors=True)
    return final


@contextmanager
def _other_expert(maker: SampleMaker) -> Iterator[None]:
    """Load the other expert for the length of a video, where its file is given."""
    if maker.trainer.config.samples.other_expert:
        maker.other = load_other_expert(maker.trainer.config)
    try:
        yield
    finally:
        maker.other = None
        unload_encoders()


def _row(clip: Clip) -> StripRow:
    """Return the filmstrip's row of a clip."""
    wanted = spread(clip.request.layout.num_frames, FRAMES_PER_ROW)
    frames = (frame for chunk in clip.frames() for frame in to_uint8(chunk))
    picked = pick_frames(frames, wanted)
    title = f"clip {clip.request.index + 1}: {clip.request.spec.prompt}"
    return StripRow(tuple(picked[index] for index in wanted), title, f"seed {clip.request.seed}")
