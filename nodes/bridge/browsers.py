"""What the server tells pages: web/js/messages.js shows notices, web/js/run_status.js how far a run is.

Both go to the page that queued the run; to all pages if a script did, which has none.

event svi.notice     {"severity": "info" or "warn", "summary": node, "detail": text}
event svi.progress   {"node": id, "state": "running", "done", "stopped" or "failed", "text": two lines, at the end one}
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


def tell_asker(event: str, news: dict) -> None:
    """Send `news` to the page that queued what is running, or to all pages if no page did."""
    if server := running_server():
        server.send_sync(event, news, server.client_id)


def inform(node: str, text: str) -> None:
    """Say in log and page what a user may want to know."""
    logging.info("%s: %s", node, text)
    tell_asker("svi.notice", {"severity": "info", "summary": node, "detail": text})


def warn(node: str, text: str) -> None:
    """Warn in log and page."""
    logging.warning("%s: %s", node, text)
    tell_asker("svi.notice", {"severity": "warn", "summary": node, "detail": text})
