"""Schedules: one text for the whole video; each prompt is encoded once."""

import functools
from collections.abc import Sequence
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..svi_core.files.fingerprint import fingerprint
from ..svi_core.files.output_folder import follow_links
from ..svi_core.files.text_file import read_text, require_unicode
from ..svi_core.schedule.doubts import doubts
from ..svi_core.schedule.live_file import LiveSchedule
from ..svi_core.schedule.prompt_lists import PromptSplit
from ..svi_core.schedule.spec import Schedule
from ..svi_core.schedule.text import parse_story
from .bridge.browsers import warn
from .bridge.schemas import svi_schema
from .bridge.validation import complaint

MAX_ENCODED = 64  # prompts to keep encoded; umT5's output is 8.4 MB each
Prompts = io.Custom("SVI_PROMPTS")


class EncodedPrompts:
    """A schedule and the CONDITIONING of its prompts: the first 64 are encoded at once, others when needed."""

    def __init__(self, schedule: Schedule | LiveSchedule, clip, until_stopped: bool = False):
        self.schedule, self.until_stopped = schedule, until_stopped
        self._encoded = functools.lru_cache(MAX_ENCODED)(functools.partial(_Encoded, clip))
        for prompt in schedule.prompts[:MAX_ENCODED]:
            self.encode(prompt)

    def encode(self, prompt: str) -> list:
        """Return the CONDITIONING of `prompt`."""
        return self._encoded(prompt).conditioning

    def key(self, prompt: str) -> str:
        """Return a hash of the CONDITIONING of `prompt`."""
        return self._encoded(prompt).key


class _Encoded:
    """The CONDITIONING of a prompt, and its hash once it is asked for."""

    def __init__(self, clip, prompt: str):
        self.conditioning: list = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))

    @functools.cached_property
    def key(self) -> str:
        return fingerprint(self.conditioning)


def _clip_input() -> io.Input:
    return io.Clip.Input("clip", tooltip="The umT5 text encoder (Load CLIP, type wan).")


class SVIPromptStream(io.ComfyNode):
    """Read one prompt per clip, with options, from a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIPromptStream",
            display_name="SVI Prompt Stream",
            description="One prompt per clip, with options for that clip in square brackets above it: [seed 7, cfg 3.5, cut, "
            "anchor garden, hold 16, x2]. The last prompt applies to all remaining clips.",
            category="prompts",
            search_aliases=[
                "storyboard",
                "timeline",
                "prompt schedule",
                "prompt travel",
                "multi prompt",
                "storyline",
                "schedule",
            ],
            inputs=[
                _clip_input(),
                io.String.Input(
                    "text",
                    multiline=True,
                    tooltip="One prompt per paragraph or line. A paragraph may start with [options] (see the help page); lines "
                    "with # are comments. An SVI prompt file, prompts = [...], can be pasted as it is. A list of texts from "
                    "another node is one story.",
                ),
                io.Combo.Input(
                    "split",
                    options=PromptSplit,
                    default=PromptSplit.PARAGRAPHS,
                    tooltip="What separates prompts: blank lines, line ends, or vertical bars. Options need paragraphs.",
                ),
            ],
            outputs=[
                Prompts.Output("prompts", tooltip="For prompts of SVI Generate."),
                io.Int.Output("num_prompts", tooltip="Number of clips that the text describes, for num_clips."),
            ],
            is_input_list=True,  # else a list of texts would make one run for each, all in one folder
        )

    @classmethod
    def validate_inputs(cls, text=(None,), split=(None,)) -> bool | str:
        if None in (*text, *split):
            return True  # linked: not known yet
        return complaint(read_story, text, split)

    @classmethod
    def execute(cls, clip, text, split) -> io.NodeOutput:
        schedule = read_story(text, split)
        for doubt in (doubt for one in text for doubt in doubts(one, PromptSplit(split[0]))):
            warn("SVI Prompt Stream", doubt)
        return io.NodeOutput(EncodedPrompts(schedule, _only("clip", clip)), len(schedule))


class SVILiveSchedule(io.ComfyNode):
    """Read the schedule from a file before every clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVILiveSchedule",
            display_name="SVI Live Schedule",
            description="Read the prompt stream from a text file in ComfyUI's input folder before each clip. Edit and save the "
            "file during a run to change the next clip.",
            category="prompts",
            search_aliases=["steer", "interactive", "live prompt"],
            inputs=[
                _clip_input(),
                io.String.Input("file", default="schedule.txt", tooltip="A UTF-8 text file in ComfyUI's input folder."),
                io.Boolean.Input(
                    "until_stopped",
                    default=False,
                    tooltip="Ignore num_clips and make clips until you press Cancel. Finished clips are kept.",
                ),
            ],
            outputs=[Prompts.Output("prompts", tooltip="For prompts of SVI Generate.")],
        )

    @classmethod
    def validate_inputs(cls, file=None) -> bool | str:
        return complaint(live_schedule, file)

    @classmethod
    def fingerprint_inputs(cls, file=None, **_) -> str:
        """Run again when the file has changed; a linked name is not known yet."""
        if file is None:
            return ""
        try:
            return read_text(input_text_file(file))
        except ValueError as error:
            return str(error)  # `execute` raises it

    @classmethod
    def execute(cls, clip, file, until_stopped) -> io.NodeOutput:
        return io.NodeOutput(EncodedPrompts(live_schedule(file), clip, until_stopped))


def read_prompts(text: str, split: str) -> Schedule:
    """Return the schedule that the widgets of SVI Prompt Stream describe.

    Raises:
        ValueError: a mistake in the text, with its line and column.
    """
    return read_story([text], [split])


def read_story(texts: Sequence[str], splits: Sequence[str]) -> Schedule:
    """Return the schedule that the texts of a list describe together.

    Raises:
        ValueError: a mistake in a text, a text of a list that is a story of its own, or several values of split.
    """
    for number, text in enumerate(texts, start=1):
        require_unicode(text, "text" if len(texts) == 1 else f"text {number}")
    return parse_story(texts, PromptSplit(_only("split", splits)))


def _only(name: str, values: Sequence):
    """Return the one value of an input, of which ComfyUI may send a list."""
    if any(value is not values[0] and value != values[0] for value in values):
        raise ValueError(f"{name} is a list of {len(values)} different values: connect one.")
    return values[0]


def live_schedule(file: str) -> LiveSchedule:
    """Return the schedule in a file of ComfyUI's input folder.

    Raises:
        ValueError: a file outside that folder, a missing file, or a mistake in its text.
    """
    return LiveSchedule(input_text_file(file))


def input_text_file(name: str) -> Path:
    """Return the path of a file in ComfyUI's input folder.

    Raises:
        ValueError: a path outside that folder, or one that cannot be followed.
    """
    root = Path(folder_paths.get_input_directory()).resolve()
    path = follow_links(root / name, "file")
    if not name or not path.is_relative_to(root):
        raise ValueError(f"file is {name[:300]!r}: name a text file inside ComfyUI's input folder {root}.")
    return path
