"""What the tree cites can be opened: sections of docs/METHOD.md, the paper, public addresses, and other documents' headings."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHOD = ROOT / "docs/METHOD.md"
SUFFIXES = (".py", ".md", ".js", ".toml")
NOT_OURS = (".runtime", ".git", "__pycache__", "runs", "datasets")
DOCUMENTS = ("README.md", "docs/*.md", "web/docs/*.md", "benchmarks/*.md", "demo/README.md")

PRIVATE_NOTES = re.compile("SVI_SPEC|FIELD_NOTES|COMFYUI_NOTES|BROWSER_AND_FAULTS")  # nobody outside can open them
NUMBER = r"(?:\d+(?:\.\d+)?)(?![\w.]*\w)"
CITED_SECTIONS = re.compile(rf"METHOD\.md,? ({NUMBER}(?: \([^()]*\))?(?:(?:, and|,|;| and| to) {NUMBER}(?: \([^()]*\))?)*)")
SOURCE = re.compile(r"\bSources?: ")
ADDRESS = re.compile(r"https?://\S+\.\S+|arXiv:\d{4}\.\d{4,5}")


def line_of(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def joined(text: str) -> str:
    """Return `text` as one line, without the marks of comments at the beginnings of its lines."""
    return re.sub(r"\s*\n[ \t]*(?:#|//|\*(?!\*))?[ \t]*", " ", text)


def headings(text: str) -> list[str]:
    """Return the headings of a Markdown document, without what looks like one in blocks of code."""
    return re.findall(r"^#+ +(.+?) *$", without_code_blocks(text), re.M)


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def sections_of(text: str) -> set[str]:
    """Return the numbers of the headings of docs/METHOD.md: "3", "3.1", ..."""
    return {heading.split()[0] for heading in headings(text) if re.match(r"\d", heading)}


def cited_sections(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line of each citation of docs/METHOD.md, and the sections that it names, also where it goes on in new lines.

    What a citation says of a section in parentheses may name others: "3 (table; 3.1 to 3.3)".
    """
    for found in re.finditer(r"METHOD\.md", text):
        cited = CITED_SECTIONS.match(joined(text[found.start() : found.start() + 600]))
        for number in re.findall(rf"(?<![\w.]){NUMBER}", re.sub(r"\([^()]*\)", "", cited[1]) if cited else ""):
            yield line_of(text, found.start()), number


