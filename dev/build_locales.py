"""Write the English locale, the source of all translations, from the node schemas.

    python -m dev.environment --extra test --run -m dev.build_locales [http://127.0.0.1:8188]

The address is that of a running ComfyUI with this pack; without it, one is started. A test checks that the committed file is
up to date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from dev.environment import REPOSITORY
from dev.object_info import read_object_info

PACK_PREFIX = "SVI"
NODE_DEFINITIONS = REPOSITORY / "locales" / "en" / "nodeDefs.json"
_SPECIAL = re.compile(r"[{}@|$]")  # special characters of the front end's message format (vue-i18n)


def node_definitions(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of nodeDefs.json: name, description, inputs and outputs of every node of this pack."""
    return {
        node_id: _node(definition)
        for node_id, definition in sorted(object_info.items())
        if node_id.startswith(PACK_PREFIX) and definition["python_module"].startswith("custom_nodes.")
    }


def _node(definition: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {
        name: _texts(name, (spec[1] if len(spec) > 1 else {}).get("tooltip"))
        for kind in ("required", "optional")
        for name, spec in definition["input"].get(kind, {}).items()
    }
    outputs = {
        str(index): _texts(name, tooltip)
        for index, (name, tooltip) in enumerate(zip(definition["output_name"], definition["output_tooltips"], strict=True))
    }
    return {
        "display_name": _plain(definition["display_name"]),
        "description": _plain(definition["description"]),
        "inputs": inputs,
        "outputs": outputs,
    }


def _texts(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": _plain(name), **({"tooltip": _plain(tooltip)} if tooltip else {})}


def _plain(text: str) -> str:
    """Return `text`. Raises ValueError for a special character: one renderer reads it as format, the other shows its escape."""
    if special := _SPECIAL.search(text):
        raise ValueError(f"{special[0]!r} has a meaning in the front end's message format: say it in words in {text!r}")
    return text


def main(url: str | None = None) -> None:
    """Write the English locale from the node definitions of the ComfyUI at `url`."""
    definitions = node_definitions(read_object_info(url))
    NODE_DEFINITIONS.write_text(json.dumps(definitions, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
