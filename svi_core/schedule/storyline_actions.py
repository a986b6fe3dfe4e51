"""What can happen in a clip, as data: small actions that lead from one pose to another, and camera moves.

Each clip begins in the pose that the clip before ended in, so a story is a walk from action to action. Texts use no pronoun and
name nothing that a subject may lack. ``goes/go`` is the verb for one subject and for several.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class SubjectKind(StrEnum):
    """What a story is about; it decides which actions make sense."""

    PERSON = "person"
    ANIMAL = "animal"
    VEHICLE = "vehicle"
    SCENERY = "scenery"


class Role(StrEnum):
    """Where in a story an action belongs."""

    OPENING = "opening"
    MIDDLE = "middle"
    ENDING = "ending"


@dataclass(frozen=True)
class Action:
    """One action of a subject.

    Attributes:
        text: a sentence without its period; ``{subject}`` stands for the subject.
        before: pose at its beginning.
        after: pose at its end.
        role: where in a story it belongs.
    """

    text: str
    before: str
    after: str
    role: Role


def _actions(table: str) -> tuple[Action, ...]:
    """Return the actions of lines ``role before after: text | text``; a text without ``{subject}`` begins with it."""
    actions: list[Action] = []
    for entry in re.split(r"\n(?=\w)", table.strip()):
        head, _, texts = entry.partition(": ")
        role, before, after = head.split()
        for text in texts.split("|"):
            text = " ".join(text.split())
            actions.append(Action(text if "{subject}" in text else f"{{subject}} {text}", before, after, Role(role)))
    return tuple(actions)


_TABLES = {
    SubjectKind.PERSON: """
opening standing standing: stands/stand still and looks/look into the distance
    | stands/stand still, breathes/breathe in deeply and looks/look up
middle standing standing: slowly turns/turn the head to the left, then to the right
    | raises/raise one hand to shade the eyes and looks/look ahead | lifts/lift both arms and stretches/stretch
    | turns/turn around once on the spot | laughs/laugh and shakes/shake the head | points/point ahead with one arm
middle standing moving: sets/set off and walks/walk forward at an even pace
    | starts/start to walk towards the camera with light steps | turns/turn around and walks/walk away from the camera
middle moving moving: walks/walk on from left to right and looks/look around | walks/walk faster and faster with long strides
    | starts/start to run with swinging arms | walks/walk on slowly and glances/glance back over one shoulder
    | walks/walk on slowly with lowered eyes
middle moving standing: slows/slow down, stops/stop and looks/look around | stops/stop and turns/turn towards the camera
    | suddenly stops/stop and looks/look up
middle standing sitting: sits/sit down and rests/rest both hands on the knees | slowly sits/sit down and leans/lean back
middle sitting sitting: stays/stay seated and calmly looks/look around | closes/close the eyes for a moment, still seated
    | leans/lean forward and looks/look at something close by
middle sitting standing: gets/get up and looks/look ahead | stands/stand up again and turns/turn to one side
middle standing crouching: crouches/crouch down and reaches/reach for something on the ground
    | kneels/kneel down and looks/look closely at the ground
middle crouching standing: rises/rise to full height again and smiles/smile | gets/get back up and looks/look ahead
ending standing standing: turns/turn to the camera and smiles/smile | waves/wave at the camera with one hand
ending moving moving: walks/walk away from the camera and grows/grow smaller in the distance
ending sitting sitting: sits/sit quietly and looks/look into the distance
ending crouching crouching: stays/stay crouched and looks/look up at the camera
""",
    SubjectKind.ANIMAL: """
opening standing standing: stands/stand still and looks/look around attentively
    | lifts/lift the head and looks/look into the distance
middle standing standing: tilts/tilt the head and listens/listen | turns/turn the head slowly from left to right
    | shakes/shake from head to tail | stretches/stretch and yawns/yawn
middle standing moving: sets/set off and runs/run forward | creeps/creep forward, low and slow | comes/come towards the camera
    | turns/turn around and moves/move away from the camera
middle moving moving: moves/move on from left to right at an even pace | speeds/speed up and runs/run
    | runs/run in a wide circle | leaps/leap forward and lands/land softly | moves/move on and looks/look back once
middle moving standing: slows/slow down and stops/stop | suddenly stops/stop and listens/listen
middle standing lying: lies/lie down and lowers/lower the head
middle lying lying: lies/lie still and breathes/breathe calmly | rolls/roll over onto one side
middle lying standing: gets/get up and looks/look around | slowly gets/get up again
ending standing standing: looks/look straight into the camera
ending moving moving: runs/run away from the camera and grows/grow smaller in the distance
ending lying lying: closes/close the eyes and falls/fall asleep
""",
    SubjectKind.VEHICLE: """
opening standing standing: stands/stand still while reflections glide across the surface
    | stands/stand still in the middle of the picture
middle standing standing: Lights come on at {subject}, one after the other | trembles/tremble slightly, ready to leave
middle standing moving: starts/start to move and slowly gains/gain speed | sets/set off towards the camera
    | sets/set off and leaves/leave the camera behind
middle moving moving: moves/move on from left to right at an even speed | speeds/speed up, and the surroundings rush past
    | goes/go into a long curve to the left | goes/go into a long curve to the right | passes/pass close by the camera
    | slows/slow down a little and moves/move on calmly
middle moving standing: slows/slow down and comes/come to a halt | brakes/brake hard and stops/stop
ending standing standing: stands/stand still as the light slowly fades
ending moving moving: moves/move away from the camera and grows/grow smaller in the distance
""",
    SubjectKind.SCENERY: """
opening day day: Clouds drift slowly over {subject} | A light wind moves everything that is loose around {subject}
middle day day: Mist drifts across {subject} and thins out | Light breaks through the clouds and slides over {subject}
    | A few birds cross the sky above {subject} | The shadows around {subject} slowly grow longer
middle day rain: The sky darkens and rain begins to fall on {subject}
middle rain rain: Rain falls in slanting lines on {subject} | A gust of wind drives the rain across {subject}
middle rain day: The rain over {subject} ends and light breaks through
middle day dusk: The sun sinks and the light on {subject} turns warm
middle dusk night: Night falls over {subject} and the first lights come on
middle night night: Stars move slowly across the sky above {subject} | Thin clouds pass the moon above {subject}
middle night day: Day breaks and the first light reaches {subject}
ending day day: The clouds open and full light falls on {subject}
ending rain rain: The rain grows softer until single drops fall on {subject}
ending dusk dusk: The last light slowly leaves {subject}
ending night night: The lights around {subject} go out one by one
""",
}
ACTIONS = {kind: _actions(table) for kind, table in _TABLES.items()}

STILL_CAMERA = "The camera stays still."
CAMERA_AT_REST = (  # for a subject that stays where it is
    STILL_CAMERA,
    "The camera slowly moves closer.",
    "The camera slowly moves back and shows more of the surroundings.",
    "The camera circles slowly to the left.",
    "The camera circles slowly to the right.",
    "The camera rises slowly.",
)
CAMERA_FOLLOWING = (  # for a subject that goes somewhere
    "The camera follows from behind.",
    "The camera moves alongside at the same speed.",
    "The camera pans with the movement.",
    "The camera moves back in front at the same speed.",
)
