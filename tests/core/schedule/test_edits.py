"""Edits of a schedule's text: what is meant, and not one letter more."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svi_core.schedule import edits
from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.spec import ClipSpec, LoraStrength
from svi_core.schedule.text import ScheduleError, parse_schedule
from svi_core.schedule.written import read_written

KEY = "ab12cd34ef56" + "0" * 52
STORY = """# my story

A woman walks through a sunlit kitchen.

[seed 7, cfg 3.5]
She opens the window
# not the door
and looks out. The wind moves the curtain.


---
# the garden
[ cut ,anchor garden,  lora svi=0.8/1.0, x3 ]
  The garden in the evening.
# the end
"""


def change(text, edit, clip, split=PromptSplit.PARAGRAPHS, is_new=False):
    return edits.edited(text, split, edit, clip, is_new).text


@pytest.mark.parametrize(
    ("edit", "clip", "changed"),
    [
        (edits.set_prompt(0, "A man."), 0, ("A woman walks through a sunlit kitchen.", "A man.")),
        (edits.set_option(1, "cfg", "5"), 1, ("cfg 3.5]", "cfg 5]")),
        (edits.set_option(1, "seed", None), 1, ("[seed 7, cfg 3.5]", "[cfg 3.5]")),
        (edits.set_option(1, "hold", "16"), 1, ("cfg 3.5]", "cfg 3.5, hold 16]")),
        (edits.set_option(0, "cut", ""), 0, ("A woman", "[cut]\nA woman")),
        (edits.pin(1, KEY), 1, ("cfg 3.5]", "cfg 3.5, take ab12cd34ef56]")),
        (
            edits.set_prompt(1, "She leaves.\n\n  Now.  "),
            1,
            (
                "She opens the window\n# not the door\nand looks out. The wind moves the curtain.",
                "# not the door\nShe leaves.\nNow.",
            ),
        ),
        (edits.duplicate(0), 0, ("kitchen.\n", "kitchen.\n\nA woman walks through a sunlit kitchen.\n")),
        (edits.delete(0), 0, ("A woman walks through a sunlit kitchen.\n\n", "")),
        (edits.delete(4), 4, (", x3 ]", ", x2]")),
        (edits.insert(1, "Rain.", "hold 4"), 1, ("kitchen.\n", "kitchen.\n\n[hold 4]\nRain.\n")),
        (edits.insert(0, "Rain."), 0, ("A woman", "Rain.\n\nA woman")),
        (
            edits.split_clip(1),
            1,
            (
                "She opens the window\n# not the door\nand looks out. The wind moves the curtain.",
                "# not the door\nShe opens the window and looks out.\n\n[cfg 3.5]\nThe wind moves the curtain.",
            ),
        ),
    ],
)
def test_only_what_an_edit_is_about_changes(edit, clip, changed):
    before, after = changed
    assert STORY.count(before) == 1
    expected = STORY.replace(before, after)
    if "x2]" in after:  # a paragraph of three clips that loses one is written for two
        expected = expected.replace(
            "[ cut ,anchor garden,  lora svi=0.8/1.0, x2]\n  The", "[cut, anchor garden, lora svi=0.8/1.0, x2]\nThe"
        )
    assert change(STORY, edit, clip) == expected


def test_a_move_takes_a_paragraph_with_its_comments_and_leaves_what_is_between():
    text = "a\n\n# two\n[seed 7]\nb\n\n---\n\nc\n"
    assert change(text, edits.move(1, 2), 1) == "a\n\nc\n\n---\n\n# two\n[seed 7]\nb\n"
    assert change(text, edits.move(2, 0), 2) == "c\n\na\n\n---\n\n# two\n[seed 7]\nb\n"


def test_a_clip_of_a_repeated_paragraph_is_edited_alone():
    after = change("[seed 3, hold 4, x3]\na cat", edits.set_prompt(1, "a dog"), 1)
    assert after == "[seed 3]\na cat\n\na dog\n\n[hold 4]\na cat"


def test_a_clip_beyond_the_text_is_written_out():
    assert change("a", edits.set_option(2, "cut", ""), 2) == "a\n\na\n\n[cut]\na\n"
    assert change("a", edits.insert(1, "b"), 1, is_new=True) == "a\n\nb\n"
    assert change("a\n", edits.insert(3, "b"), 3, is_new=True) == "a\n\n[x2]\na\n\nb\n"


@pytest.mark.parametrize("text", ["\ufeffa\r\n\r\n[cut]\r\nb\r\n\r\nc", "a\u2029[cut]\vb\f\x85c"])
def test_line_ends_stay_as_they_are(text):
    after = change(text, edits.set_prompt(0, "x"), 0)
    assert after == text.replace("a", "x", 1)
    assert change(text, edits.set_option(1, "cut", None), 1).replace("x", "a").count("cut") == 0


@pytest.mark.parametrize(
    ("text", "split", "edit", "clip", "expected"),
    [
        ("a\n# no\nb\nc\n", "lines", edits.set_prompt(1, "x  y"), 1, "a\n# no\nx y\nc\n"),
        ("a\nb\nc\n", "lines", edits.move(2, 0), 2, "c\na\nb\n"),
        ("1. a\n2. b\n3. c", "lines", edits.delete(0), 0, "1. b\n2. c"),
        ("a | b |c", "bars", edits.insert(1, "x"), 1, "a | x | b |c"),
        ("a | b |c", "bars", edits.delete(2), 2, "a | b"),
        ('prompts = [\n  "ä",  # one\n  "b",\n]\n', "paragraphs", edits.set_prompt(1, "it's"), 1,
         'prompts = [\n  "ä",  # one\n  "it\'s",\n]\n'),
        ('["a", "b"]', "paragraphs", edits.duplicate(1), 1, '["a", "b", "b"]'),
        ("1. a cat\n2. a dog", "paragraphs", edits.insert(1, "a cow"), 1, "1. a cat\n2. a cow\n3. a dog"),
        ("Clip 1:\na cat\n\nClip 2:\na dog\n", "paragraphs", edits.duplicate(0), 0,
         "Clip 1:\na cat\n\nClip 2:\na cat\n\nClip 3:\na dog\n"),
    ],
)  # fmt: skip
def test_lists_of_every_form_keep_it(text, split, edit, clip, expected):
    assert change(text, edit, clip, PromptSplit(split)) == expected


def test_words_that_look_like_options_stay_words():
    for prompt in ("[cut] she cuts", "[seed 7]", "1. one", "a\n# b", "prompts = ['a']", "#1 racing car"):
        after = parse_schedule(change("a cat\n\nb", edits.set_prompt(1, prompt), 1))
        assert after.at(1) == ClipSpec(" ".join(prompt.split())) and after.at(0).prompt == "a cat"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: change("a", edits.set_prompt(0, " \n"), 0), "the prompt is empty"),
        (lambda: change("a", edits.delete(0), 0), "this is the only clip"),
        (lambda: change("a", edits.set_prompt(0, "# b"), 0), "'# b' would be read as something else, since a line"),
        (lambda: change("a", edits.set_prompt(0, "---"), 0), "'---' would be read as something else"),
        (lambda: change("a\n\nb", edits.move(0, 2), 0), "to is 2: the clips are 0 to 1"),
        (lambda: change("a b", edits.split_clip(0, 0), 0), "at is 0, an end of the prompt"),
        (lambda: change("a", edits.set_option(0, "sede", "3"), 0), "option 'sede 3' is not known"),
        (lambda: change("a", edits.set_option(0, "sede", None), 0), "option 'sede' is not known"),
        (lambda: change("a", edits.set_option(0, "x", "3"), 0), "option x is about a whole paragraph"),
        (lambda: change("a", edits.insert(0, "b", "x3"), 0), "option x is about a whole paragraph"),
        (lambda: change("a", edits.set_option(0, "cfg", "high"), 0), "cfg is 'high'"),
        (lambda: change("a", edits.pin(0, "../ab"), 0), "key is '../ab'"),
        (lambda: change("a", edits.reroll(0, -1), 0), "seed is '-1'"),
        (lambda: change("a\nb", edits.set_option(0, "cut", ""), 0, PromptSplit.LINES), "plain prompts, which takes no options"),
        (lambda: change("a", edits.set_prompt(0, "b | c"), 0, PromptSplit.BARS), "would be read as something else"),
        (
            lambda: change("[x9999]\na", edits.insert(0, "b"), 0) and change("[x10000]\na", edits.insert(0, "b"), 0),
            "10001 clips",
        ),
    ],
)
def test_what_no_text_can_hold_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mistake_elsewhere_in_the_text_is_named():
    with pytest.raises(ScheduleError, match="line 3, column 2: option 'sede 3'"):
        change("a\n\n[sede 3]\nb", edits.set_prompt(0, "c"), 0)


def test_plain_prompts_become_paragraphs():
    made = edits.as_paragraphs("a\n# no\nb", PromptSplit.LINES)
    assert (made.text, made.split) == ("a\n\nb\n", PromptSplit.PARAGRAPHS)


def test_the_changed_part_is_named():
    made = edits.edited(STORY, PromptSplit.PARAGRAPHS, edits.set_option(1, "seed", "123"), 1)
    assert (made.text[made.start : made.stop], made.clip) == ("123", 1) or made.text[: made.start].endswith("[seed ")
    assert edits.changed_span("aa", "aaa") == (2, 3) and edits.changed_span("aaa", "aa") == (2, 2)


OPTIONS = st.sampled_from(
    ("cut", "cfg 2.5", "seed 3", "hold 4", "anchor garden", "end b", "frames 9", "lora svi=1/0.5", "lora other=2",
     "seam linear", "take ab12cd34", "motion 5")
)  # fmt: skip
WORDS = st.sampled_from(
    ("a cat", "She looks up.  Then down.", "[a red ball] rolls", "one, two", "x2 y", "a [ball]", "Regen fällt.")
)


@st.composite
def paragraphs(draw):
    """One paragraph of any form: options above, before or behind, comments, several lines, repeated."""
    options = list(
        {
            option.split()[0] if "lora" not in option else option: option for option in draw(st.lists(OPTIONS, max_size=4))
        }.values()
    )
    repeat = draw(st.sampled_from((1, 1, 1, 2, 3)))
    options += [f"x{repeat}"] if repeat > 1 else []
    comma = draw(st.sampled_from((", ", ",", " , ")))
    brackets = draw(st.sampled_from(("[{}]", "[ {} ]", "【{}】"))).format(comma.join(options)) if options else ""
    lines = draw(st.lists(WORDS, min_size=1, max_size=2))
    form = draw(st.sampled_from(("above", "before", "behind")))
    if form == "behind" and not {"cut", "seam linear"} & set(options):
        lines[-1] += f" {brackets}" if options else ""
    elif form == "before" and options:
        lines[0] = f"{brackets} {lines[0]}"
    elif options:
        lines.insert(0, brackets)
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), "# a comment")
    return "\n".join(lines)


GAPS = st.sampled_from(("\n\n", "\n\n\n", "\n---\n", "\n\n# chapter\n\n", "\n \n"))


@st.composite
def texts(draw):
    parts = draw(st.lists(paragraphs(), min_size=1, max_size=5))
    text = draw(st.sampled_from(("", "# title\n\n", "\n"))) + parts[0]
    for part in parts[1:]:
        text += draw(GAPS) + part
    text += draw(st.sampled_from(("", "\n", "\n\n")))
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def own_specs(schedule):
    return [spec for paragraph in schedule.paragraphs for spec in paragraph.clips()]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts(), st.data())
def test_any_edit_of_any_text_gives_the_meant_clips_and_keeps_all_other_letters(text, data):
    """An independent reading of what each edit means, and of which paragraphs it may touch."""
    before = parse_schedule(text)
    specs = own_specs(before)
    clip = data.draw(st.integers(0, len(specs) - 1), "clip")
    spec, meant = specs[clip], list(specs)
    kind = data.draw(
        st.sampled_from(("prompt", "option", "remove", "insert", "duplicate", "delete", "split", "move", "pin", "reroll"))
    )
    touched = {clip}
    if kind == "prompt":
        prompt = data.draw(WORDS)
        edit, meant[clip] = edits.set_prompt(clip, prompt), replace(spec, prompt=" ".join(prompt.split()))
    elif kind == "option":
        name, value, new = data.draw(st.sampled_from((
            ("cfg", "7", {"cfg": 7.0}), ("hold", "9", {"hold": 9}), ("cut", "", {"cut": True}), ("end", "z", {"end": "z"}),
            ("lora svi", "0.5", {"loras": (*(x for x in spec.loras if x.name != "svi"), LoraStrength("svi", 0.5, 0.5))}),
        )))  # fmt: skip
        edit, meant[clip] = edits.set_option(clip, name, value), replace(spec, **new)
    elif kind == "remove":
        name, new = data.draw(st.sampled_from((("cfg", {"cfg": None}), ("seed", {"seed": None}), ("lora svi", {
            "loras": tuple(lora for lora in spec.loras if lora.name != "svi")}))))  # fmt: skip
        edit, meant[clip] = edits.set_option(clip, name, None), replace(spec, **new)
    elif kind == "insert":
        edit, touched = edits.insert(clip, "new", "cut, cfg 2"), {clip - 1, clip}
        meant.insert(clip, ClipSpec("new", cut=True, cfg=2.0))
    elif kind == "duplicate":
        edit = edits.duplicate(clip)
        meant.insert(clip + 1, replace(spec, seed=None, cut=False, take=None))
    elif kind == "delete":
        if len(specs) == 1:
            return
        edit, _ = edits.delete(clip), meant.pop(clip)
    elif kind == "split":
        edit = edits.split_clip(clip, 1)
        halves = spec.prompt[:1], spec.prompt[1:].strip()
        meant[clip : clip + 1] = [
            replace(spec, prompt=halves[0], end=None, hold=0, take=None),
            replace(spec, prompt=halves[1], seed=None, cut=False, anchor=None, take=None),
        ]
    elif kind == "move":
        to = data.draw(st.integers(0, len(specs) - 1))
        edit, touched = edits.move(clip, to), {clip, to, to - 1, to + 1}
        meant.insert(to, meant.pop(clip))
    elif kind == "pin":
        edit, meant[clip] = edits.pin(clip, KEY), replace(spec, take=KEY[:12])
    else:
        edit, meant[clip] = edits.reroll(clip, 99), replace(spec, seed=99, take=None)
    made = edits.edited(text, PromptSplit.PARAGRAPHS, edit, clip).text
    after = own_specs(parse_schedule(made))

    def loras_by_name(spec):
        return replace(spec, loras=tuple(sorted(spec.loras, key=lambda lora: lora.name)))

    assert [replace(spec, anchor=None) for spec in map(loras_by_name, after)] == [
        replace(spec, anchor=None) for spec in map(loras_by_name, meant)
    ]
    assert [spec.anchor for spec in after] == [spec.anchor for spec in meant]
    written, position = read_written(text, PromptSplit.PARAGRAPHS), 0
    for unit, paragraph in zip(written.units, before.paragraphs, strict=True):
        if not touched & set(range(position, position + paragraph.repeat)):
            assert unit.text in made
        position += paragraph.repeat
    for comment in ("# title", "# chapter"):
        assert made.count(comment) == text.count(comment)


@pytest.mark.parametrize(
    ("before", "new", "expected"),
    [
        ("a\r\n\r\nb\r\n", "a\n\nb\n", "a\r\n\r\nb\r\n"),
        ("a\r\n\r\nb", "a\n\nx\ny", "a\r\n\r\nx\r\ny"),
        ("a\r\n\nb\r\nc", "a\n\nb\nd", "a\r\n\nb\r\nd"),  # of both kinds: what is not edited stays
        ("a\rb", "a\nb\nc", "a\rb\rc"),
        ("a\r\nb", "", ""),
        ("", "a\nb", "a\nb"),
        ("a\nb", "a\nc", "a\nc"),
        ("a\r\nb", "a\r\nc", "a\r\nc"),
    ],
)
def test_a_field_of_the_browser_changes_no_line_ends(before, new, expected):
    assert edits.with_line_ends_of(before, new) == expected