def sources(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each `Source:`, up to the end of its paragraph, docstring, string or comment."""
    for found in SOURCE.finditer(text):
        line = text[text.rfind("\n", 0, found.start()) + 1 :]
        rest = text[found.start() :]
        end = r"\n[ \t]*(?!#)" if re.match(r"[^\"']*#", line[: line.find("Source")]) else r'\n[ \t]*\n|"""|\*/'
        yield line_of(text, found.start()), joined(re.split(end, rest, maxsplit=1)[0])


def unknown_sections(text: str, known: set[str]) -> list[str]:
    return [f"{line}: docs/METHOD.md has no section {number}" for line, number in cited_sections(text) if number not in known]


def closed_sources(text: str, labels: tuple[str, ...] = ()) -> list[str]:
    """Return what names nothing that anyone can open: the paper, a section of docs/METHOD.md, or an address.

    `labels` are names that stand for a public source in this document.
    """

    def is_open(source: str) -> bool:
        names_a_section = any(True for _ in cited_sections(source))
        return names_a_section or bool(ADDRESS.search(source)) or any(re.search(rf"\b{label}\b", source) for label in labels)

    return [f'{line}: "{source[:90]}" names nothing to open' for line, source in sources(text) if not is_open(source)]


def private_notes(text: str) -> list[str]:
    return [f"{line_of(text, found.start())}: {found[0]} is not public" for found in PRIVATE_NOTES.finditer(text)]


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a Markdown document."""
    anchors: set[str] = set()
    for heading in headings(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in anchors:
            number += 1
        anchors.add(anchor)
    return anchors | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def broken_links(document: Path) -> list[str]:
    """Return the relative links of a Markdown document whose file, or whose heading, is not there."""
    text, broken = without_code_blocks(document.read_text()), []
    for found in re.finditer(r'\]\(([^)\s]+)[^)]*\)|(?:src|href)="([^"]+)"', text):
        link = found[1] or found[2]
        if re.match(r"[a-z]+:|//", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text())):
            broken.append(f"{document.name}, line {line_of(text, found.start())}: {link} leads nowhere")
    return broken


@cache
def texts() -> dict[Path, str]:
    """Return the text of every file that may cite, but for this one, whose examples are wrong on purpose."""
    paths = []
    for folder, inside, names in os.walk(ROOT):
        inside[:] = [name for name in inside if name not in NOT_OURS]
        paths += [Path(folder, name) for name in names if name.endswith(SUFFIXES)]
    return {path: path.read_text() for path in sorted(paths) if path != Path(__file__).resolve()}


def labels_of_method() -> tuple[str, ...]:
    """Return the labels that docs/METHOD.md, 1.3, gives to its sources."""
    table = METHOD.read_text().split("### 1.3 ", 1)[1].split("\n#", 1)[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("|") and "-|-" not in row][1:]
    return tuple(label.strip() for row in rows for label in row.replace("#n", "").split(","))


def all_problems(check) -> list[str]:
    return [f"{path.relative_to(ROOT)}, line {problem}" for path, text in texts().items() for problem in check(text)]


def test_every_section_of_the_method_that_is_cited_is_there():
    known = sections_of(METHOD.read_text())
    assert {"1.1", "3", "5.1", "9.11"} <= known
    assert sum(len(list(cited_sections(text))) for text in texts().values()) > 150
    assert all_problems(lambda text: unknown_sections(text, known)) == []


def test_every_source_can_be_opened():
    assert sum(len(list(sources(text))) for text in texts().values()) > 60
    labels = labels_of_method()
    assert {"paper", "svi1", "comfy", "Wrapper"} <= set(labels)
    problems = [
        f"{path.relative_to(ROOT)}, line {problem}"
        for path, text in texts().items()
        for problem in closed_sources(text, labels if path == METHOD else ())
    ]
    assert problems == []


def test_nothing_cites_notes_that_are_not_public():
    assert all_problems(private_notes) == []


def test_links_between_documents_lead_somewhere():
    documents = [path for pattern in DOCUMENTS for path in ROOT.glob(pattern)]
    assert len(documents) > 20
    assert [problem for document in documents for problem in broken_links(document)] == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("Source: docs/METHOD.md, 3.3 and 5.1 (what for).", ["3.3", "5.1"]),
        ("# as in docs/METHOD.md, 9.1 (2 errors), 9.5\n# and 9.7 in full", ["9.1", "9.5", "9.7"]),
        ("(docs/METHOD.md, 3.1 to 3.3; 12.4, traps 2, 4 and 10)", ["3.1", "3.3", "12.4"]),
        ("(docs/METHOD.md, 9.11, item 1)", ["9.11"]),
        ('"""Docs/METHOD.md, 7."""', ["7"]),
        ("read docs/METHOD.md first", []),
    ],
)
def test_how_sections_are_read(text, found):
    assert [number for _, number in cited_sections(text)] == found


def test_an_unknown_section_is_found():
    known = sections_of("# The method\n## 3 Layouts\n### 3.3 Pro\n```\n# 4 a comment\n```\n")
    assert known == {"3", "3.3"}
    assert unknown_sections("x\nSource: docs/METHOD.md, 3.3 and\n3.", known) == []
    assert unknown_sections("x\nSource: docs/METHOD.md, 3.3 and\n4.", known) == ["2: docs/METHOD.md has no section 4"]


@pytest.mark.parametrize(
    "source",
    [
        "the Wan 2.1 VAE.",
        "docs/METHOD.md.",
        "ComfyUI's comfy/ops.py; training/erft.py.",
        'a note."""\nLINK = "https://example.org/paper"',
        "a note.\n\nSee https://example.org/paper.",
    ],
)
def test_a_source_that_nobody_can_open_is_found(source):
    assert [problem[:10] for problem in closed_sources(f'"""What it does.\n\nSource: {source}\n"""')] == ['3: "Source']


def test_a_comment_ends_where_code_begins():
    assert closed_sources('x = 1  # Source: a note\nlink = "https://example.org/paper"') != []
    assert closed_sources("# Source: a note,\n# https://example.org/paper\nx = 1") == []


@pytest.mark.parametrize(
    "source",
    [
        "SVI (arXiv:2510.09212), Sec. 4.",
        "docs/METHOD.md, 3.3.",
        "the safetensors format\n(https://github.com/huggingface/safetensors).",
    ],
)
def test_a_source_that_anyone_can_open_is_not(source):
    assert closed_sources(f'"""What it does.\n\nSource: {source}\n"""') == []


def test_labels_count_where_they_are_explained():
    assert closed_sources("Source: svi1 `train.py`:1.", ("svi1",)) == [] != closed_sources("Source: svi1 `train.py`:1.")


@pytest.mark.parametrize("name", ["SVI_SPEC B4", "FIELD_NOTES 3", "COMFYUI_NOTES 5", "BROWSER_AND_FAULTS F11"])
def test_a_note_that_is_not_public_is_found(name):
    assert private_notes(f"x\ny ({name})") == [f"2: {name.split()[0]} is not public"]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Other\n## What `it` is: a page\n## Twice\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#what-it-is-a-page) [c](other.md#twice-1) [d](https://x.org) [e](#page)\n# Page\n"
    )
    assert broken_links(page) == []
    page.write_text('[a](gone.md)\n[b](other.md#gone) ![c](gone.png)\n<img src="gone.jpg">')
    assert [problem.split(": ")[1].split()[0] for problem in broken_links(page)] == [
        "gone.md", "other.md#gone", "gone.png", "gone.jpg"
    ]  # fmt: skip
