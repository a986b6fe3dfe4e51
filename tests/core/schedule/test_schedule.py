import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svi_core.schedule.live_file import LiveSchedule
from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.spec import ClipSpec, LoraStrength, Paragraph, Schedule
from svi_core.schedule.text import ScheduleError, format_schedule, parse_schedule, parse_story
from svi_core.video.seams import Seam
from tests.work import grows_in_proportion

STORY = """# a story
A woman walks
through a kitchen.

[seed 7, cfg 3.5, lora svi=0.8/1, lora lightx2v=.5]
She opens the window.

[ cut , anchor garden, x2, frames 41, motion 8 ]
The garden.

[hold 16, end portrait]
She smiles [softly].
"""


def test_the_example_reads_as_it_says():
    schedule = parse_schedule(STORY)
    assert [paragraph.repeat for paragraph in schedule.paragraphs] == [1, 1, 2, 1]
    assert [schedule.at(i) for i in range(5)] == [
        ClipSpec("A woman walks through a kitchen."),
        ClipSpec(
            "She opens the window.",
            seed=7,
            cfg=3.5,
            loras=(LoraStrength("svi", 0.8, 1.0), LoraStrength("lightx2v", 0.5, 0.5)),
        ),
        ClipSpec("The garden.", num_frames=41, num_motion_frames=8, anchor="garden", cut=True),
        ClipSpec("The garden.", num_frames=41, num_motion_frames=8, anchor="garden"),
        ClipSpec("She smiles [softly].", anchor="garden", end="portrait", hold=16),
    ]
    assert len(schedule) == 5


def test_after_the_last_clip_its_prompt_and_anchor_hold_on():
    schedule = parse_schedule("[seed 1, cut, anchor a, hold 3, cfg 2]\nlast")
    assert schedule.at(0).seed == 1
    assert schedule.at(9) == ClipSpec("last", anchor="a", cfg=2.0)


def test_plain_prompts_are_a_schedule():
    assert [parse_schedule("a\n\nb").at(i).prompt for i in range(2)] == ["a", "b"]
    assert parse_schedule("[x2]\nb", PromptSplit.LINES).at(0).prompt == "[x2]"
    assert parse_schedule("prompts = [\n# c\n'a', 'b']").at(1).prompt == "b"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("ok\n\n[sede 3]\nx", 3, 2, "option 'sede 3' is not known"),
        ("[seed -1]\nx", 1, 2, "seed is '-1'"),
        ("[cfg 3,  seed 9007199254740992]\nx", 1, 10, "0 to 9007199254740991"),
        ("[frames x]\nx", 1, 2, "frames is 'x'"),
        ("[frames 80]\nx", 1, 2, "4n . 1"),
        ("[x0]\nx", 1, 2, "x is '0'"),
        ("[cfg nan]\nx", 1, 2, "cfg is 'nan'"),
        ("[cfg 1e2]\nx", 1, 2, "cfg is '1e2'"),
        ("[anchor ../up]\nx", 1, 2, "anchor is '../up'"),
        ("[lora svi]\nx", 1, 2, "NAME=STRENGTH"),
        ("[lora svi=11]\nx", 1, 2, "strength is '11'"),
        ("[cut now]\nx", 1, 2, "option 'cut now'"),
        ("[seed 1, seed 2]\nx", 1, 10, "'seed' appears twice"),
        ("a\n\n  [cut]\n\nb", 3, 1, "have no prompt"),
    ],
)
def test_mistakes_are_named_with_line_and_column(text, line, column, words):
    with pytest.raises(ScheduleError, match=words) as error:
        parse_schedule(text)
    assert (error.value.line, error.value.column) == (line, column)
    assert f"line {line}, column {column}" in str(error.value)


@pytest.mark.parametrize("text", ["", " \n# c\n\n", "[]"])
def test_no_prompt_is_refused(text):
    with pytest.raises(ValueError, match="no prompt"):
        parse_schedule(text)


