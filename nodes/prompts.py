"""The prompt stream: one text, each prompt encoded once."""

from dataclasses import dataclass

from comfy_api.latest import io

from ..svi_core.prompts import PromptSplit, PromptStream, parse_prompts

CATEGORY = "SVI"
Prompts = io.Custom("SVI_PROMPTS")


@dataclass(frozen=True)
class EncodedPrompts:
    """A prompt stream and the CONDITIONING of each different text in it."""

    stream: PromptStream
    conditionings: dict[str, list]

    def at(self, clip_index: int) -> list:
        """Return the CONDITIONING of clip `clip_index` (0-based)."""
        return self.conditionings[self.stream.at(clip_index)]


class SVIPromptStream(io.ComfyNode):
    """Read one prompt per clip from a text and encode each once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVIPromptStream",
            display_name="SVI Prompt Stream",
            category=CATEGORY,
            description="One prompt per clip. The last prompt holds for all clips after it.",
            search_aliases=["stable video infinity", "multi prompt", "storyline", "schedule"],
            inputs=[
                io.Clip.Input("clip", tooltip="The umT5 text encoder (Load CLIP, type wan)."),
                io.String.Input(
                    "text",
                    multiline=True,
                    tooltip="One prompt per paragraph (separated by a blank line) or per line; lines that start with # are "
                    "comments. A whole SVI prompt file, prompts = [...], can be pasted as it is.",
                ),
                io.Combo.Input(
                    "split", options=PromptSplit, default=PromptSplit.PARAGRAPHS, tooltip="What separates two prompts."
                ),
            ],
            outputs=[
                Prompts.Output("prompts"),
                io.Int.Output("num_prompts", tooltip="How many prompts the text holds; connect it to num_clips if you like."),
            ],
        )

    @classmethod
    def validate_inputs(cls, text="-", split=PromptSplit.PARAGRAPHS.value) -> bool | str:
        try:
            parse_prompts(text, PromptSplit(split))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, clip, text, split) -> io.NodeOutput:
        stream = parse_prompts(text, PromptSplit(split))
        encoded = {prompt: clip.encode_from_tokens_scheduled(clip.tokenize(prompt)) for prompt in dict.fromkeys(stream.prompts)}
        return io.NodeOutput(EncodedPrompts(stream, encoded), len(stream))
