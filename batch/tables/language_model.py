"""Ask a language model behind an OpenAI-compatible address, such as a local llama.cpp, vLLM or Ollama, for prompts.

The key is read from the environment, sent to that address only, and never written or shown.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

KEY_VARIABLE = "SVI_LLM_API_KEY"
ATTEMPTS = 3
WAIT_SECONDS = 5.0
TIMEOUT_SECONDS = 600.0
_MOST_READ = 65536  # bytes of a refusal
_MOST_SHOWN = 500  # letters of it, without the key
_IMAGE_TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which could carry the key elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


class PromptWriter(Protocol):
    """Whatever answers instructions: a model behind an address, or one in ComfyUI."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    @property
    def key(self) -> str:
        """What its answers depend on besides question, image and seed: prompts kept under another key are asked anew."""
        ...

    @property
    def sees_images(self) -> bool: ...

    def answer(self, instruction: str, image: Path, max_tokens: int, seed: int) -> str:
        """Return the answer to `instruction`. Raises ValueError."""
        ...


@dataclass(frozen=True)
class LanguageModel:
    """A model behind an address.

    Attributes:
        url: up to and with its version: "http://127.0.0.1:8080/v1".
        model: its name there.
        sees_images: whether it is shown the image of each story.
    """

    url: str
    model: str
    sees_images: bool = False

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"--llm {self.url!r} is no address: write one such as http://127.0.0.1:8080/v1")
        _key()

    @property
    def key(self) -> str:
        return self.model

    def answer(self, instruction: str, image: Path, max_tokens: int, seed: int) -> str:
        """Return the model's answer to `instruction`.

        Raises:
            ValueError: no answer, after several attempts where that may help.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self._content(instruction, image)}],
            "max_tokens": max_tokens,
            "seed": seed,
        }
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _text_of(self._post(body))
            except urllib.error.HTTPError as error:
                with error:
                    said = _without_key(error.read(_MOST_READ).decode("utf-8", "replace"))[:_MOST_SHOWN]
                complaint = f"{self.url} answers {error.code} {_without_key(str(error.reason))}: {' '.join(said.split())}"
                if error.code < 500 and error.code != 429:
                    raise ValueError(complaint) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                complaint = f"{self.url} gives no answer: {_without_key(str(error))}"
            if attempt < ATTEMPTS:
                time.sleep(WAIT_SECONDS * attempt)
        raise ValueError(complaint)

    def _content(self, instruction: str, image: Path) -> str | list[dict[str, object]]:
        if not self.sees_images:
            return instruction
        kind = _IMAGE_TYPES.get(image.suffix.lower())
        if kind is None:
            raise ValueError(f"{image.name} cannot be shown to a language model: save it as PNG, JPEG or WebP")
        address = f"data:{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"
        return [{"type": "text", "text": instruction}, {"type": "image_url", "image_url": {"url": address}}]

    def _post(self, body: dict[str, object]) -> object:
        headers = {"Content-Type": "application/json"}
        if key := _key():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))  # no proxy sees the key
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            return json.loads(response.read())


def _text_of(answer: object) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]  # type: ignore[index]
    except (TypeError, KeyError, IndexError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the answer holds no text at choices[0].message.content")
    return text


def _key() -> str:
    """Return the key, "" if there is none. Raises ValueError if no header can carry it; the message does not show it."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(f"{KEY_VARIABLE} holds a letter that no key has, such as a space or a line end: copy the key again")
    return key


def _without_key(text: str) -> str:
    key = _key()
    return text.replace(key, "...") if key else text