def test_ten_thousand_clips_and_no_more():
    assert len(parse_schedule("\n\n".join(f"clip {i}" for i in range(10_000)))) == 10_000
    with pytest.raises(ValueError, match="10002 clips"):
        parse_schedule("[x10000]\na\n\n[x2]\nb")


NAMES = st.text(string.ascii_letters + string.digits + "_-.", min_size=1, max_size=8)
STRENGTHS = st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 6))
WORDS = st.text(string.ascii_letters + "äöü文,;=/'\"!", min_size=1, max_size=8)
SPECS = st.builds(
    ClipSpec,
    prompt=st.lists(WORDS, min_size=1, max_size=6).map(" ".join),
    seed=st.none() | st.integers(0, 2**53 - 1),
    num_frames=st.none() | st.integers(2, 250).map(lambda n: 4 * n + 1),
    num_motion_frames=st.none() | st.integers(1, 80),
    cfg=st.none() | st.floats(0, 100, allow_nan=False),
    anchor=st.none() | NAMES,
    end=st.none() | NAMES,
    loras=st.lists(st.builds(LoraStrength, NAMES, STRENGTHS, STRENGTHS), max_size=3).map(tuple),
    cut=st.booleans(),
    seam=st.none() | st.sampled_from(list(Seam)),
    hold=st.integers(0, 100),
)


def test_a_seam_holds_for_all_clips_of_its_paragraph():
    schedule = parse_schedule("a\n\n[seam eased, x2]\nb\n\nc")
    assert [schedule.at(i).seam for i in range(4)] == [None, Seam.EASED, Seam.EASED, None]
    with pytest.raises(ValueError, match="line 1, column 2: seam is 'soft': write seam drop, seam linear, seam eased"):
        parse_schedule("[seam soft]\na")


@given(st.lists(st.builds(Paragraph, SPECS, st.integers(1, 4)), min_size=1, max_size=5))
def test_text_and_schedule_round_trip(paragraphs):
    schedule = Schedule(tuple(paragraphs))
    text = format_schedule(schedule)
    assert parse_schedule(text) == schedule
    assert format_schedule(parse_schedule(text)) == text


def test_a_live_schedule_is_read_again_and_survives_mistakes(tmp_path, caplog):
    path = tmp_path / "schedule ü.txt"
    path.write_text("\ufeffone\n\ntwo", encoding="utf-8")
    live = LiveSchedule(path)
    assert (live.at(0).prompt, live.at(1).prompt, len(live)) == ("one", "two", 2)
    path.write_text("one\n\n[seed 5]\nanother", encoding="utf-8")
    assert live.at(1) == ClipSpec("another", seed=5)
    for broken in (b"[sede 5]\nx", b"\xff\xfe", b""):
        path.write_bytes(broken)
        assert live.at(1) == ClipSpec("another", seed=5)
    path.unlink()
    assert live.at(1).prompt == "another" and caplog.text.count("continuing with the last valid schedule") == 4


def test_a_live_schedule_keeps_out_what_the_run_cannot_do(tmp_path, caplog):
    path = tmp_path / "s.txt"
    path.write_text("one")
    live = LiveSchedule(path)

    def require(index, spec):
        if spec.anchor == "nowhere":
            raise ValueError("no such anchor")

    path.write_text("[anchor nowhere]\ntwo")
    assert live.at(0, require).prompt == "one" and "no such anchor" in caplog.text
    path.write_text("[anchor here]\nthree")
    assert live.at(0, require).prompt == "three" and live.snapshot().at(0).prompt == "three"


def test_prompts_that_mean_something_else_in_a_paragraph_cannot_be_written_there():
    for prompt in ("# no", "two\nlines", "two\n\nparagraphs", " space", "---"):
        with pytest.raises(ValueError, match="reword"):
            format_schedule(Schedule((Paragraph(ClipSpec(prompt)),)))
    with pytest.raises(ValueError, match="the prompt '# aaa.*reword") as caught:
        format_schedule(Schedule((Paragraph(ClipSpec("# " + "a" * 10_000)),)))
    assert len(str(caught.value)) < 400


