"""Prompts and notes of the workflows; longer notes are the Markdown files of notes/."""

from pathlib import Path

_NOTES = Path(__file__).resolve().parent / "notes"

# Wan's default negative prompts: Chinese for 2.2 and SVI 2.x, English for SVI 1.0.
NEGATIVE_CHINESE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，"
    "背景人很多，倒着走"
)
NEGATIVE_ENGLISH = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall gray, "
    "worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, poorly drawn "
    "faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three legs, many people in "
    "the background, walking backwards"
)
STORY = (
    "A young woman in a pink dress stands on a green hill under a blue sky, her arms spread wide. A warm wind lifts her blonde "
    "hair and the hem of her dress; small clouds drift from left to right. She smiles and slowly turns her face into the sun. "
    "The camera stays still.",
    "The young woman in the pink dress lowers her arms and walks towards the camera through the knee-high grass, brushing it "
    "with her fingertips. Her hair swings with each step. The camera slowly moves back in front of her.",
    "The young woman in the pink dress stops, laughs, and spins around once with open arms; the dress flares out and the "
    "clouds race behind her. The camera circles around her to the left.",
)
SHOT_STORY = (
    STORY[0],
    "The young woman in the pink dress looks up at the clouds, shades her eyes with one hand and waves with the other. Her "
    "hair flutters in the wind. The camera stays still.",
    "The young woman in the pink dress dances on the spot, swaying from side to side with raised arms. The grass waves in the "
    "wind. The camera stays still.",
)

WOMAN = "the young woman in the pink dress"
LONG_STORY = f"""\
# One paragraph is one clip of 5 seconds. Options stand in square brackets above it.
{STORY[0]}

{STORY[1]}

{STORY[2]}

# A cut: the next scene begins with the picture called garden.
[cut, anchor garden]
A garden full of roses in the late afternoon. {WOMAN.capitalize()} walks along the gravel path from left to right and touches \
the flowers. The camera follows her.

[seam eased]
{WOMAN.capitalize()} kneels down beside a rose bush, bends a flower towards her face and closes her eyes. The camera slowly \
moves closer.

# Two clips from one prompt.
[x2]
{WOMAN.capitalize()} sits on a stone bench in the rose garden and looks around, petals drift through the air. The camera stays \
still.

# The last clip ends on the picture called portrait, which is held for one second.
[end portrait, hold 16]
{WOMAN.capitalize()} turns to the camera and smiles. The camera moves close to her face.
"""
DANCE_PROMPT = "the person is dancing"  # what the authors' script says for every clip
TALK_PROMPT = "a person is talking"  # the same
SEQUEL = (
    "The scene goes on: the person turns around and walks away from the camera at an even pace. The camera follows slowly.",
    "The person stops, looks back over the shoulder and smiles. The camera stays still.",
)


def note(name: str) -> str:
    """Return the note `name` in Markdown."""
    return (_NOTES / f"{name}.md").read_text(encoding="utf-8")


def paragraphs(prompts: tuple[str, ...]) -> str:
    """Return one text with one prompt per paragraph."""
    return "\n\n".join(prompts)
