"""What the server tells every open page: web/js/messages.js shows notices, web/js/run_status.js how far a run is.

event svi.notice     {"severity": "info" or "warn", "summary": node, "detail": text}
event svi.progress   {"node": id, "state": "running", "done", "stopped" or "failed", "text": two lines}
"""

import logging
import sys


def running_server():
    """Return ComfyUI's running server, or None outside of one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def tell_pages(event: str, news: dict) -> None:
    """Send `news` to every connected browser."""
    if server := running_server():
        server.send_sync(event, news)


def inform(node: str, text: str) -> None:
    """Say in log and page what a user may want to know."""
    logging.info("%s: %s", node, text)
    tell_pages("svi.notice", {"severity": "info", "summary": node, "detail": text})


def warn(node: str, text: str) -> None:
    """Warn in log and page."""
    logging.warning("%s: %s", node, text)
    tell_pages("svi.notice", {"severity": "warn", "summary": node, "detail": text})
