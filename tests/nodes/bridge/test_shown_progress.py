"""What pages and log are told while a run goes on, and when it is stopped or fails."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def told(bridge, monkeypatch):
    """What the pages are told, and the values of ComfyUI's progress bar."""
    module, seen = sys.modules[f"{bridge.__name__}.shown_progress"], SimpleNamespace(texts=[], bar=[])
    monkeypatch.setattr(module, "tell_asker", lambda event, news: seen.texts.append((event, news["state"], news["text"])))
    bar = SimpleNamespace(update_absolute=lambda value, total, preview: seen.bar.append((value, total)))
    monkeypatch.setattr(module.comfy.utils, "ProgressBar", lambda total: bar)
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    return seen


@pytest.fixture
def progress(bridge, told):
    return sys.modules[f"{bridge.__name__}.shown_progress"].ShownProgress(2)


MODEL = SimpleNamespace(load_device=torch.device("cpu"), model=SimpleNamespace(latent_format=None))


def make_clip(progress, index, monkeypatch=None):
    progress.begin_clip(index)
    progress.prepare()
    progress.sample(2)
    on_step = progress.callback(MODEL)
    for step in range(2):
        on_step(step, None, None, 2)
    chunks = progress.decoding(torch.zeros(1, 16, 3, 2, 2), iter([torch.zeros(1, 2, 2, 3), torch.zeros(8, 2, 2, 3)]))
    assert [len(chunk) for chunk in chunks] == [1, 8]
    progress.end_clip(is_reused=False)


@pytest.fixture(autouse=True)
def no_previews(bridge, monkeypatch):
    module = sys.modules[f"{bridge.__name__}.shown_progress"]
    monkeypatch.setattr(module.latent_preview, "get_previewer", lambda device, latent_format: None)


def test_the_page_is_told_every_phase_and_the_log_has_a_line_for_each_clip(progress, told, caplog):
    with caplog.at_level(logging.INFO), progress.told(2, "7", None):
        make_clip(progress, 0)
        make_clip(progress, 1)
    assert {event for event, _, _ in told.texts} == {"svi.progress"}
    first = [text.split("\n")[0] for _, state, text in told.texts if state == "running" and text.startswith("Clip 1")]
    assert list(dict.fromkeys(first)) == [
        "Clip 1 of 2: reading its prompt",
        "Clip 1 of 2: loading models and images",
        "Clip 1 of 2: sampling, step 1 of 2",
        "Clip 1 of 2: sampling, step 2 of 2",
        "Clip 1 of 2: decoding, frame 0 of 9",
        "Clip 1 of 2: decoding, frame 1 of 9",
        "Clip 1 of 2: decoding, frame 9 of 9",
        "Clip 1 of 2: writing",
    ]
    assert told.texts[-1][1:] == ("done", told.texts[-1][2]) and told.texts[-1][2].startswith("2 clips: 2 made, in ")
    lines = [record.message for record in caplog.records if record.message.startswith("SVI: clip")]
    assert [line.split(" made")[0] for line in lines] == ["SVI: clip 1 of 2", "SVI: clip 2 of 2"]
    values = [value for value, _ in told.bar]
    assert values == sorted(values) and told.bar[-1] == (6, 6) and any(value % 1 for value in values), "moves while decoding"


def test_cancel_says_what_is_kept(progress, told):
    import comfy.model_management

    stopped = comfy.model_management.InterruptProcessingException
    with pytest.raises(stopped), progress.told(5, "7", None):
        make_clip(progress, 0)
        make_clip(progress, 1)
        progress.begin_clip(2)
        progress.sample(2)
        raise stopped()
    assert told.texts[-1][1:] == ("stopped", "Stopped: 2 of 5 clips kept; Run goes on from there.")


def test_a_failure_says_what_is_kept(progress, told):
    with pytest.raises(ValueError, match="NaN"), progress.told(5, "7", None):
        make_clip(progress, 0)
        raise ValueError("NaN")
    assert told.texts[-1][1:] == ("failed", "Failed: 1 of 5 clips kept; Run goes on from there.")


def test_decoding_for_the_next_clip_or_of_an_image_is_not_the_clips_own(progress, told):
    progress.restart(2, "7")
    progress.begin_clip(1)
    progress.prepare()
    list(progress.decoding(torch.zeros(1, 16, 3, 2, 2), iter([torch.zeros(9, 2, 2, 3)])))
    progress.sample(2)
    list(progress.decoding(torch.zeros(1, 16, 1, 2, 2), iter([torch.zeros(1, 2, 2, 3)])))
    assert not any("decoding" in text for _, _, text in told.texts)


def test_without_a_node_nothing_is_told(progress, told):
    progress.restart(0)
    make_clip(progress, 0)
    assert told.texts == [] and told.bar[-1] == (3, 3)
