"""The examples that the trainer learns from, as ``python -m training.cache`` encoded them.

The order of examples is a pure function of (seed, step, slot).
Source: docs/METHOD.md, 2.1 (mask), 3.1 and 3.3 (layouts), 9.3 and 9.9 (training data), 9.11 (the released loader's mistakes).
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from svi_core.conditioning.build_y import fill_slots
from svi_core.files.fingerprint import fingerprint
from svi_core.geometry import num_latent_slots
from training.data.first_frame import choose_draw
from training.data.index import IndexedExample, read_index
from training.data.order import ExampleOrder
from training.data.poses import unpacked_poses
from training.data.store import TEXTS, WINDOWS, CacheFolder
from training.settings.data import DataConfig


@dataclass(frozen=True)
class TrainingExample:
    """One clip and its conditions. F latent slots of h x w, see svi_core.geometry.

    Attributes:
        name: the clip's file with window and variant, for messages.
        latent: [16, F, h, w] fp32, normalised: the clip to generate.
        y_latent: [16, F, h, w] fp32, normalised: the conditioning latent.
        mask: [1, F, h, w] fp32, 1 = known; only slot 0 is.
        error_slots: slots of `y_latent` that may get image errors: all in a pixel-space layout (the injection uses the first
            few), the motion slots in 2.0 Pro, whose anchor stays clean; none in a first clip of 2.0 Pro.
        text: [L, D] fp32, the text embedding, padded with zeros as ComfyUI pads it.
        clip_vision: [257, 1280] fp32, penultimate CLIP vision tokens of the first known frame; None without CLIP vision.
        extras: further conditions: "pose" [T, H, W, 3] uint8, a pose for each frame of `latent`; "sound" [T + 4, layers,
            channels] fp32, features of the speech, with two more frames on either side.
        caption: the text that `text` embeds.
    """

    name: str
    latent: Tensor
    y_latent: Tensor
    mask: Tensor
    error_slots: range
    text: Tensor
    clip_vision: Tensor | None
    extras: Mapping[str, Tensor]
    caption: str = ""


class CachedDataset:
    """The examples that `python -m training.cache` encoded with the same data settings.

    Attributes:
        config: the data settings.
        models: hash of each model file that encoded the examples: "vae", "text_encoder", "clip_vision".
        content_hash: hash of latents, embedded captions and the choice of held-out clips, by which a resumed run recognises its
            data. It covers excluded examples too, because a run may resume without them.
        sizes: (width, height) of the buckets, the largest first.
    """

    def __init__(self, folder: Path, config: DataConfig, slots_per_step: int = 1):
        """Read the index of the cache `folder`. Tensors are read one example at a time.

        Args:
            folder: the cache folder, usually `config.cache_folder`.
            config: the data settings of the cache.
            slots_per_step: examples of one optimizer step over all processes.

        Raises:
            ValueError: the folder holds no cache of `config` (the message says what differs), or too few clips.
        """
        self.config = config
        self._cache = CacheFolder(Path(folder))
        index = read_index(self._cache, config.cached_settings())
        self.models = index.models
        held_out = held_out_clips({example.clip for example in index.examples}, config.held_out)
        self.content_hash = fingerprint(
            [[item.key, item.text_key, list(item.error_slots), item.clip in held_out, *item.draws] for item in index.examples]
        )
        used = _without(index.examples, config.exclude)
        self._held_out = [example for example in used if example.clip in held_out]
        learned = [example for example in used if example.clip not in held_out]
        if not learned:
            raise ValueError(f"data.exclude leaves no examples to train on: {', '.join(config.exclude)}. Exclude fewer.")
        self.sizes = tuple(size for size in config.sizes if any((item.width, item.height) == size for item in learned))
        self._buckets = [[item for item in learned if (item.width, item.height) == size] for size in self.sizes]
        self._order = ExampleOrder([len(bucket) for bucket in self._buckets], slots_per_step)

    def __len__(self) -> int:
        """Number of training examples, without those of held-out clips."""
        return sum(map(len, self._buckets))

    @property
    def latent_shapes(self) -> set[tuple[int, ...]]:
        """The shapes [16, F, h, w] of the training examples."""
        num_slots = num_latent_slots(self.config.num_frames)
        return {(16, num_slots, height // 8, width // 8) for width, height in self.sizes}

    @property
    def num_held_out(self) -> int:
        """Number of examples of held-out clips."""
        return len(self._held_out)

    def example(self, seed: int, step: int, rank_slot: int = 0) -> TrainingExample:
        """Return a training example of `step`, a pure function of the arguments.

        Args:
            seed: seed of the order.
            step: optimizer step, from 0; step 0 has the largest size.
            rank_slot: number of the example in the step over all processes, below `slots_per_step`. All have one size.

        Raises:
            ValueError: a file of the cache is missing or damaged; the message names it.
        """
        bucket, number = self._order.place(seed, step, rank_slot)
        item = self._buckets[bucket][number]
        return self._load(item, choose_draw(item.draws, self.config, seed, step, rank_slot))

    def validation(self) -> Iterator[TrainingExample]:
        """Yield the examples of the held-out clips, always in the same order, without augmentation.

        Raises:
            ValueError: see :meth:`example`.
        """
        yield from map(self._load, self._held_out)

    def _load(self, item: IndexedExample, draw: str | None = None) -> TrainingExample:
        """Return an example, with the conditioning latent of the entry `draw` if it is given."""
        stored = self._cache.read(WINDOWS, item.key)
        if draw is not None:
            stored |= self._cache.read(WINDOWS, draw)
        latent, known, vision = stored["latent"].float(), stored["known"].float(), stored.get("clip_vision")
        y = fill_slots(known[None], known.new_zeros(1, known.shape[0], 1, 1, 1), latent.shape[1])  # 2.0 Pro's zeros come back
        return TrainingExample(
            name=item.name,
            latent=latent,
            y_latent=y.latent[0],
            mask=y.mask[0],
            error_slots=range(*item.error_slots),
            text=self._text(item.text_key),
            clip_vision=None if vision is None else vision.float(),
            extras=_extras(stored),
            caption=item.caption,
        )

    def _text(self, key: str) -> Tensor:
        """Return an embedding, padded with the zeros that the cache omits."""
        stored = self._cache.read(TEXTS, key)
        tokens = stored["tokens"].float()
        return torch.cat([tokens, tokens.new_zeros(int(stored["length"]) - len(tokens), tokens.shape[1])])


def _extras(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the poses and the sound of an example, for `TrainingExample.extras`."""
    poses = {"pose": unpacked_poses(stored)} if "pose" in stored else {}
    return {**poses, **({"sound": stored["heard"].float()} if "heard" in stored else {})}


