"""What the user sees of a batch while it runs."""

import io

from batch import progress
from batch.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_stories_count_by_their_clips_and_the_time_left_follows(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress({"long": 6, "short": 2}, num_ready=3, stream=io.StringIO(), _started=0.0)
    shown.begin("long", "http://a")
    now[0] = 30.0
    shown.advance("long", 0.5)
    assert shown.share() == 3 / 8
    shown.end("long", "done")
    assert shown.share() == 6 / 8
    assert shown.stream.getvalue() == "[svi] 4 of 5  long: done  about 0:00:10 left\n"
    shown.begin("short", "http://a")
    shown.drop("short")
    shown.advance("short", 0.5)  # it went back
    assert shown.share() == 6 / 8


def test_a_terminal_has_one_line_that_messages_do_not_break(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    long = "another story with a long name"
    shown = Progress({"a": 1, long: 1}, stream=Terminal(), _shown=-9.0)
    shown.begin("a", "http://a")
    shown.begin(long, "http://b")
    shown.advance("a", 0.25)
    shown.show()
    shown.show()  # too soon
    shown.say("hello")
    text = shown.stream.getvalue()
    assert text.count("\r") == 1 and " 12%  0 of 2 stories" in text and "a 25%" in text
    assert text.endswith("\x1b[K\n[svi] hello\n") and len(text.split("\x1b")[0]) == 60
