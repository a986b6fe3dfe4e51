"""The page's sources: what they show stands in locales/, where translators find it, and no input's link is read itself."""

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((REPOSITORY / "web" / "js").rglob("*.js"))
LANGUAGES = sorted(path.parent.name for path in REPOSITORY.glob("locales/*/main.json"))
PARTS = {"storyboard": "web/js/storyboard/*.js", "clips": "web/js/clip_*.js", "lint": "web/js/schedule_lint.js"}
COMMENT = re.compile(r"/\*.*?\*/|(?<!:)//[^\n]*", re.DOTALL)
LITERAL = re.compile(r"""\"((?:[^"\\\n]|\\.)*)\"|`((?:[^`\\]|\\.)*)`""")
FOR_DEVELOPERS = re.compile(r"console\.\w+\([^\n]*")
SENTENCE = re.compile(r"[A-Za-z]{2,}[,:]? [a-z]{2,}")
NOT_SHOWN = re.compile(r"^(?:svi-|is-|pi pi-|[a-z-]+: )|^[.#\[]|\bvar\(|^(?:input|textarea|button)\b|nodownload noplaybackrate")


def texts(language: str) -> dict[str, dict[str, str]]:
    return json.loads((REPOSITORY / "locales" / language / "main.json").read_text(encoding="utf-8"))["svi"]


def without_comments(path: Path) -> str:
    return COMMENT.sub("", path.read_text(encoding="utf-8"))


def sentences(source: str) -> list[str]:
    """Return the literals of a script that look like words for people."""
    literals = [one or other for one, other in LITERAL.findall(FOR_DEVELOPERS.sub("", source))]
    return [text for text in literals if SENTENCE.search(re.sub(r"\$\{[^}]*\}", "", text)) and not NOT_SHOWN.search(text)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_sentence_stands_in_a_script(path):
    assert sentences(without_comments(path)) == []


def test_a_sentence_in_a_script_is_noticed():
    assert sentences('say("This clip is gone."); console.error("SVI: not there:", 3); make("svi-clip is-set")') == [
        "This clip is gone."
    ]
    assert sentences("say(`Clip ${n} is gone.`)") == ["Clip ${n} is gone."]


DEPRECATED = re.compile(r"\.link\b|\{[^{}]*\blink\b[^{}]*\} = ")  # of an input: getInputLink gives its link


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_reads_the_link_of_an_input_itself(path):
    assert DEPRECATED.findall(without_comments(path)) == []


def test_a_link_that_is_read_is_noticed():
    for source in ("node.inputs?.[slot]?.link;", "const { link } = node.inputs[0];"):
        assert DEPRECATED.search(source)
    assert not DEPRECATED.search('graph.getLink(3); element("link"); node.linkOf(link.origin_id)')


@pytest.mark.parametrize("part", PARTS)
def test_every_text_is_used_and_every_used_text_is_there(part):
    source = "".join(map(without_comments, REPOSITORY.glob(PARTS[part])))
    literals = {one or other for one, other in LITERAL.findall(source)}
    known = texts("en")[part]
    assert not known.keys() - literals, "used nowhere"
    called = set(re.findall(r"\b(?:text|words|act|edit)\(\"(\w+)\"", source))
    assert called and not called - known.keys(), "asked for, but not there"


def differences(translated: dict[str, dict[str, str]]) -> set[str]:
    """Return the texts that a translation lacks, or has beyond English, and those with other values in braces."""
    ours, theirs = (
        {f"{part}.{key}": set(re.findall(r"\{\w+\}", text)) for part, known in parts.items() for key, text in known.items()}
        for parts in (texts("en"), translated)
    )
    return {name for name in ours | theirs if ours.get(name) != theirs.get(name)}


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_a_translation_has_the_texts_of_english_and_their_values(language):
    assert differences(texts(language)) == set()


def test_a_translation_that_lacks_a_text_or_a_value_is_noticed():
    translated = texts("en")
    del translated["clips"]["none"], translated["lint"]
    translated["storyboard"] |= {"cost": "without values", "invented": "of its own"}
    lint = {f"lint.{key}" for key in texts("en")["lint"]}
    assert differences(translated) == {"clips.none", "storyboard.cost", "storyboard.invented", *lint}
