"""Encode a dataset once, so that training only reads latents.

    python -m training.cache --config training/configs/film.toml data.folder=/data/clips [section.key=value ...] [--prune]

Looks through every clip, draws windows, anchors and crops (training.data.windows says which), and encodes them with ComfyUI's
VAE (fp32), text encoder and CLIP vision. What cannot be used is skipped and named in the table at the end and in
`report.json`. Kill it at any moment and run it again: what is finished stays, what is damaged is found by its checksum, named,
and made again.
"""

import argparse
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path

import torch
from tqdm import tqdm

from svi_core.files.safetensors_file import read_header
from svi_core.out_of_memory import is_out_of_memory
from svi_core.systems.layouts import Condition

from .data.clips import UsableClip, look_through
from .data.encoding import Encoders, WindowFiles, encode_window, encoded_bytes, one_ahead, read_window, stored_dtype
from .data.index import CacheIndex, IndexedExample, indexed_keys, write_index
from .data.report import CacheReport
from .data.store import REPORT, TEXTS, WINDOWS, CacheFolder
from .data.tables import Rejected
from .data.windows import WindowPlan, error_slots
from .model.comfy_runtime import find_model
from .settings.data import DataConfig
from .settings.reader import load_config
from .settings.sections import ModelConfig

_TEXT_BYTES = 2_000_000  # of an embedding without its zeros, at most


def build_cache(config: DataConfig, encoders: Encoders, prune: bool = False, progress: bool = False) -> CacheReport:
    """Encode what `config` describes into its cache folder and return what was used, skipped and repaired.

    Args:
        config: the data.
        encoders: the models.
        prune: remove entries that no configuration cached in the folder uses.
        progress: show bars with the remaining time on standard error.

    Raises:
        ValueError: nothing usable, too little disk space, the folder is in use, or (`config.strict`) anything unusable.
        OSError: the disk is full or cannot be written; what is finished stays.
    """
    with CacheFolder(config.cache_folder) as cache:
        build = _Build(cache, config, encoders, progress)
        try:
            build.run(prune)
        except ValueError:
            cache.write_json(REPORT, build.report.as_json())  # the message points to it
            raise
        cache.write_json(REPORT, build.report.as_json())
    return build.report


