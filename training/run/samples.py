"""Sample videos of several clips during training, made by the clip loop of the nodes, so that drift shows early.

Only the sampler is this file's own: Euler steps on the backbone that is being trained, with its LoRA. For a Wan 2.2 expert, the
other expert takes over at the boundary if its file is given; it is loaded for one video at a time.
Source: docs/METHOD.md, 4.1 and 4.2 (Euler, shift 5, guidance), 4.3 (boundary) and 3.3 (2.0 Pro).
"""

import itertools
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from svi_core.clips.chain import Clip, Predecessor, motion_of
from svi_core.clips.clip_plan import ClipPlan, ClipRequest
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.conditioning.build_y import ConditioningLatent, KnownPart, build_y
from svi_core.conditioning.pose_video import WhenPosesEnd, pose_indices
from svi_core.files.safetensors_file import read_header
from svi_core.flow.flow_matching import shifted_sigmas
from svi_core.geometry import LATENT_CHANNELS
from svi_core.look.filmstrip import StripRow, draw_filmstrip, pick_frames, spread
from svi_core.out_of_memory import is_out_of_memory
from svi_core.schedule.spec import ClipSpec, Paragraph, Schedule
from svi_core.store.run_store import RunStore
from svi_core.video.video_file import to_uint8
from training.method.trainer import Trainer
from training.model import encoders
from training.model.backbone import Backbone
from training.model.comfy_runtime import find_model
from training.model.conditions import Conditions
from training.model.encoder_files import find_encoder
from training.run.assembly import load_other_expert
from training.run.progress import MakeSample, no_sample
from training.run.run_folder import RunFolder
from training.run.sample_story import Story, looped_speech, make_story
from training.settings.sections import TrainingConfig

FRAMES_PER_ROW = 5
Made = TypeVar("Made")
_log = logging.getLogger(__name__)


class SampleAbandoned(Exception):
    """A sample video was abandoned because the run is told to stop."""


@dataclass
class SampleMaker:
    """The model side of the clip loop, see svi_core.clips.chain.ClipMaker. Latents are normalised here.

    Attributes:
        trainer: the run's parts.
        story: what the video shows.
        vae: ComfyUI's VAE.
        clip_vision: ComfyUI's CLIP vision model, where the backbone reads image features.
        should_stop: whether to stop and abandon the video.
        other: the other expert of Wan 2.2, while it is loaded.
    """

    trainer: Trainer
    story: Story
    vae: object
    clip_vision: object | None
    should_stop: Callable[[], bool] = lambda: False
    other: Backbone | None = None

    def begin(self, request: ClipRequest) -> None:
        """Do nothing: the trainer tells its own progress."""

    def determinants(self, request: ClipRequest) -> object:
        """Return everything that determines the clip within one sample video."""
        return (self.trainer.step, request.index, request.seed, request.spec.prompt)

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Return nothing: no estimate needs the time that samples take."""
        return {}

    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        """Yield the clip's frames in chunks [t, H, W, 3] in [0, 1]."""
        for chunk in encoders.decode(self.vae, latent[0]):
            self._abandon_if_stopped()
            yield chunk

    @torch.no_grad()
    def sample(self, request: ClipRequest, previous: Predecessor | None) -> Tensor:
        """Return the latent [1, 16, F, h, w] of a clip, after Euler steps from the noise of its seed."""
        return self.denoise(request, *self.condition(request, previous))

    @torch.no_grad()
    def denoise(self, request: ClipRequest, y: ConditioningLatent, vision: Tensor | None) -> Tensor:
        """Return the latent of a clip that is conditioned on `y` and the CLIP vision feature `vision`."""
        settings = self.trainer.config.samples
        text, extras = self.story.texts[request.spec.prompt][None], self._extras(request)
        latent = torch.randn(y.latent.shape, generator=torch.Generator().manual_seed(request.seed))
        sigmas = shifted_sigmas(settings.steps)
        for sigma, following in itertools.pairwise(sigmas):
            self._abandon_if_stopped()
            backbone = self._expert(float(sigma))
            conditions = Conditions(y.latent, y.mask, text, vision, **extras)
            velocity = backbone.velocity(latent, sigma[None], conditions).cpu()
            if self.story.negative is not None and settings.cfg != 1.0:
                conditions = replace(conditions, text=self.story.negative[None])
                negative = backbone.velocity(latent, sigma[None], conditions).cpu()
                velocity = negative + settings.cfg * (velocity - negative)
            latent = latent + (following - sigma) * velocity
        return latent

    def _extras(self, request: ClipRequest) -> dict[str, Tensor | None]:
        """Return the pose or sound tokens for `Conditions`; guidance keeps them in both passes."""
        if self.story.heard is not None:
            heard = looped_speech(self.story.heard, request.start_frame, request.layout.num_frames)
            return {"sound_tokens": self.trainer.backbone.speech.tokens([heard])}
        poses = self.story.poses
        if poses is None:
            return {}
        shown = pose_indices(request.start_frame, request.layout.num_frames, len(poses), WhenPosesEnd.LOOP)
        return {"pose_tokens": self.trainer.poses.tokens([poses[shown]])}

    def _abandon_if_stopped(self) -> None:
        if self.should_stop():
            raise SampleAbandoned

    def _expert(self, sigma: float) -> Backbone:
        is_high = sigma >= self.trainer.config.samples.boundary
        trained_for = self.trainer.config.model.expert
        takes_over = self.other is not None and trained_for != ("high" if is_high else "low")
        return self.other if takes_over else self.trainer.backbone

    def condition(self, request: ClipRequest, previous: Predecessor | None) -> tuple[ConditioningLatent, Tensor | None]:
        """Return the clip's conditioning latent and CLIP vision feature [1, 257, 1280], as in generation."""
        layout = request.layout
        anchor = KnownPart(self.story.anchor, self.story.reference)
        motion = None if previous is None else motion_of(layout, previous)
        y = build_y(layout.padding, layout.num_frames, anchor, motion, torch.zeros(1, LATENT_CHANNELS, 1, 1, 1), self._encode)
        if self.clip_vision is None or layout.in_latent_space:
            return y, None
        return y, encoders.encode_vision(self.clip_vision, (motion or anchor).frames[0])[None]

    def _encode(self, frames: Tensor) -> Tensor:
        return encoders.encode_video(self.vae, frames, self.trainer.config.data.vae_tile)[None]


