"""Encode the examples that a cache folder does not hold yet."""

import shutil
from concurrent.futures import Future

import torch
from tqdm import tqdm

from training.data.clips import UsableClip, find_usable_clips
from training.data.encoding import (
    Encoders,
    WindowFiles,
    draw_bytes,
    encode_draw,
    encode_window,
    encoded_bytes,
    one_ahead,
    read_window,
    stored_dtype,
)
from training.data.first_frame import augmentation_of, draw_keys
from training.data.index import CacheIndex, IndexedExample, indexed_keys, write_index
from training.data.report import CacheReport
from training.data.store import REPORT, TEXTS, WINDOWS, CacheFolder
from training.data.tables import Rejected
from training.data.windows import WindowPlan, error_slots
from training.settings.data import DataConfig

_TEXT_BYTES = 2_000_000  # of an embedding without its zeros, at most


def build_cache(config: DataConfig, encoders: Encoders, prune: bool = False, progress: bool = False) -> CacheReport:
    """Encode the dataset that `config` describes into its cache folder; return what was used, skipped and repaired.

    Args:
        config: the data settings.
        encoders: the models.
        prune: remove entries that no configuration cached in the folder uses.
        progress: show progress bars on standard error.

    Raises:
        ValueError: no clip is usable, the disk is too small, the folder is in use, or (`config.strict`) a clip is unusable.
        OSError: the disk is full or cannot be written; finished examples stay.
    """
    with CacheFolder(config.cache_folder) as cache:
        build = _CacheBuild(cache, config, encoders, progress)
        try:
            build.run(prune)
        except ValueError:
            cache.write_json(REPORT, build.report.as_json())  # the message points to it
            raise
        cache.write_json(REPORT, build.report.as_json())
    return build.report