GUARDED = ["[x2]", "[seed 7] a cat", "a cat [seed 7]", "['hi'] she says", "prompts = ['a']", "#1 racing car", "【x2】 cats"]


@pytest.mark.parametrize("prompt", GUARDED)
def test_below_empty_brackets_all_is_prompt(prompt):
    assert format_schedule(Schedule((Paragraph(ClipSpec(prompt)),))) == f"[]\n{prompt}\n"
    for text in (f"[]\n{prompt}", f"[ ]\n{prompt}\n\nlast", f"[seed 3]\n[]\n{prompt}"):
        assert parse_schedule(text).at(0).prompt == prompt
    schedule = Schedule((Paragraph(ClipSpec(prompt, seed=3), 2), Paragraph(ClipSpec(prompt))))
    assert parse_schedule(format_schedule(schedule)) == schedule


def test_prompts_that_would_become_a_numbered_list_cannot_be_written():
    with pytest.raises(ValueError, match="numbered list"):
        format_schedule(Schedule((Paragraph(ClipSpec("1. a")), Paragraph(ClipSpec("2. b")))))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("[seed 7] a cat", ClipSpec("a cat", seed=7)),
        ("[seed 7, cut] a cat\nwalks", ClipSpec("a cat walks", seed=7, cut=True)),
        ("[seed 7] [cfg 2]\n[hold 3] a [red] cat", ClipSpec("a [red] cat", seed=7, cfg=2.0, hold=3)),
        ("[seed 7]\n[cut]\na cat", ClipSpec("a cat", seed=7, cut=True)),
        ("[Seed 7, SEAM Eased] a cat", ClipSpec("a cat", seed=7, seam=Seam.EASED)),
        ("a cat [seed 7]", ClipSpec("a cat", seed=7)),
        ("a cat\nwalks\n[seed 7]\n# why\n[end b]", ClipSpec("a cat walks", seed=7, end="b")),
        ("[cut] a cat [hold 3]", ClipSpec("a cat", cut=True, hold=3)),
        ("［seed 7］ a cat", ClipSpec("a cat", seed=7)),
        ("【seed ７，cfg ２．５】\n一只猫，在走", ClipSpec("一只猫，在走", seed=7, cfg=2.5)),
        ("\u200b[seed 7]\u200b\na cat", ClipSpec("a cat", seed=7)),
        ("\ufeff\ufeff[seed 7] a cat", ClipSpec("a cat", seed=7)),
    ],
)
def test_options_may_stand_anywhere_around_the_prompt(text, spec):
    assert parse_schedule(text).paragraphs == (Paragraph(spec),)


@pytest.mark.parametrize(
    "prompt",
    [
        "[a red ball] rolls", "[softly] she smiles", "She smiles [softly].", "She smiles [softly]", "[motion blur] a train",
        "[hold hands] two people", "【标题】一只猫", "［红］ 的猫", "[Cut to black] the end", "she says [cut] and leaves",
        "[2 cats] play", "2 dogs run", "1980s Paris", "1. a cat", "3. Oktober", "OPEN | 24h", "[end of the day] a man",
        "a-b --- c", "(seed 7) a cat", "\u200bghost", "naïve\u200dcafé",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["{}", "{}\n\nlast", "first\n\n{}", "[cut]\n{}"])
def test_what_was_a_prompt_before_is_the_same_prompt(prompt, text):
    assert prompt in parse_schedule(text.format(prompt)).prompts


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("[seed 7, sede 3] a cat", 1, 10, "option 'sede 3' is not known.* write \\[\\] in the line above it"),
        ("[seed -1] a cat", 1, 2, "seed is '-1'"),
        ("a\n\nb\n[seed=7]", 4, 2, "option 'seed=7'"),
        ("[seed 7] a cat [seed 8]", 1, 17, "'seed' appears twice"),
        ("a cat [cut]", 1, 7, "stand at its end: write them above the prompt"),
        ("a cat\n[seam eased]", 2, 1, "stand at its end"),
        ("[seed 1]\na cat\n[seed 2]\na dog", 3, 1, "inside a prompt: write a blank line above them"),
        ("a cat\n[cut]\na dog", 2, 1, "inside a prompt"),
        ("a cat [seed 7] walks", 1, 7, "inside a prompt"),
        ("#1 racing car", 1, 1, "'#1 racing car' may be a comment, a number or the prompt"),
        ("a\n\n  #2: dogs\nrun", 3, 3, "may be a comment"),
    ],
)
def test_what_is_not_clear_is_named_with_line_and_column(text, line, column, words):
    with pytest.raises(ScheduleError, match=words) as error:
        parse_schedule(text)
    assert (error.value.line, error.value.column) == (line, column)


