"""The progress of a run: its words, its bar and the time left, by a clock that the test moves."""

import pytest

from svi_core.clips.run_progress import Phase, RunProgress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make_clip(progress, clock, index, step_seconds=10.0, num_steps=4, frame_seconds=0.1):
    """Let the clip take 2 s before its steps, and decode in two chunks; return its line for the log."""
    progress.begin_clip(index)
    progress.enter(Phase.PREPARING)
    clock.now += 2
    progress.enter(Phase.SAMPLING, num_steps)
    for _ in range(num_steps):
        clock.now += step_seconds
        progress.advance()
    progress.enter(Phase.DECODING, 80)
    for _ in range(2):
        clock.now += 40 * frame_seconds
        progress.advance(40)
    return progress.end_clip(is_reused=False)


def test_text_names_clip_phase_and_step(clock):
    progress = RunProgress(5, 8, clock=clock)
    progress.begin_clip(1)
    assert progress.text == "Clip 2 of 5: reading its prompt"
    progress.enter(Phase.PREPARING)
    assert progress.text == "Clip 2 of 5: loading models and images"
    progress.enter(Phase.SAMPLING, 8)
    assert progress.text == "Clip 2 of 5: sampling, step 1 of 8"
    clock.now += 3
    progress.advance()
    assert progress.text == "Clip 2 of 5: sampling, step 2 of 8\n21 s of sampling left"
    for _ in range(7):
        clock.now += 3
        progress.advance()
    progress.enter(Phase.DECODING, 81)
    assert progress.text == "Clip 2 of 5: decoding, frame 0 of 81"
    clock.now += 2
    progress.advance(41)
    assert progress.text == "Clip 2 of 5: decoding, frame 41 of 81\n2.0 s left for this clip"


def test_nothing_is_estimated_before_something_is_measured(clock):
    progress = RunProgress(2, 4, clock=clock)
    progress.begin_clip(0)
    progress.enter(Phase.SAMPLING, 4)
    assert progress.clip_seconds_left is None and progress.seconds_left is None and "left" not in progress.text


def test_a_measured_clip_tells_the_time_left_for_the_run(clock):
    progress = RunProgress(3, 4, clock=clock)
    line = make_clip(progress, clock, 0)
    assert line == "clip 1 of 3 made in 50 s (sampling 40 s, decoding 8.0 s); 1 min 40 s left"
    progress.begin_clip(1)
    progress.enter(Phase.SAMPLING, 4)
    clock.now += 10
    progress.advance()
    assert progress.clip_seconds_left == 30 + 8 and progress.seconds_left == 38 + 50
    assert progress.text.endswith("38 s left for this clip, 1 min 28 s for the run")
    clock.now += 5  # within a step
    assert progress.clip_seconds_left == 33


def test_earlier_runs_tell_the_time_before_the_first_step(clock):
    progress = RunProgress(3, 4, earlier_seconds=60, clock=clock)
    progress.begin_clip(0)
    clock.now += 20
    assert (progress.clip_seconds_left, progress.seconds_left) == (40, 160)


def test_an_expert_that_loads_slowly_does_not_spoil_the_estimate(clock):
    progress = RunProgress(1, 4, clock=clock)
    progress.begin_clip(0)
    progress.enter(Phase.SAMPLING, 4)
    for seconds in (90, 5, 5):
        clock.now += seconds
        progress.advance()
    assert progress.clip_seconds_left is None and "5.0 s of sampling left" in progress.text


def test_the_bar_never_stands_still_or_goes_back(clock):
    progress, seen = RunProgress(2, 4, clock=clock), []
    for index in range(2):
        progress.begin_clip(index)
        progress.enter(Phase.SAMPLING, 4)
        for _ in range(4):
            progress.advance()
            seen.append(progress.work)
        progress.enter(Phase.DECODING, 81)
        for frames in (1, 40, 40):
            progress.advance(frames)
            seen.append(progress.work)
        progress.end_clip(is_reused=False)
    values = [done for done, _ in seen]
    assert values == sorted(set(values)) and seen[-1] == (10, 10) and {total for _, total in seen} == {10}


def test_a_run_without_end_counts_each_clip_by_itself(clock):
    progress = RunProgress(0, 4, clock=clock)
    make_clip(progress, clock, 0)
    progress.begin_clip(6)
    progress.enter(Phase.SAMPLING, 4)
    progress.advance()
    assert progress.work == (1, 5) and progress.text.startswith("Clip 7: sampling, step 2 of 4")
    assert progress.seconds_left is None
    assert progress.kept == "6 clips kept; Run goes on from there"
    progress.begin_clip(1)
    assert progress.kept == "1 clip kept; Run goes on from there"


def test_a_run_that_makes_more_clips_than_expected_counts_on(clock):
    """A live schedule may bring shorter clips, so that more of them fit the final length."""
    progress = RunProgress(2, 4, clock=clock)
    progress.begin_clip(2)
    assert progress.text == "Clip 3 of 3: reading its prompt" and progress.work == (10, 15)


def test_reused_clips_count_neither_as_made_nor_in_the_estimate(clock):
    progress = RunProgress(3, 4, clock=clock)
    progress.begin_clip(0)
    assert progress.end_clip(is_reused=True) == "clip 1 of 3 reused"
    assert progress.seconds_left is None
    make_clip(progress, clock, 1)
    make_clip(progress, clock, 2)
    assert progress.summary == "3 clips: 2 made, 1 reused, in 1 min 40 s."


@pytest.mark.parametrize(
    ("phase", "kept"),
    [(Phase.TEXT, 2), (Phase.PREPARING, 2), (Phase.SAMPLING, 2), (Phase.DECODING, 3), (Phase.WRITING, 3)],
)
def test_a_clip_is_kept_once_it_is_sampled(clock, phase, kept):
    progress = RunProgress(5, 4, clock=clock)
    progress.begin_clip(2)
    progress.enter(phase, 4)
    assert progress.kept == f"{kept} of 5 clips kept; Run goes on from there"


def test_before_a_first_clip_is_sampled_no_number_is_said(clock):
    """Clips of earlier runs may be stored, but none is read yet."""
    progress = RunProgress(5, 4, clock=clock)
    assert progress.kept == "no new clip was made; stored clips are kept"
    progress.begin_clip(0)
    progress.enter(Phase.SAMPLING, 4)
    assert progress.kept == "no new clip was made; stored clips are kept"
