"""The progress of a run in ComfyUI: its bar with previews, the text on the node, and a line in the log for each clip."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.utils
import latent_preview
import torch

from ...svi_core.clips.run_progress import Phase, RunProgress
from ...svi_core.geometry import num_pixel_frames
from .browsers import tell_asker

_PAUSE = 0.25  # seconds between two texts of one phase


class ShownProgress:
    """Shows how far a run is while a ClipSampler makes its clips."""

    def __init__(self, num_steps: int):
        """Show clips of `num_steps` sampler steps."""
        self._num_steps = num_steps
        self.restart(0)

    def restart(self, num_clips: int, node_id: str = "", earlier_seconds: float | None = None) -> None:
        """Start over, for `num_clips` clips; 0 if unknown, to count each clip by itself.

        Args:
            node_id: that shows the text; none if empty.
            earlier_seconds: time of such a clip in earlier runs.
        """
        self._run, self._node_id = RunProgress(num_clips, self._num_steps, earlier_seconds), node_id
        self._bar: comfy.utils.ProgressBar | None = None
        self._shown, self._told, self._told_phase = 0.0, 0.0, None

    @contextmanager
    def told(self, num_clips: int, node_id: str, earlier_seconds: float | None) -> Iterator[None]:
        """Show a run from its start (see :meth:`restart`) to its end, and say what is kept if it is stopped or fails."""
        self.restart(num_clips, node_id, earlier_seconds)
        try:
            yield
        except comfy.model_management.InterruptProcessingException:
            self._tell_end("stopped", f"Stopped: {self._run.kept}.")
            raise
        except BaseException:
            self._tell_end("failed", f"Failed: {self._run.kept}.")
            raise
        self._tell("done", self._run.summary)

    def begin_clip(self, index: int) -> None:
        """Begin the clip `index` (0-based) by reading its prompt."""
        self._run.begin_clip(index)
        self._show()

    def prepare(self) -> None:
        """Show that models are loaded and images encoded."""
        self._run.enter(Phase.PREPARING)
        self._show()

    def sample(self, num_steps: int) -> None:
        """Show that sampling begins."""
        self._run.enter(Phase.SAMPLING, num_steps)
        self._show()

    def callback(self, model):
        """Return a sampler callback that shows a step and a preview made with `model`'s latent format."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def on_step(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
            self._run.advance()
            self._show(preview)

        return on_step

    def decoding(self, latent: torch.Tensor, chunks: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield `chunks` of the frames of a clip's `latent` and show how many there are; others are not counted."""
        if self._run.phase is Phase.PREPARING or latent.shape[2] == 1:  # motion of the clip before, or an image
            yield from chunks
            return
        self._run.enter(Phase.DECODING, num_pixel_frames(latent.shape[2]))
        self._show()
        for chunk in chunks:
            self._run.advance(len(chunk))
            self._show()  # raises if the user cancels, so before the chunk is used
            yield chunk

    def end_clip(self, is_reused: bool) -> None:
        """Show that the clip is done, and log how it was made."""
        logging.info("SVI: %s.", self._run.end_clip(is_reused))
        self._show()

    def _show(self, preview=None) -> None:
        done, total = self._run.work
        self._shown = max(self._shown, done) if total > self._num_steps + 1 else done
        now = time.monotonic()
        if self._run.phase is not self._told_phase or now - self._told > _PAUSE:
            self._told, self._told_phase = now, self._run.phase
            self._tell("running", self._run.text)
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)  # created late, since it attaches to the running node
        self._bar.update_absolute(self._shown, total, preview)

    def _tell_end(self, state: str, text: str) -> None:
        logging.warning("SVI Generate: %s", text)
        self._tell(state, text)

    def _tell(self, state: str, text: str) -> None:
        if self._node_id:
            tell_asker("svi.progress", {"node": self._node_id, "state": state, "text": text})
