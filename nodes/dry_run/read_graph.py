"""Read from the queued graph what a run is asked to be, without executing any of its nodes.

Values that other nodes make are not guessed: they are listed as not known yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import comfy.model_management
import torch
from PIL import Image, UnidentifiedImageError

from ...svi_core.clips.clip_plan import ClipPlan, SeedMode
from ...svi_core.clips.continuation import VideoStart
from ...svi_core.clips.video_settings import VideoSettings
from ...svi_core.conditioning.images import SizeRule, video_size
from ...svi_core.dry_run.outline import ExpertModel, LoraUse, ModelFile, RunOutline
from ...svi_core.files.safetensors_file import read_header
from ...svi_core.schedule.live_file import LiveSchedule
from ...svi_core.schedule.prompt_lists import PromptSplit
from ...svi_core.schedule.spec import Schedule
from ...svi_core.schedule.storyline import Storyline
from ...svi_core.schedule.storyline_actions import SubjectKind
from ...svi_core.schedule.text import parse_schedule
from ...svi_core.systems.layouts import LAYOUTS, Layout
from ...svi_core.systems.lora import expert_named_in
from ...svi_core.systems.lora_presets import LORA_PRESETS
from ...svi_core.systems.lora_variant import resolve_layout, variant_of_lora
from ...svi_core.video.seams import Seam, measured_seam
from ...svi_core.video.source_video import probe_video
from ...svi_core.video.video_file import VideoCoding
from ..bridge.control import earliest_end, frame_rate_of
from ..bridge.queued_graph import (
    GENERATE,
    LORA_STACK,
    MODEL_INPUTS,
    Link,
    NotKnown,
    QueuedGraph,
    checkpoint_names,
    find_input,
    graph_hash,
    model_files,
    names_a_model,
)
from ..bridge.translate import rounding_warning
from ..few_steps import FEW_STEPS
from ..generate import run_path
from ..layouts import ask_layout
from ..lora import NONE
from ..lora_presets import LORA_PRESET
from ..output import AUTO, OutputSettings
from ..schedule import input_text_file
from ..storyline import STORY_WIDGETS, STORYLINE, write_story
from .read_controls import ControlOutline, control_outlines

_STEPPED_SCHEDULERS = {  # nodes that make as many steps as their widget says
    "BasicScheduler", "BetaSamplingScheduler", "ExponentialScheduler", "KarrasScheduler", "LaplaceScheduler",
    "PolyexponentialScheduler", "SDTurboScheduler", "VPScheduler",
}  # fmt: skip


def read_outline(prompt: dict, plan_id: str) -> RunOutline:
    """Return what the graph says of the run whose video goes into the node `plan_id`.

    Raises:
        ValueError: what the run itself would refuse, or a graph whose clips cannot be known without executing it.
    """
    graph = QueuedGraph(prompt)
    link = graph.link(plan_id, "video")
    found = [node for node in graph.upstream(link.node_id) if graph.class_of(node) == GENERATE] if link else []
    if not found:
        raise ValueError("video does not come from SVI Generate: connect its video output, directly or through other nodes.")
    is_dry = graph.inputs(plan_id).get("plan_only", True) is True
    return _OutlineReader(graph, found[0]).read(besides=set(graph.upstream(plan_id) if is_dry else graph.nodes))


@dataclass(frozen=True)
class _OutlineReader:
    """The inputs of one SVI Generate, as far as they can be known; what cannot is noted in `not_known`."""

    graph: QueuedGraph
    node: str
    not_known: list[str] = field(default_factory=list)

    def read(self, besides: set[str]) -> RunOutline:
        """Return the outline. Nodes in `besides` may take the run's outputs without a remark."""
        schedule, until_stopped = self._schedule()
        output, start = self._output(), self._start()
        seed = self._value(self.node, "seed")
        prefix = self._value(self.node, "filename_prefix")
        controls = list(control_outlines(self.graph, self.node, self.not_known))
        num_clips = len(schedule) if until_stopped else self._num_clips(schedule, controls)
        metadata, files = self._files()
        experts = self._experts(metadata)
        layout = self._layout(experts)
        frame_rate = frame_rate_of(layout, controls)
        known_start = start if isinstance(start, VideoStart) else None
        plan = ClipPlan(
            num_clips,
            schedule,
            layout,
            0 if seed is None else seed,
            SeedMode(self._required(self.node, "seed_mode", SeedMode.PER_CLIP)),
            graph_hash(self.graph.nodes, self.node),
            output.seam or measured_seam(layout),
            known_start.plan_key if known_start else start,
            known_start.num_clips_made if known_start else 0,
        )
        num_start_frames = known_start.num_frames if known_start else 0
        is_start_known = known_start is not None or not start
        return RunOutline(
            plan=plan,
            num_listed=len(schedule),
            coding=VideoSettings(replace(output.coding, frame_rate=frame_rate), start=known_start).clip_coding,
            max_frames=earliest_end(output.max_frames(known_start, frame_rate), num_start_frames, controls),
            num_start_frames=num_start_frames,
            start_seconds=known_start.num_frames / known_start.source.frame_rate if known_start else 0.0,
            until_stopped=until_stopped,
            is_seed_known=seed is not None and (is_start_known or plan.seed_mode is SeedMode.FIXED),
            is_start_known=is_start_known,
            cfg=self._value(self.node, "cfg"),
            num_extra_passes=sum(control.num_extra_passes for control in controls),
            num_steps=self._num_steps(),
            size=self._size(),
            folder=None if prefix is None else run_path(prefix),
            experts=experts,
            files=files,
            anchors=tuple(self._values_along("anchors", "name")),
            lora_rows=(*self._values_along("loras", "lora"), *self._values_along("loras", "lora_low_noise")),
            value_bytes=comfy.model_management.intermediate_dtype().itemsize,
            not_known=tuple(dict.fromkeys(self.not_known)),
            remarks=(*self._remarks(besides), *_vae_remarks(layout)),
        )

    def _value(self, node: str, name: str, default: object = None):
        """Return a widget's value, or None, noted, if another node makes it."""
        try:
            return self.graph.value(node, name, default)
        except NotKnown as error:
            self.not_known.append(str(error))
            return None

    def _required(self, node: str, name: str, default: object = None):
        """Return a widget's value.

        Raises:
            ValueError: another node makes it, and without it no clip is known.
        """
        try:
            return self.graph.value(node, name, default)
        except NotKnown as error:
            raise ValueError(f"{error}, so that the clips cannot be known before it runs: type the value in.") from error

    def _schedule(self) -> tuple[Schedule, bool]:
        """Return the schedule as it is now, and whether clips are made until somebody stops them."""
        link = self.graph.link(self.node, "prompts")
        source = self.graph.class_of(link.node_id) if link else ""
        if source == "SVIPromptStream":
            split = PromptSplit(self._required(link.node_id, "split", PromptSplit.PARAGRAPHS))
            return parse_schedule(self._prompt_text(link.node_id), split), False
        if source == "SVILiveSchedule":
            path = input_text_file(self._required(link.node_id, "file"))
            return LiveSchedule(path).snapshot(), bool(self._required(link.node_id, "until_stopped", False))
        origin = self.graph.title(link.node_id) if link else "nowhere"
        raise ValueError(f"prompts: comes from {origin}, so that the clips cannot be known: use SVI Prompt Stream.")

    def _prompt_text(self, prompts: str) -> str:
        """Return the text of an SVI Prompt Stream, also one that templates write."""
        story = self.graph.link(prompts, "text")
        if story is None or self.graph.class_of(story.node_id) != STORYLINE or self.graph.link(story.node_id, "text_model"):
            return self._required(prompts, "text")
        values = {name: self._required(story.node_id, name) for name in STORY_WIDGETS}
        return write_story(Storyline(**values | {"kind": SubjectKind(values["kind"])}))

    def _num_clips(self, schedule: Schedule, controls: list[ControlOutline]) -> int:
        link = self.graph.link(self.node, "num_clips")
        asked = next((control.num_clips for control in controls if control.clip_count == link), None)
        if asked is not None:
            return asked
        if link is not None and self.graph.class_of(link.node_id) == STORYLINE:
            return self._required(link.node_id, "num_clips")
        if link is not None and link == Link(self.graph.link(self.node, "prompts").node_id, 1):
            return len(schedule)  # the prompt stream's own count
        return self._required(self.node, "num_clips")

    def _layout(self, experts: tuple[ExpertModel, ...]) -> Layout:
        """Return the layout; where the LoRA decides, that of the LoRAs which the run will know of.

        Raises:
            ValueError: the LoRA decides and none tells, or SVI Layout's values do not fit.
        """
        link = self.graph.link(self.node, "layout")
        if link is None:
            return LAYOUTS["2.0 Pro"]
        if self.graph.class_of(link.node_id) != "SVILayout":
            raise ValueError(
                f"layout: comes from {self.graph.title(link.node_id)}: use SVI Layout, which can be read beforehand."
            )
        widgets = (self._required(link.node_id, name) for name in ("variant", "num_frames", "num_motion_frames"))
        asked = ask_layout(*widgets, self._required(link.node_id, "cut_to_8_bits", False))
        if isinstance(asked, Layout):
            return asked  # what contradicts it is a warning of the plan
        uses = (use for expert in experts for use in expert.loras if use.is_noted and use.strength)
        return resolve_layout(asked, dict.fromkeys(use.claim for use in uses if use.claim))

    def _output(self) -> OutputSettings:
        """Return the settings of SVI Output; a value that is not known yet counts as its default."""
        link = self.graph.link(self.node, "output")
        if link is None:
            return OutputSettings()
        if self.graph.class_of(link.node_id) != "SVIOutput":
            self.not_known.append(f"output: comes from {self.graph.title(link.node_id)}")
            return OutputSettings()
        defaults = {"codec": "h264", "crf": 18, "pixel_format": "yuv420p", "seam": AUTO, "length_seconds": 0.0}
        values = {name: self._value(link.node_id, name, default) for name, default in defaults.items()}
        known = {name: defaults[name] if value is None else value for name, value in values.items()}
        coding = VideoCoding(known["codec"], known["crf"], known["pixel_format"])
        seam = None if known["seam"] == AUTO else Seam(known["seam"])
        return OutputSettings(coding, seam=seam, length_seconds=known["length_seconds"])

    def _start(self) -> VideoStart | str:
        """Return the video to continue: "" for none, "not known" for one that is not there yet or comes from elsewhere."""
        link = self.graph.link(self.node, "continue_from")
        if link is None:
            return ""
        video = self.graph.link(link.node_id, "video")
        if video is None or self.graph.class_of(video.node_id) != "LoadVideo":
            self.not_known.append(
                f"continue_from: how long it is, and what follows it, is known when {self._origin(video or link)} has run"
            )
            return "not known"
        path = find_input(self._required(video.node_id, "file"))
        if path is None:
            raise ValueError(f"file of {self.graph.title(video.node_id)} is not in ComfyUI's input folder: choose another.")
        return VideoStart(probe_video(path), self._required(link.node_id, "trim_end", 0))

    def _num_steps(self) -> int | None:
        link = self.graph.link(self.node, "sigmas")
        if link is not None and self.graph.class_of(link.node_id) in _STEPPED_SCHEDULERS:
            return self._value(link.node_id, "steps")
        if link is not None and self.graph.class_of(link.node_id) == FEW_STEPS:
            counts = [self._value(link.node_id, name) for name in ("steps_high_noise", "steps_low_noise")]
            return None if None in counts else sum(counts)
        if link is not None:
            self.not_known.append(f"steps: sigmas come from {self._origin(link)}")
        return None

    def _size(self) -> tuple[int, int] | None:
        """Return (width, height) of the video in pixels, or None, noted, if another node decides.

        Raises:
            ValueError: a size that Wan cannot take.
        """
        link = self.graph.link(self.node, "anchor")
        if link is None or self.graph.class_of(link.node_id) != "SVIAnchorEncode":
            self.not_known.append(f"size: the anchor comes from {self._origin(link)}")
            return None
        names = ("width", "height", "size_rule")
        width, height, rule = (self._value(link.node_id, name) for name in names)
        if None in (width, height, rule):
            return None
        if SizeRule(rule) is SizeRule.EXACT:
            return video_size(1, 1, width, height, SizeRule.EXACT)
        image = self._image_size(self.graph.link(link.node_id, "image"))
        if image is None:
            self.not_known.append(
                f"size: size_rule {rule!r} needs the image, which {self._origin(self.graph.link(link.node_id, 'image'))} makes"
            )
            return None
        return video_size(*image, width, height, SizeRule(rule))

    def _image_size(self, link: Link | None) -> tuple[int, int] | None:
        """Return the size of a Load Image's file from its header; None for other nodes, and for pictures stored turned."""
        if link is None or self.graph.class_of(link.node_id) != "LoadImage":
            return None
        path = find_input(str(self._value(link.node_id, "image")))
        try:
            with Image.open(path) as image:
                is_turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: 5 to 8 swap the sides
                return None if is_turned else image.size
        except (OSError, AttributeError, UnidentifiedImageError):
            return None

    def _files(self) -> tuple[dict[str, dict], tuple[ModelFile, ...]]:
        """Return the metadata by name and the facts of every model file that the graph names; only headers are read."""
        metadata, files = {}, []
        for file in model_files(self.graph, self.node):
            complaint = ""
            if file.path is not None and file.path.suffix in (".safetensors", ".sft"):
                try:
                    metadata[file.name] = read_header(file.path).get("__metadata__", {})
                except ValueError as error:
                    complaint = str(error)
            num_bytes = None if file.path is None else file.path.stat().st_size
            files.append(ModelFile(file.name, file.kind, num_bytes, complaint))
        return metadata, tuple(files)

    def _experts(self, metadata: dict[str, dict]) -> tuple[ExpertModel, ...]:
        names = checkpoint_names(self.graph, self.node)
        sides = ("model",) if len(names) == 1 else ("high", "low")
        found = []
        for side, checkpoint, name in zip(sides, names, MODEL_INPUTS, strict=False):
            uses = [*self._loras_on(name), *self._row_uses("loras", self.node, side == "low")]
            found.append(ExpertModel(side, checkpoint, tuple(_told_of(use, metadata.get(use.name, {})) for use in uses)))
        return tuple(found)

    def _loras_on(self, name: str) -> Iterator[LoraUse]:
        """Yield the LoRAs that the model passes on its way to the input `name`."""
        for link in list(self.graph.model_chain(self.node, name))[:-1]:
            if self.graph.class_of(link.node_id) == LORA_STACK:
                yield from self._row_uses("loras", link.node_id, link.slot == 1)
                continue
            for value in self.graph.inputs(link.node_id).values():
                if names_a_model(value):
                    yield LoraUse(value, self._strength(link.node_id, "strength_model"), is_noted=False)

    def _row_uses(self, name: str, node: str, is_low: bool) -> Iterator[LoraUse]:
        suffix = "_low_noise" if is_low else ""
        for row in self.graph.chain(node, name):
            lora = self._value(row, f"lora{suffix}", NONE)
            if lora not in (None, NONE):
                yield LoraUse(lora, self._row_strength(row, is_low))

    def _row_strength(self, row: str, is_low: bool) -> float:
        if self.graph.class_of(row) != LORA_PRESET:
            return self._strength(row, "strength_low_noise" if is_low else "strength")
        preset = LORA_PRESETS.get(self._value(row, "preset"))
        return 1.0 if preset is None else preset.low if is_low else preset.high

    def _strength(self, node: str, name: str) -> float:
        """Return a LoRA's strength; one that is not known counts as 1."""
        strength = self._value(node, name, 1.0)
        return 1.0 if strength is None else strength

    def _values_along(self, chain: str, name: str) -> Iterator[str]:
        values = (self._value(node, name, NONE) for node in self.graph.chain(self.node, chain))
        return (value for value in values if value not in (None, NONE))

    def _remarks(self, besides: set[str]) -> Iterator[str]:
        for node in self.graph.other_users(self.node, besides):
            yield (
                f"{self.graph.title(node)} takes its input from SVI Generate and not from SVI Plan: if a result depends on it, "
                "the run starts although plan_only is on."
            )

    def _origin(self, link: Link | None) -> str:
        return "nothing" if link is None else self.graph.title(link.node_id)


def _told_of(use: LoraUse, metadata: dict) -> LoraUse:
    """Return `use` with what the file's name and header tell."""
    return replace(use, named_for=expert_named_in(use.name, metadata), claim=variant_of_lora(use.name, metadata))


def _vae_remarks(layout: Layout) -> Iterator[str]:
    """What speaks against the precision in which ComfyUI would run the VAE here, without loading it."""
    management = comfy.model_management
    dtype = management.vae_dtype(management.vae_device(), [torch.bfloat16, torch.float16, torch.float32])  # as for Wan's VAE
    if not layout.in_latent_space and dtype is not torch.float32:
        yield rounding_warning(layout, dtype)
