"""The servers of a batch: those of the user, or one of our own, of the user's ComfyUI or of the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from batch.demo_environment import demo_environment
from comfyui.client import ComfyClient, RemoteServer, ServerError
from comfyui.environment import PINNED_COMFYUI, REPOSITORY, Environment
from comfyui.server import PACK_NAME, PACK_NODES, ComfyServer

DEMO_MODELS = REPOSITORY / "demo" / "models"


@contextmanager
def open_servers(
    urls: Sequence[str], models: Sequence[Path], folder: Path, say: Callable[[str], None]
) -> Iterator[list[ComfyClient]]:
    """Yield the servers at `urls`; without any, one of our own that is started for the block and keeps its files in `folder`.

    Args:
        say: tells the user of a server that is started, or that does not answer.
        models: see `own_comfyui`.

    Raises:
        ServerError: no server answers, or none can be started; NoEnvironment: nor set up.
    """
    if urls:
        yield _answering(list({server.url: server for server in map(RemoteServer, urls)}.values()), say)
        return
    own = own_comfyui(models)
    hint = " (the demo's; for your own give --server, or set COMFYUI_PATH)" if own.is_demo else ""
    say(f"starting {own.environment.comfyui} on the {own.device()} with the models of {own.models()}{hint}")
    with own.server(folder) as server:
        yield [server]


@dataclass(frozen=True)
class OwnComfyUI:
    """A ComfyUI that the command starts itself, here or on other machines that see the same folders.

    Attributes:
        roots: folders like ComfyUI's ``models``.
        packs: the user's own ``custom_nodes``.
    """

    environment: Environment
    roots: tuple[Path, ...]
    packs: Path | None

    @property
    def is_demo(self) -> bool:
        return self.roots == (DEMO_MODELS,)

    def models(self) -> str:
        """Return the folders of models, for messages."""
        return ", ".join(map(str, self.roots))

    def device(self) -> str:
        """Return GPU or CPU: where it runs on this machine. The demo's models run on the CPU, others as ComfyUI would."""
        return "CPU" if self.is_demo or not _has_accelerator() else "GPU"

    def server(self, folder: Path, arguments: Sequence[str] = ()) -> ComfyServer:
        """Return a server on this machine, not started yet, that keeps its files in `folder`."""
        has_this_pack = self.packs is not None and _holds_this_pack(self.packs)
        return ComfyServer(
            self.environment,
            folder,
            model_roots=self.roots,
            custom_nodes={name: path for name, path in PACK_NODES.items() if name != PACK_NAME or not has_this_pack},
            pack_folder=self.packs,
            on_cpu=self.device() == "CPU",
            arguments=arguments,
        )


def own_comfyui(models: Sequence[Path]) -> OwnComfyUI:
    """Return the ComfyUI of COMFYUI_PATH with its own models and packs, else that of the demo with the demo's models.

    Args:
        models: folders like ComfyUI's ``models``, in place of its own.

    Raises:
        ServerError: a folder of `models` is not there; NoEnvironment: there is no ComfyUI, and none can be set up.
    """
    environment = demo_environment()
    own = environment.comfyui if environment.comfyui != PINNED_COMFYUI else None
    roots = tuple(models) or (own / "models" if own else DEMO_MODELS,)
    for root in roots:
        if not root.is_dir():
            raise ServerError(f"{root} is no folder: let --models name one like ComfyUI's models")
    return OwnComfyUI(environment, tuple(root.absolute() for root in roots), own / "custom_nodes" if own else None)


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