def held_out_clips(clips: set[str], held_out: float) -> set[str]:
    """Return which of `clips` (hashes of their bytes) are held out for validation, a pure function of the clips.

    Args:
        clips: hashes of all clips.
        held_out: a share below 1 (rounded, one clip at least if there are two), or a number of clips.

    Raises:
        ValueError: no clip would be left to learn from.
    """
    count = int(held_out) if held_out >= 1 else round(held_out * len(clips))
    if 0 < held_out < 1:
        count = min(max(count, 1), len(clips) - 1)
    if count >= len(clips):
        raise ValueError(
            f"data.held_out keeps {count} of {len(clips)} clips for validation, which leaves none to train on: lower it."
        )
    return set(sorted(clips, key=lambda clip: fingerprint("held out", clip))[:count])


def _without(examples: Sequence[IndexedExample], excluded: Sequence[str]) -> list[IndexedExample]:
    """Return `examples` without those that `excluded` names.

    Raises:
        ValueError: no example has one of the names.
    """
    names = {name for example in examples for name in (example.name, _clip_name(example))}
    for name in excluded:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ValueError(
                f"data.exclude names {name!r}, which is not a clip in the cache{near and f': did you mean {near[0]!r}?'}"
            )
    return [example for example in examples if not {example.name, _clip_name(example)} & set(excluded)]


def _clip_name(example: IndexedExample) -> str:
    return example.name.rpartition(" window ")[0]
