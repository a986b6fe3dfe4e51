"""The campaigns themselves: seeds give the same examples, failures say how to repeat them, and nothing checked is a failure."""

import itertools
import os
import signal
import time
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st

import tests.fuzz.__main__ as fuzz
import tests.kill.__main__ as kill
from tests.fuzz.campaign import Campaign, TookTooLongError, require_sentence
from tests.kill.campaign import Cost, Kills, measure

NUMBERS = st.integers(0, 10**6)
ONE_BATCH = Campaign(seed=3, seconds=0, batches=1)


def examples_of(campaign: Campaign) -> list[int]:
    seen: list[int] = []
    campaign.run("numbers", NUMBERS, lambda number: seen.append(number) or "seen", {"seen"}, batch=50)
    return seen


def test_examples_follow_from_the_seed_alone():
    assert examples_of(ONE_BATCH) == examples_of(ONE_BATCH) != examples_of(Campaign(seed=4, seconds=0, batches=1))
    assert len(examples_of(ONE_BATCH)) == 50


def fails_at_a_million(number: int) -> str:
    assert number < 900_000, "too large"
    return "fine"


def test_a_failure_is_made_small_and_says_how_to_repeat_it():
    with pytest.raises(AssertionError, match="too large") as caught:
        Campaign(seed=5, seconds=60).run("numbers", NUMBERS, fails_at_a_million, {"fine"})
    notes = " ".join(caught.value.__notes__)
    assert "900000" in notes
    words = notes.split("To repeat it: python -m tests.fuzz numbers --seed ")[1].split()
    assert words[1:] == ["--batches", "1"]
    with pytest.raises(AssertionError, match="too large"):
        Campaign(seed=int(words[0]), seconds=0, batches=1).run("numbers", NUMBERS, fails_at_a_million, {"fine"})


def test_a_slow_machine_checks_fewer_examples_and_still_enough(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tests.fuzz.campaign.time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(number: int) -> str:
        now[0] += 4
        return "fine"

    assert Campaign(seed=1, seconds=0).run("numbers", NUMBERS, slow, {"fine"}, at_least=12) == 12
    assert Campaign(seed=1, seconds=62).run("numbers", NUMBERS, slow, {"fine"}, at_least=12) == 16


def test_a_campaign_that_sees_one_kind_of_outcome_fails():
    with pytest.raises(AssertionError, match="no example was {'read'}, only {'refused': 30}"):
        Campaign(seed=1, seconds=0).run("numbers", NUMBERS, lambda number: "refused", {"read", "refused"})


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs an alarm, which this system does not have")
def test_an_example_without_end_fails():
    def hangs(number: int) -> str:
        try:
            time.sleep(60)
        except Exception:
            return "hidden"
        return "fine"

    with pytest.raises(TookTooLongError, match="over 0.2 s"):
        ONE_BATCH.run("numbers", NUMBERS, hangs, {"fine"}, limit=0.2, shrinks=False)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    "error",
    [KeyError("a"), TypeError("is wrong"), ValueError(""), ValueError("a " * 400), UnicodeError("is wrong"),
     AssertionError("no no"), RecursionError("too deep"), ValueError("another file is damaged")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_is_no_sentence_is_noticed(error):
    with pytest.raises(AssertionError):
        require_sentence(error, "my.json")
    require_sentence(ValueError("my.json is damaged: write it again."), "my.json")
    require_sentence(OSError(28, "No space left: free space", "my.json"), "my.json")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system does not have")
@pytest.mark.parametrize("by_time", [False, True])
def test_kills_stop_the_work_in_the_middle_and_a_failed_round_says_how_to_repeat_it(tmp_path, by_time):
    path = tmp_path / "steps"

    def work() -> None:
        for step in itertools.count():  # it never ends by itself, however slow the machine
            path.write_text(str(step))
            os.replace(path, path)

    left: list[str] = []
    rounds = Kills(7, 0.0, 4, by_time)

    def check(chance) -> None:
        path.write_text("none")
        rounds.kill(work, chance, Cost(0.4, 40))
        left.append(path.read_text())

    rounds.each_round("run", check)
    assert sum(rounds.num_killed) == 4
    if not by_time:
        assert len(set(left)) > 1 and set(left) <= {"none", "", *map(str, range(20))}
    with pytest.raises(ZeroDivisionError) as caught:
        rounds.each_round("run", lambda chance: 1 / 0)
    assert caught.value.__notes__ == [
        f"To repeat it: python -m tests.kill run --seed 7 --rounds 1{'' if by_time else ' --commits-only'}"
    ]


def test_a_write_is_a_moment_that_may_be_half_done(tmp_path):
    """Two moments of the child: it writes ten letters, and is killed in the middle or with what is not flushed."""
    path = tmp_path / "letters"

    def work() -> None:
        with path.open("a") as file:
            file.write("abcdefghij")

    assert measure(work).moments == 1 and path.read_text() == "abcdefghij"
    left = set()
    for seed in range(8):
        path.unlink()
        Kills(seed, 0.0, 1, by_time=False).kill(work, Random(seed), Cost(0.0, 1))
        left.add(path.read_text())
    assert left == {"abcde", ""}


def test_rounds_without_a_kill_fail():
    with pytest.raises(AssertionError, match="nothing was killed"):
        Kills(1, 0.0, 2, False).each_round("run", lambda chance: None)


@pytest.fixture
def started(monkeypatch):
    """What a command would start, instead of starting it."""
    calls: list[list[str]] = []
    for command in (fuzz, kill):
        monkeypatch.setattr(command, "ensure_environment", lambda extras: None)
        monkeypatch.setattr(command, "execute_inside", lambda environment, arguments: calls.append(arguments))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return calls


def test_the_commands_pass_seed_and_budget_on(started):
    fuzz.main(["panel", "--seed", "21", "--batches", "1"])
    assert started[-1][-1].endswith("tests/fuzz/test_panel.py") and os.environ["SVI_FUZZ_SEED"] == "21"
    assert os.environ["SVI_FUZZ_BATCHES"] == "1"
    fuzz.main(["--minutes", "30"])
    assert len(started[-1]) == 6 + len(fuzz.FAMILIES) and os.environ["SVI_FUZZ_MINUTES"] == "30.0"
    kill.main(["--minutes", "9", "--seed", "5"])
    assert (os.environ["SVI_KILL_SEED"], os.environ["SVI_KILL_MINUTES"], os.environ["SVI_KILL_ROUNDS"]) == ("5", "3.0", "1")
    kill.main(["training", "--rounds", "1"])
    assert started[-1][-1].endswith("tests/kill/test_training.py") and os.environ["SVI_KILL_MINUTES"] == "0.0"


@pytest.mark.parametrize(("command", "word"), [(fuzz, "family"), (kill, "kind")])
def test_the_commands_refuse_what_does_not_exist(command, word, capsys):
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert f"there is no {word} 'nonsense': choose from" in capsys.readouterr().err


@pytest.mark.parametrize("command", [fuzz, kill])
@pytest.mark.parametrize("value", ["-1", "0"])
def test_the_commands_refuse_to_examine_nothing(command, value, capsys):
    """`--batches -1` passed with 0 examples."""
    for option in ("--minutes", "--batches" if command is fuzz else "--rounds"):
        with pytest.raises(SystemExit):
            command.main([option, value])
        assert f"{option} is {value}, which " in capsys.readouterr().err


def test_every_family_says_what_it_is_called():
    for family in fuzz.FAMILIES:
        text = (fuzz.FOLDER / f"test_{family}.py").read_text(encoding="utf-8")
        assert f'campaign.run("{family}"' in text, family