def test_the_longest_list_is_ten_thousand_prompts_too():
    for text, split in (
        ("a\n" * 10_001, PromptSplit.LINES),
        ("|".join("a" * 10_001), PromptSplit.BARS),
        (str(["a"] * 10_001), PromptSplit.PARAGRAPHS),
    ):
        with pytest.raises(ValueError, match="asks for 10001 clips: at most 10000"):
            parse_schedule(text, split)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "a cat " + "[lora a=1] " * n,
        lambda n: "[lora a=1] " * n + "a cat",
        lambda n: f"[{'lora a=1,' * n}]\na cat",
        lambda n: f"[{', '.join(f'lora {number}=1' for number in range(n))}]\na",
        lambda n: "[]\n" + "#1 a\n" * n,
        lambda n: "a\n" * n,
    ],
    ids=["behind", "before", "together", "different", "verbatim", "lines"],
)
def test_long_texts_take_work_in_proportion(make):
    assert len(parse_schedule(make(20_000))) == 1
    assert grows_in_proportion(parse_schedule, make)


def test_a_live_schedule_must_start_sound(tmp_path):
    with pytest.raises(ValueError, match="the schedule file .*gone.txt cannot be read"):
        LiveSchedule(tmp_path / "gone.txt")
    (tmp_path / "live.txt").write_text("# only a comment")
    with pytest.raises(ValueError, match=r"the schedule file .*live\.txt: the prompt stream holds no prompt"):
        LiveSchedule(tmp_path / "live.txt")


def test_a_live_file_that_turns_into_a_pipe_or_something_huge_keeps_the_schedule_and_holds_up_nobody(tmp_path, caplog):
    path = tmp_path / "live.txt"
    path.write_bytes("ein Kätzchen".encode("utf-16"))
    live = LiveSchedule(path)
    assert live.at(0).prompt == "ein Kätzchen"
    path.unlink()
    os.mkfifo(path)
    assert live.at(0).prompt == "ein Kätzchen" and "live.txt is a pipe or a device" in caplog.text
    path.unlink()
    with path.open("wb") as file:
        file.truncate(60 << 20)
    assert live.at(0).prompt == "ein Kätzchen" and "live.txt is larger than 16 MiB" in caplog.text


@pytest.mark.parametrize("option", ["seed ", "cfg ", "lora ", "hold ", "x", ""])
def test_a_value_of_thousands_of_digits_is_quoted_in_part_and_the_fix_whole(option):
    with pytest.raises(ScheduleError, match="^schedule, line 1, column 2: .*(write|use) .*[^9]$") as caught:
        parse_schedule(f"[{option}{'9' * 5000}]\na cat")
    assert len(str(caught.value)) < 450


def test_half_a_surrogate_pair_in_a_prompt_list_is_refused():
    with pytest.raises(ValueError, match=r"^the prompt list, line 2, column 4: '\\ud800' is half a character"):
        parse_schedule('prompts = [\n "a\ud800"]')
    with pytest.raises(ValueError, match=r"item 2 of the prompt list, line 1, column 3: '\\ud800' is half a character"):
        parse_schedule('prompts = ["a cat", "a \\ud800 dog"]')


def test_an_empty_list_of_texts_holds_no_prompt():
    with pytest.raises(ValueError, match="holds no prompt"):
        parse_story([], PromptSplit.PARAGRAPHS)


def test_a_codec_is_no_number_of_clips():
    assert parse_schedule("a film [x264 codec]").prompts == ["a film [x264 codec]"]
