"""Chain the model of a run on held-out clips, for a diagnosis. Conditioning and hand-over are those of the sample videos.

Clip 1 is conditioned as the held-out example is, so that its truth is known. Later clips continue from the clip before, as in
generation: pixel-space layouts through frames and VAE, 2.0 Pro through latents.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from svi_core.clips.clip_plan import ClipPlan, ClipRequest
from svi_core.conditioning.build_y import ConditioningLatent, require_finite
from svi_core.geometry import num_latent_slots, num_motion_latents
from svi_core.schedule.spec import ClipSpec, Paragraph, Schedule
from svi_core.systems.layouts import Layout
from training.data.dataset import TrainingExample
from training.method.trainer import ExampleSource, Trainer
from training.model.encoder_files import find_encoder
from training.run.sample_story import Story, negative_prompt, scene_story
from training.run.samples import SampleMaker, load_sampling_models, other_expert, require_sampling_files
from training.settings.sections import TrainingConfig

SEED_OF_SCENE = 1_000_003  # between scenes: their clips take every 42nd seed, as the authors' do


@dataclass
class ChainClip:
    """One clip of a chain: what the next one continues from, see `svi_core.clips.chain.Predecessor`.

    Attributes:
        latent: [1, 16, F, h, w], normalised.
        decode: latent -> chunks of frames [t, H, W, 3] in [0, 1].
        key: not used: nothing is stored.
    """

    latent: Tensor
    decode: Callable[[Tensor], Iterator[Tensor]]
    key: str = ""

    @cached_property
    def frames(self) -> Tensor:
        """The frames [T, H, W, 3] in [0, 1]. 2.0 Pro continues without them."""
        return torch.cat(list(self.decode(self.latent))).clamp(0, 1)

    def tail(self, num_frames: int) -> Tensor:
        """Return the last `num_frames` frames."""
        return self.frames[-num_frames:]


@dataclass
class HeldOutScene:
    """A chain that begins with a held-out clip.

    Attributes:
        example: the clip.
        maker: the model, with this scene's text, anchor, poses and sound.
        plan: layout and seeds of the chain.
    """

    example: TrainingExample
    maker: SampleMaker
    plan: ClipPlan

    @property
    def truth(self) -> ChainClip:
        """The held-out clip itself, encoded and decoded."""
        return ChainClip(self.example.latent[None], self.maker.decode)

    @cached_property
    def _after_truth(self) -> tuple[ConditioningLatent, Tensor | None]:
        """What the clip after the truth is conditioned on. It is kept, and the truth's frames, 400 MB of them, are not."""
        return self._condition(1, self.truth)

    def clips(self) -> Iterator[ChainClip]:
        """Yield the clips of the chain."""
        y = ConditioningLatent(self.example.y_latent[None], self.example.mask[None])
        vision = None if self.example.clip_vision is None else self.example.clip_vision[None]
        clip = self._made(self._request(0), y, vision)
        yield clip
        for index in range(1, self.plan.num_clips):
            clip = self._made(self._request(index), *self._condition(index, clip))
            yield clip

    def known_after(self, clip: ChainClip, index: int = 1) -> Tensor:
        """Return the slots [16, n, h, w] that clip `index` (from 0) would know after `clip`."""
        return self._condition(index, clip)[0].latent[0, :, known_slots(self.plan.layout)]

    def handed_over(self, known: Tensor) -> Tensor:
        """Return the slots [16, n, h, w] that the clip after the truth hands over if it knows `known` instead."""
        y, vision = self._after_truth
        latent = y.latent.clone()
        latent[0, :, known_slots(self.plan.layout)] = known
        return self.known_after(self._made(self._request(1), ConditioningLatent(latent, y.mask), vision), 2)

    def _request(self, index: int) -> ClipRequest:
        request = self.plan.request(0)
        for number in range(1, index + 1):
            request = self.plan.request(number, request)
        return request

    def _condition(self, index: int, previous: ChainClip) -> tuple[ConditioningLatent, Tensor | None]:
        return self.maker.condition(self._request(index), previous)

    def _made(self, request: ClipRequest, y: ConditioningLatent, vision: Tensor | None) -> ChainClip:
        latent = self.maker.denoise(request, y, vision)
        require_finite(latent, f"clip {request.index + 1} of a chain from {self.example.name}")
        return ChainClip(latent, self.maker.decode)


