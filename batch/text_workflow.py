"""A language model inside ComfyUI, by the user's own workflow of text nodes: Generate Text, or those of any pack.

The workflow holds ``{instruction}`` where the prompt is written, and shows the answer with Preview as Text or another node that
shows text. Widgets named ``seed`` get a new one for each answer, and Load Image the story's picture.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from batch.media import name_by_content
from batch.prepare import FOLDER
from batch.run_story import end_of, is_busy
from batch.workflow.convert import Graph, read_workflow, to_api
from comfyui.client import NETWORK_ERRORS, RemoteServer, ServerError, outputs_of
from svi_core.files.fingerprint import fingerprint

INSTRUCTION = "{instruction}"
TIMEOUT_SECONDS = 3600.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TextWorkflow:
    """A language model in the ComfyUI at `url`, asked by the workflow in `file`; see the module."""

    url: str
    file: Path

    @property
    def model(self) -> str:
        return self.file.stem

    @property
    def key(self) -> str:
        return f"{self.model} {fingerprint(self._graph)}"

    @property
    def sees_images(self) -> bool:
        return any(node["class_type"] == "LoadImage" for node in self._graph.values())

    def answer(self, instruction: str, image: Path, max_tokens: int, seed: int) -> str:
        """Return the answer to `instruction`. Raises ValueError: the server is away, or refuses or fails the workflow."""
        try:
            graph = self._filled(instruction, image, seed)
            outputs = self._outputs(self._server.queue(graph))
        except (ServerError, *NETWORK_ERRORS) as error:
            raise ValueError(f"{self.file.name} on {self.url}: {error}") from error
        text = "\n".join(_texts(outputs))
        if not text.strip():
            raise ValueError(f"{self.file.name} shows no text: link Preview as Text to the node that writes the answer")
        return text

    def _outputs(self, prompt_id: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the outputs of a prompt once it has ended. Raises ServerError, OSError: it failed, or the server is away."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                if (entry := end_of(prompt_id, self._server)) is not None:
                    return outputs_of(entry)
            except OSError as error:
                if not is_busy(error):
                    raise
            time.sleep(POLL_SECONDS)
        raise ServerError(f"no answer within {TIMEOUT_SECONDS:.0f} s")

    @cached_property
    def _server(self) -> RemoteServer:
        return RemoteServer(self.url)

    @cached_property
    def _graph(self) -> Graph:
        try:
            graph = to_api(read_workflow(self.file), self._server.object_info()).graph
        except NETWORK_ERRORS as error:
            raise ValueError(f"no ComfyUI answers at {self.url}: {error}") from error
        if INSTRUCTION not in json.dumps(graph):
            raise ValueError(f"{self.file} holds no {INSTRUCTION}: write it where the prompt of the text node is")
        return graph

    def _filled(self, instruction: str, image: Path, seed: int) -> Graph:
        graph = copy.deepcopy(self._graph)
        for node in graph.values():
            for name, value in node["inputs"].items():
                if isinstance(value, str) and INSTRUCTION in value:
                    node["inputs"][name] = value.replace(INSTRUCTION, instruction)
                elif name.rpartition(".")[2] == "seed" and isinstance(value, int):
                    node["inputs"][name] = seed
            if node["class_type"] == "LoadImage":
                self._server.upload(image, name_by_content(image), FOLDER)
                node["inputs"]["image"] = f"{FOLDER}/{name_by_content(image)}"
        return graph


def _texts(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the texts that nodes showed."""
    for output in outputs.values():
        for shown in output.get("text", ()):
            if isinstance(shown, str):
                yield shown
