"""The prompt stream: one text for the whole video, each prompt encoded once."""

from dataclasses import dataclass, field
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..svi_core.schedule.live_file import LiveSchedule
from ..svi_core.schedule.prompt_lists import PromptSplit
from ..svi_core.schedule.spec import Schedule
from ..svi_core.schedule.text import parse_schedule
from .bridge.schemas import svi_schema
from .bridge.validation import complaint

MAX_ENCODED = 64  # texts kept encoded; umT5's output is 8.4 MB each
Prompts = io.Custom("SVI_PROMPTS")


@dataclass(frozen=True)
class EncodedPrompts:
    """A schedule and the CONDITIONING of its texts: the first ones encoded beforehand, others when their clip comes."""

    schedule: Schedule | LiveSchedule
    clip: object
    conditionings: dict[str, list] = field(default_factory=dict)
    until_stopped: bool = False

    def encode(self, prompt: str) -> list:
        """Return the CONDITIONING of `prompt`; the ones used longest ago are forgotten."""
        known = self.conditionings
        conditioning = known.pop(prompt, None)
        if conditioning is None:
            conditioning = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))
        known[prompt] = conditioning
        if len(known) > MAX_ENCODED:
            del known[next(iter(known))]
        return conditioning


def encode_schedule(schedule: Schedule | LiveSchedule, clip, until_stopped: bool = False) -> EncodedPrompts:
    """Encode every different prompt of `schedule` once, or the first 64 of a long one."""
    prompts = EncodedPrompts(schedule, clip, until_stopped=until_stopped)
    for prompt in schedule.prompts[:MAX_ENCODED]:
        prompts.encode(prompt)
    return prompts


class SVIPromptStream(io.ComfyNode):
    """Read one prompt per clip, with options, from a text and encode each once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIPromptStream",
            display_name="SVI Prompt Stream",
            description="One prompt per clip, and in square brackets above it what else should change for that clip: [seed 7, "
            "cfg 3.5, cut, anchor garden, hold 16, x2]. The last prompt holds for all clips after it.",
            search_aliases=["multi prompt", "storyline", "schedule"],
            inputs=[
                io.Clip.Input("clip", tooltip="The umT5 text encoder (Load CLIP, type wan)."),
                io.String.Input(
                    "text",
                    multiline=True,
                    tooltip="One prompt per paragraph (separated by a blank line) or per line; lines that start with # are "
                    "comments. A whole SVI prompt file, prompts = [...], can be pasted as it is. Options in the first "
                    "line of a paragraph: see this node's help.",
                ),
                io.Combo.Input(
                    "split",
                    options=PromptSplit,
                    default=PromptSplit.PARAGRAPHS,
                    tooltip="What separates two prompts. Options need paragraphs.",
                ),
            ],
            outputs=[
                Prompts.Output("prompts", tooltip="For prompts of SVI Generate."),
                io.Int.Output("num_prompts", tooltip="How many clips the text describes; connect it to num_clips if you like."),
            ],
        )

    @classmethod
    def validate_inputs(cls, text=None, split=None) -> bool | str:
        return complaint(read_prompts, text, split)

    @classmethod
    def execute(cls, clip, text, split) -> io.NodeOutput:
        schedule = read_prompts(text, split)
        return io.NodeOutput(encode_schedule(schedule, clip), len(schedule))


class SVILiveSchedule(io.ComfyNode):
    """Read the schedule from a file, again before every clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVILiveSchedule",
            display_name="SVI Live Schedule",
            description="A prompt stream in a text file of ComfyUI's input folder, read again before each clip: edit and save "
            "the file while the video is being made, and the next clip follows it.",
            search_aliases=["steer", "interactive", "live prompt"],
            inputs=[
                io.Clip.Input("clip", tooltip="The umT5 text encoder (Load CLIP, type wan)."),
                io.String.Input(
                    "file",
                    default="schedule.txt",
                    tooltip="A UTF-8 text file in ComfyUI's input folder, one prompt per paragraph.",
                ),
                io.Boolean.Input(
                    "until_stopped",
                    default=False,
                    tooltip="Make clips until you press Cancel, whatever num_clips says. Finished clips are kept.",
                ),
            ],
            outputs=[Prompts.Output("prompts", tooltip="For prompts of SVI Generate.")],
        )

    @classmethod
    def validate_inputs(cls, file=None) -> bool | str:
        return complaint(live_schedule, file)

    @classmethod
    def fingerprint_inputs(cls, file=None, **_) -> str:
        """Run again when the file has changed since; a linked name is not known yet."""
        if file is None:
            return ""
        path = input_text_file(file)
        return path.read_text(encoding="utf-8-sig") if path.is_file() else ""

    @classmethod
    def execute(cls, clip, file, until_stopped) -> io.NodeOutput:
        return io.NodeOutput(encode_schedule(live_schedule(file), clip, until_stopped))


def read_prompts(text: str, split: str) -> Schedule:
    """Return the schedule that the widgets of SVI Prompt Stream describe.

    Raises:
        ValueError: a mistake in the text, with its line and column.
    """
    return parse_schedule(text, PromptSplit(split))


def live_schedule(file: str) -> LiveSchedule:
    """Return the schedule in a file of ComfyUI's input folder.

    Raises:
        ValueError: a file outside that folder, a missing file, or a mistake in its text.
    """
    return LiveSchedule(input_text_file(file))


def input_text_file(name: str) -> Path:
    """Return the path of a file in ComfyUI's input folder.

    Raises:
        ValueError: the name leads out of that folder.
    """
    root = Path(folder_paths.get_input_directory()).resolve()
    if not name or "\0" in name or not (root / name).resolve().is_relative_to(root):
        raise ValueError(f"file is {name!r}: name a text file inside ComfyUI's input folder {root}.")
    return (root / name).resolve()