class _CacheBuild:
    """One pass over a locked cache folder."""

    def __init__(self, cache: CacheFolder, config: DataConfig, encoders: Encoders, progress: bool):
        self.cache = cache
        self.config = config
        self.encoders = encoders
        self.report = CacheReport()
        self._progress = progress

    def run(self, prune: bool) -> None:
        """Encode the missing examples. The index is written last, so that it lists finished examples only."""
        models = dict(self.encoders.fingerprints)
        clips = find_usable_clips(self.cache, self.config, models, self.report, self._progress)
        self._require_usable(clips)
        self._require_space(clips)
        self._encode_texts(clips)
        examples = self._encode_windows(clips)
        self._require_usable(examples)
        write_index(self.cache, CacheIndex(self.config.cached_settings(), models, tuple(examples)))
        self._sweep(prune)

    def _require_usable(self, found: list) -> None:
        """Refuse a dataset without examples, or with `strict` one with any rejected clip."""
        rejected = self.report.rejected
        shown = [*rejected, *self.report.ignored][:3]
        reasons = "; ".join(f"{item.where}: {item.reason}" for item in shown) or "no clip was found"
        where = f"{reasons}. All reasons: {self.cache.folder / REPORT}"
        if not found:
            raise ValueError(f"{self.config.folder} gives no examples: {where}")
        if self.config.strict and rejected:
            raise ValueError(f"{len(rejected)} clips or rows cannot be used, and data.strict is on: {where}")

    def _require_space(self, clips: list[UsableClip]) -> None:
        """Refuse to start where the disk is too small."""
        windows, texts = self.cache.entries(WINDOWS), self.cache.entries(TEXTS)
        missing = [plan for clip in clips for key, plan in clip.plans.items() if key not in windows]
        needed = sum(encoded_bytes(plan, self.config) for plan in missing)
        needed += sum(
            draw_bytes(plan, self.config) * len(set(self._draws(key, plan)) - windows.keys())
            for clip in clips
            for key, plan in clip.plans.items()
        )
        needed += _TEXT_BYTES * len({clip.text_key for clip in clips} - texts.keys())
        free = shutil.disk_usage(self.cache.folder).free
        if needed > free:
            raise ValueError(
                f"{self.cache.folder} has {free / 1e9:.1f} GB free, {len(missing)} more examples need {needed / 1e9:.1f} GB: "
                'free space, set data.cache to another disk, data.storage = "bfloat16" (half the size), or fewer data.variants.'
            )

    def _is_intact(self, kind: str, key: str, name: str) -> bool:
        """Whether an entry exists and is intact; a damaged one goes into the report."""
        if not self.cache.path(kind, key).is_file():
            return False
        try:
            self.cache.read(kind, key)
        except ValueError as error:
            self.report.repaired.append(Rejected(name, str(error)))
            return False
        return True

    def _encode_texts(self, clips: list[UsableClip]) -> None:
        """Store the embedding of every caption that the cache lacks, without the zeros at its end."""
        captions = {clip.text_key: clip.source.caption for clip in clips}
        for key, caption in tqdm(captions.items(), "captions", unit="text", disable=not self._progress):
            if self._is_intact(TEXTS, key, f"caption {caption[:60]!r}"):
                continue
            embedding = self.encoders.text(caption)
            if not bool(embedding.isfinite().all()):
                raise ValueError(
                    f"the text encoder returned NaN or infinity for {caption[:60]!r}: use another file of the encoder."
                )
            used = int(embedding.abs().sum(dim=1).nonzero().max()) + 1
            tokens = embedding[:used].to(stored_dtype(self.config))
            self.cache.write(TEXTS, key, {"tokens": tokens, "length": torch.tensor(len(embedding))}, caption)
        self.encoders.release_text_encoder()

    def _encode_windows(self, clips: list[UsableClip]) -> list[IndexedExample]:
        """Store every example that the cache lacks; return all examples. One that fails goes into the report."""
        jobs = [(clip, key, plan) for clip in clips for key, plan in clip.plans.items()]
        bar = tqdm(one_ahead(self._files, jobs), "examples", len(jobs), unit="example", disable=not self._progress)
        return [example for job, files in bar if (example := self._example(*job, files))]

    def _draws(self, key: str, plan: WindowPlan) -> tuple[str, ...]:
        return draw_keys(key, plan.later_clip, self.config)

    def _files(self, clip: UsableClip, key: str, plan: WindowPlan) -> tuple[list[str], WindowFiles | None]:
        """Return the keys of an example that the cache lacks, and the files they are encoded from. Runs in a thread."""
        keys = (key, *self._draws(key, plan))
        missing = [wanted for wanted in keys if not self._is_intact(WINDOWS, wanted, _name(clip, plan))]
        return missing, read_window(clip.source, plan, self.config) if missing else None

    def _example(
        self, clip: UsableClip, key: str, plan: WindowPlan, files: Future[tuple[list[str], WindowFiles | None]]
    ) -> IndexedExample | None:
        """Return an example, encoded now if the cache lacks it; None if its clip cannot be read."""
        name = _name(clip, plan)
        try:
            missing, found = files.result()
            for wanted in missing:
                self._encode(wanted, wanted == key, plan, found, name)
        except ValueError as error:
            self.report.rejected.append(Rejected(name, str(error)))
            return None
        self.report.num_encoded += key in missing
        self.report.num_reused += key not in missing
        slots = error_slots(self.config.svi_layout, plan.later_clip)
        return IndexedExample(
            key=key,
            text_key=clip.text_key,
            name=name,
            caption=clip.source.caption,
            clip=clip.content,
            width=plan.crop.width,
            height=plan.crop.height,
            error_slots=(slots.start, slots.stop),
            draws=self._draws(key, plan),
        )

    def _encode(self, key: str, is_example: bool, plan: WindowPlan, found: WindowFiles, name: str) -> None:
        """Store an example, or a draw of its first frame, under `key`.

        Raises:
            ValueError: a tensor is not finite.
        """
        if is_example:
            self.cache.write(WINDOWS, key, encode_window(plan, self.config, found, self.encoders), name)
            return
        change = augmentation_of(key, self.config.first_frame_strength)
        encoded = encode_draw(plan, self.config, found, self.encoders, change)
        self.cache.write(WINDOWS, key, encoded, f"{name}, its first frame augmented")
        self.report.num_augmented += 1

    def _sweep(self, prune: bool) -> None:
        """Count the entries that no index lists, or remove them."""
        used = indexed_keys(self.cache)
        for kind in (WINDOWS, TEXTS):
            for key, size in self.cache.entries(kind).items():
                if key in used:
                    continue
                if prune:
                    self.cache.remove(kind, key)
                else:
                    self.report.num_unused += 1
                    self.report.unused_bytes += size


def _name(clip: UsableClip, plan: WindowPlan) -> str:
    return f"{clip.source.name} window {plan.window} variant {plan.variant}"
