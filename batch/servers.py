"""The servers of a batch: those of the user, or one of our own, of the user's ComfyUI or of the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from batch.demo_environment import demo_environment
from comfyui.client import ComfyClient, RemoteServer, ServerError
from comfyui.environment import PINNED_COMFYUI, REPOSITORY
from comfyui.server import PACK_NAME, PACK_NODES, ComfyServer

DEMO_MODELS = REPOSITORY / "demo" / "models"


@contextmanager
def open_servers(
    urls: Sequence[str], models: Sequence[Path], folder: Path, say: Callable[[str], None]
) -> Iterator[list[ComfyClient]]:
    """Yield the servers at `urls`; without any, one that is started for the block and keeps its files in `folder`.

    It runs the ComfyUI of COMFYUI_PATH with its own models and packs, else that of the demo with the demo's models. The
    demo's models run on the CPU, all others where ComfyUI would run them.

    Args:
        say: tells the user of a server that is started, or that does not answer.
        models: folders like ComfyUI's ``models``, for a server of our own, in place of its own.

    Raises:
        ServerError: no server answers, or none can be started; NoEnvironment: nor set up.
    """
    if urls:
        yield _answering(list({server.url: server for server in map(RemoteServer, urls)}.values()), say)
        return
    environment = demo_environment()
    own = environment.comfyui if environment.comfyui != PINNED_COMFYUI else None
    roots = list(models) or [own / "models" if own else DEMO_MODELS]
    for root in roots:
        if not root.is_dir():
            raise ServerError(f"{root} is no folder: let --models name one like ComfyUI's models")
    on_cpu = roots == [DEMO_MODELS] or not _has_accelerator()
    packs = own / "custom_nodes" if own else None
    nodes = {name: path for name, path in PACK_NODES.items() if name != PACK_NAME or not (packs and _holds_this_pack(packs))}
    device, shown = "CPU" if on_cpu else "GPU", ", ".join(map(str, roots))
    hint = " (the demo's; for your own give --server, or set COMFYUI_PATH)" if roots == [DEMO_MODELS] else ""
    say(f"starting {environment.comfyui} on the {device} with the models of {shown}{hint}")
    with ComfyServer(environment, folder, model_roots=roots, custom_nodes=nodes, pack_folder=packs, on_cpu=on_cpu) as server:
        yield [server]


def _has_accelerator() -> bool:
    """Whether PyTorch has a device on which ComfyUI starts without ``--cpu``."""
    import torch

    has_xpu = hasattr(torch, "xpu") and torch.xpu.is_available()
    return torch.cuda.is_available() or torch.backends.mps.is_available() or has_xpu


def _holds_this_pack(packs: Path) -> bool:
    """Whether this pack is installed in a ``custom_nodes`` folder, under whatever name."""
    return any((pack / "svi_core").is_dir() for pack in packs.glob("*/") if not pack.name.endswith(".disabled"))


def _answering(servers: Sequence[RemoteServer], say: Callable[[str], None]) -> list[ComfyClient]:
    """Return the servers that answer, and tell of the others."""
    found: list[ComfyClient] = []
    for server in servers:
        try:
            server.get_json("/system_stats", timeout=30)
            found.append(server)
        except (OSError, ValueError, HTTPException) as error:
            say(f"no ComfyUI answers at {server.url} ({error}); going on without it")
    if not found:
        raise ServerError("no ComfyUI answers: start one, or correct --server")
    return found