class _Build:
    """One run over a locked cache folder."""

    def __init__(self, cache: CacheFolder, config: DataConfig, encoders: Encoders, progress: bool):
        self.cache = cache
        self.config = config
        self.encoders = encoders
        self.report = CacheReport()
        self._progress = progress

    def run(self, prune: bool) -> None:
        """Encode what is missing; the index comes last, so that it names finished examples only."""
        models = dict(self.encoders.fingerprints)
        clips = look_through(self.cache, self.config, models, self.report, self._progress)
        self._require_usable(clips)
        self._require_space(clips)
        self._encode_texts(clips)
        examples = self._encode_windows(clips)
        self._require_usable(examples)
        write_index(self.cache, CacheIndex(self.config.cached_settings(), models, tuple(examples)))
        self._tidy(prune)

    def _require_usable(self, found: list) -> None:
        """Refuse an empty dataset, and in a strict one anything that was rejected."""
        rejected = self.report.rejected
        reasons = "; ".join(f"{item.where}: {item.reason}" for item in rejected[:3]) or "no clip was found"
        where = f"{reasons}. All reasons: {self.cache.folder / REPORT}"
        if not found:
            raise ValueError(f"{self.config.folder} gives no example: {where}")
        if self.config.strict and rejected:
            raise ValueError(f"{len(rejected)} clips or rows cannot be used, and data.strict is on: {where}")

    def _require_space(self, clips: list[UsableClip]) -> None:
        """Refuse to begin what does not fit on the disk."""
        windows, texts = self.cache.entries(WINDOWS), self.cache.entries(TEXTS)
        missing = [plan for clip in clips for key, plan in clip.plans.items() if key not in windows]
        needed = sum(encoded_bytes(plan, self.config) for plan in missing)
        needed += _TEXT_BYTES * len({clip.text_key for clip in clips} - texts.keys())
        free = shutil.disk_usage(self.cache.folder).free
        if needed > free:
            raise ValueError(
                f"{self.cache.folder} has {free / 1e9:.1f} GB free, {len(missing)} more examples need {needed / 1e9:.1f} GB: "
                'free space, set data.cache to another disk, data.storage = "bfloat16" (half the size), or fewer data.variants.'
            )

    def _is_sound(self, kind: str, key: str, name: str) -> bool:
        """Whether an entry is there and holds what was stored; one that is damaged goes into the report."""
        if not self.cache.path(kind, key).is_file():
            return False
        try:
            self.cache.read(kind, key)
        except ValueError as error:
            self.report.repaired.append(Rejected(name, str(error)))
            return False
        return True

    def _encode_texts(self, clips: list[UsableClip]) -> None:
        """Store the embedding of every caption that is not there yet, without the zeros at its end."""
        captions = {clip.text_key: clip.source.caption for clip in clips}
        for key, caption in tqdm(captions.items(), "captions", unit="text", disable=not self._progress):
            if self._is_sound(TEXTS, key, f"caption {caption[:60]!r}"):
                continue
            embedding = self.encoders.text(caption)
            if not bool(embedding.isfinite().all()):
                raise ValueError(
                    f"the text encoder made values that are not finite of {caption[:60]!r}: try another file of it."
                )
            used = int(embedding.abs().sum(dim=1).nonzero().max()) + 1
            tokens = embedding[:used].to(stored_dtype(self.config))
            self.cache.write(TEXTS, key, {"tokens": tokens, "length": torch.tensor(len(embedding))}, caption)
        self.encoders.release_text_encoder()

    def _encode_windows(self, clips: list[UsableClip]) -> list[IndexedExample]:
        """Store every example that is not there yet and return them all; one that fails goes into the report."""
        jobs = [(clip, key, plan) for clip in clips for key, plan in clip.plans.items()]
        bar = tqdm(one_ahead(self._files, jobs), "examples", len(jobs), unit="example", disable=not self._progress)
        return [example for job, files in bar if (example := self._example(*job, files))]

    def _files(self, clip: UsableClip, key: str, plan: WindowPlan) -> WindowFiles | None:
        """Return the frames and poses of an example, or None if it is in the cache already. Runs in a thread."""
        if self._is_sound(WINDOWS, key, _name(clip, plan)):
            return None
        return read_window(clip.source, plan, self.config)

    def _example(
        self, clip: UsableClip, key: str, plan: WindowPlan, files: Future[WindowFiles | None]
    ) -> IndexedExample | None:
        """Return an example, encoded now if it is not there yet; None if its clip cannot be read."""
        name = _name(clip, plan)
        try:
            found = files.result()
            encoded = found and encode_window(plan, self.config, found, self.encoders)
        except ValueError as error:
            self.report.rejected.append(Rejected(name, str(error)))
            return None
        if encoded:
            self.cache.write(WINDOWS, key, encoded, name)
            self.report.num_encoded += 1
        else:
            self.report.num_reused += 1
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
        )

    def _tidy(self, prune: bool) -> None:
        """Count the entries that no index names, or remove them."""
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


def _encoder_files(model: ModelConfig, hears: bool = False):
    """Return the model files, with CLIP vision if and only if the video model reads it, and the audio encoder if it `hears`.

    Raises:
        ValueError: a file that is not there, or CLIP vision that is needed and not given.
    """
    from .model.encoders import EncoderFiles  # starts ComfyUI, which takes seconds: not for --help

    vision = model.clip_vision
    if model.path:
        header = read_header(find_model("diffusion_models", model.path, "model.path"))
        needed = any("img_emb." in key for key in header)
        if needed and not vision:
            raise ValueError(
                f"{model.path} reads image features (Wan 2.1 I2V): set model.clip_vision to clip_vision_h.safetensors."
            )
        vision = vision if needed else ""
    return EncoderFiles(
        vae=find_model("vae", model.vae, "model.vae"),
        text_encoder=find_model("text_encoders", model.text_encoder, "model.text_encoder"),
        clip_vision=find_model("clip_vision", vision, "model.clip_vision") if vision else None,
        audio_encoder=find_model("audio_encoders", model.audio_encoder, "model.audio_encoder") if hears else None,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", required=True, type=Path, help="TOML file; later ones win")
    parser.add_argument("--prune", action="store_true", help="remove entries that no configuration in the folder uses")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win over the files")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(options.config, options.overrides)
        files = _encoder_files(config.model, config.data.svi_layout.condition is Condition.SOUND)
        from .model.encoders import WanEncoders

        report = build_cache(config.data, WanEncoders(files, config.data.vae_tile), options.prune, progress=True)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; what is finished stays, run the same command to go on\n")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{report.summary()}\n{config.data.cache_folder / REPORT} has it all\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