def make_sampler(trainer: Trainer, run: RunFolder) -> MakeSample:
    """Return a function that makes the sample video of the current step and returns the video's path.

    The first process encodes texts and reference image here, once; the other processes make no samples.

    Raises:
        ValueError: a model file or the reference image is missing or broken. It is checked here, not at the first video.
    """
    if not trainer.config.samples.every or not trainer.group.is_first:
        return no_sample
    config = trainer.config
    if config.model.expert != "single" and not config.samples.other_expert:
        _log.warning(
            "SVI: the %s-noise expert makes sample videos alone, which look bad: set samples.other_expert.",
            config.model.expert,
        )
    vae, clip_vision = load_sampling_models(trainer)
    story = make_story(config, next(iter(trainer.data.validation()), None) or trainer.data.example(config.seed, 0, 0), vae)

    def sample(should_stop: Callable[[], bool]) -> Path | None:
        maker = SampleMaker(trainer, story, vae, clip_vision, should_stop)
        return made_or_skipped(lambda: make_sample(maker, run), f"the sample video of step {trainer.step}")

    return sample


def require_sampling_files(config: TrainingConfig) -> None:
    """Check before a model loads that there is a VAE, and that the other expert's file can be read if it is named.

    Raises:
        ValueError: a file is missing or broken.
    """
    find_encoder(config.model, "vae")
    if config.samples.other_expert:
        read_header(find_model("diffusion_models", config.samples.other_expert, "samples.other_expert"))


def load_sampling_models(trainer: Trainer) -> tuple[object, object | None]:
    """Return VAE and, where the backbone reads it, CLIP vision; see :func:`require_sampling_files`.

    Raises:
        ValueError: a file is missing or broken.
    """
    config, clip_vision = trainer.config, None
    require_sampling_files(config)
    vae = encoders.load_vae(find_encoder(config.model, "vae"))
    if trainer.backbone.needs_clip_vision:
        clip_vision = encoders.load_clip_vision(find_encoder(config.model, "clip_vision"))
    return vae, clip_vision


def made_or_skipped(make: Callable[[], Made], what: str) -> Made | None:
    """Return what `make` returns. If it fails or the run should stop, return None: training goes on without it."""
    try:
        return make()
    except SampleAbandoned:
        _log.info("SVI: %s is abandoned, because the run stops", what)
    except Exception as error:
        if is_out_of_memory(error):
            _log.warning("SVI: memory ran out during %s; training goes on without it (%s)", what, error)
        else:
            _log.warning("SVI: %s failed; training goes on without it", what, exc_info=True)
        encoders.unload_encoders()
    return None


def make_sample(maker: SampleMaker, run: RunFolder) -> Path:
    """Make one video and its filmstrip in `run`/samples; return the video's path."""
    config = maker.trainer.config
    folder = run.path / "samples"
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    final = folder / f"step_{maker.trainer.step:08d}.mp4"
    schedule = Schedule(tuple(Paragraph(ClipSpec(prompt)) for prompt in maker.story.prompts))
    plan = ClipPlan(config.samples.num_clips, schedule, config.data.svi_layout, config.samples.seed)
    rows: list[StripRow] = []
    with RunStore(work) as store, other_expert(maker):
        path, _ = make_video(plan, maker, GrowingVideo(store), on_clip=lambda clip: rows.append(_row(clip)))
        path.replace(final)
    Image.fromarray(draw_filmstrip(rows)).save(final.with_suffix(".png"))
    shutil.rmtree(work, ignore_errors=True)
    return final


@contextmanager
def other_expert(maker: SampleMaker) -> Iterator[None]:
    """Load the other expert for as long as the context lasts, if its file is given."""
    if maker.trainer.config.samples.other_expert:
        maker.other = load_other_expert(maker.trainer.config)
    try:
        yield
    finally:
        maker.other = None
        encoders.unload_encoders()


def _row(clip: Clip) -> StripRow:
    """Return a clip's row of the filmstrip."""
    wanted = spread(clip.request.layout.num_frames, FRAMES_PER_ROW)
    frames = (frame for chunk in clip.decode(clip.latent) for frame in to_uint8(chunk))
    picked = pick_frames(frames, wanted)
    title = f"clip {clip.request.index + 1}: {clip.request.spec.prompt}"
    return StripRow(tuple(picked[index] for index in wanted), title, f"seed {clip.request.seed}")