def known_slots(layout: Layout) -> slice:
    """Return the slots of a later clip's conditioning latent that hold what the clip before hands over."""
    if layout.in_latent_space:
        return slice(1, 1 + num_motion_latents(layout.num_motion_frames))
    return slice(0, num_latent_slots(layout.num_motion_frames))


def examples_to_chain(config: TrainingConfig, data: ExampleSource) -> list[TrainingExample]:
    """Return the held-out examples to chain from, after checking all that chains need. No model loads.

    The examples are all of one size that is trained: of as many clips as possible, then more of the same clips.

    Raises:
        ValueError: fewer than two such examples are held out, the other expert is not named, or a file is missing or broken.
    """
    if config.model.expert != "single" and not config.samples.other_expert:
        raise ValueError(
            "samples.other_expert is empty, but clips of Wan 2.2 take both experts, and chains of the "
            f"{config.model.expert}-noise one alone say nothing: set it to the other one's file."
        )
    require_sampling_files(config)
    if config.samples.cfg != 1.0:
        find_encoder(config.model, "text_encoder")
    return _chosen(data, config.diagnosis.num_scenes)


def _chosen(data: ExampleSource, wanted: int) -> list[TrainingExample]:
    chosen: dict[str, TrainingExample] = {}
    spare: list[TrainingExample] = []
    shapes = data.latent_shapes
    for example in data.validation():
        if tuple(example.latent.shape) not in shapes:
            continue
        shapes = {tuple(example.latent.shape)}
        if clip_name(example) not in chosen:
            chosen[clip_name(example)] = example
        elif len(spare) < wanted:
            spare.append(example)
        if len(chosen) == wanted:
            break
    examples = [*chosen.values(), *spare][:wanted]
    if len(examples) < 2:
        raise ValueError(
            f"a diagnosis chains from held-out clips, but {len(examples)} examples are held out: set data.held_out=8, for "
            "example. A base was trained on none of the clips, so any may be held out for its diagnosis."
        )
    return examples


def clip_name(example: TrainingExample) -> str:
    """Return the name of the clip that an example was cut from."""
    return example.name.partition(" window ")[0]


class Chains:
    """Makes chains of the model of a run, from held-out clips, whenever it is asked."""

    def __init__(self, trainer: Trainer):
        """Load VAE, CLIP vision and the negative prompt once.

        Raises:
            ValueError: see :func:`examples_to_chain`.
        """
        config = trainer.config
        self.examples = examples_to_chain(config, trainer.data)
        self._trainer = trainer
        self._vae, self._clip_vision = load_sampling_models(trainer)
        self._negative = negative_prompt(config) if config.samples.cfg != 1.0 else None

    @contextmanager
    def scenes(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[list[HeldOutScene]]:
        """Give the scenes; the other expert of Wan 2.2 is loaded as long as the context lasts."""
        config = self._trainer.config
        sampling = replace(config.samples, steps=config.diagnosis.steps)
        trainer = replace(self._trainer, config=replace(config, samples=sampling))
        layout = replace(config.data.svi_layout, cuts_to_8_bits=config.diagnosis.cut_to_8_bits)
        stories = [scene_story(example, layout, self._vae, self._negative) for example in self.examples]
        base = SampleMaker(trainer, stories[0], self._vae, self._clip_vision, should_stop)
        with other_expert(base):
            yield [
                HeldOutScene(example, replace(base, story=story), self._plan(number, story, layout))
                for number, (example, story) in enumerate(zip(self.examples, stories, strict=True))
            ]

    def _plan(self, number: int, story: Story, layout: Layout) -> ClipPlan:
        settings = self._trainer.config.diagnosis
        schedule = Schedule((Paragraph(ClipSpec(story.prompts[0])),))
        return ClipPlan(settings.num_clips, schedule, layout, settings.seed + SEED_OF_SCENE * number)
