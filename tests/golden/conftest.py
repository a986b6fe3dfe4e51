"""The pack as ComfyUI imports it, for tests that follow the loop's own code."""

from tests.nodes.conftest import bridge, pack  # noqa: F401
