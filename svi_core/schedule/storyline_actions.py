"""What can happen in a clip, as data: small actions that lead from one pose to another, and what the camera does.

Each clip begins where the one before ended, so an action says what pose it begins and ends in; a story is a walk from
action to action. Texts name no pronoun and no thing that a subject may lack. ``goes/go`` is the verb for one and for several.
"""

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
    """One thing that happens.

    Attributes:
        text: a sentence without its period; ``{subject}`` stands for who or what it is about.
        before: pose at its beginning.
        after: pose at its end.
        role: where it belongs.
    """

    text: str
    before: str
    after: str
    role: Role = Role.MIDDLE

    @property
    def moves(self) -> bool:
        """Whether the subject is under way at the end, so that the camera has something to follow."""
        return self.after == "moving"

    @property
    def names_camera(self) -> bool:
        """Whether the action says where the camera is, which then had better stay there."""
        return "camera" in self.text


def _actions(role: Role, before: str, after: str, *texts: str) -> tuple[Action, ...]:
    return tuple(Action(text, before, after, role) for text in texts)


_PERSON = (
    *_actions(
        Role.OPENING, "standing", "standing",
        "{subject} stands/stand still and looks/look into the distance",
        "{subject} stands/stand still, breathes/breathe in deeply and looks/look up",
    ),
    *_actions(
        Role.MIDDLE, "standing", "standing",
        "{subject} slowly turns/turn the head to the left, then to the right",
        "{subject} raises/raise one hand to shade the eyes and looks/look ahead",
        "{subject} lifts/lift both arms and stretches/stretch",
        "{subject} turns/turn around once on the spot",
        "{subject} laughs/laugh and shakes/shake the head",
        "{subject} points/point ahead with one arm",
    ),
    *_actions(
        Role.MIDDLE, "standing", "moving",
        "{subject} sets/set off and walks/walk forward at an even pace",
        "{subject} starts/start to walk towards the camera with light steps",
        "{subject} turns/turn around and walks/walk away from the camera",
    ),
    *_actions(
        Role.MIDDLE, "moving", "moving",
        "{subject} walks/walk on from left to right and looks/look around",
        "{subject} walks/walk faster and faster with long strides",
        "{subject} starts/start to run with swinging arms",
        "{subject} walks/walk on slowly and glances/glance back over one shoulder",
        "{subject} walks/walk on slowly with lowered eyes",
    ),
    *_actions(
        Role.MIDDLE, "moving", "standing",
        "{subject} slows/slow down, stops/stop and looks/look around",
        "{subject} stops/stop and turns/turn towards the camera",
        "{subject} suddenly stops/stop and looks/look up",
    ),
    *_actions(
        Role.MIDDLE, "standing", "sitting",
        "{subject} sits/sit down and rests/rest both hands on the knees",
        "{subject} slowly sits/sit down and leans/lean back",
    ),
    *_actions(
        Role.MIDDLE, "sitting", "sitting",
        "{subject} stays/stay seated and calmly looks/look around",
        "{subject} closes/close the eyes for a moment, still seated",
        "{subject} leans/lean forward and looks/look at something close by",
    ),
    *_actions(
        Role.MIDDLE, "sitting", "standing",
        "{subject} gets/get up and looks/look ahead",
        "{subject} stands/stand up again and turns/turn to one side",
    ),
    *_actions(
        Role.MIDDLE, "standing", "crouching",
        "{subject} crouches/crouch down and reaches/reach for something on the ground",
        "{subject} kneels/kneel down and looks/look closely at the ground",
    ),
    *_actions(
        Role.MIDDLE, "crouching", "standing",
        "{subject} rises/rise to full height again and smiles/smile",
        "{subject} gets/get back up and looks/look ahead",
    ),
    *_actions(
        Role.ENDING, "standing", "standing",
        "{subject} turns/turn to the camera and smiles/smile",
        "{subject} waves/wave at the camera with one hand",
    ),
    *_actions(
        Role.ENDING, "moving", "moving",
        "{subject} walks/walk away from the camera and grows/grow smaller in the distance",
    ),
    *_actions(Role.ENDING, "sitting", "sitting", "{subject} sits/sit quietly and looks/look into the distance"),
    *_actions(Role.ENDING, "crouching", "crouching", "{subject} stays/stay crouched and looks/look up at the camera"),
)  # fmt: skip

_ANIMAL = (
    *_actions(
        Role.OPENING, "standing", "standing",
        "{subject} stands/stand still and looks/look around attentively",
        "{subject} lifts/lift the head and looks/look into the distance",
    ),
    *_actions(
        Role.MIDDLE, "standing", "standing",
        "{subject} tilts/tilt the head and listens/listen",
        "{subject} turns/turn the head slowly from left to right",
        "{subject} shakes/shake from head to tail",
        "{subject} stretches/stretch and yawns/yawn",
    ),
    *_actions(
        Role.MIDDLE, "standing", "moving",
        "{subject} sets/set off and runs/run forward",
        "{subject} creeps/creep forward, low and slow",
        "{subject} comes/come towards the camera",
        "{subject} turns/turn around and moves/move away from the camera",
    ),
    *_actions(
        Role.MIDDLE, "moving", "moving",
        "{subject} moves/move on from left to right at an even pace",
        "{subject} speeds/speed up and runs/run",
        "{subject} runs/run in a wide circle",
        "{subject} leaps/leap forward and lands/land softly",
        "{subject} moves/move on and looks/look back once",
    ),
    *_actions(
        Role.MIDDLE, "moving", "standing",
        "{subject} slows/slow down and stops/stop",
        "{subject} suddenly stops/stop and listens/listen",
    ),
    *_actions(Role.MIDDLE, "standing", "lying", "{subject} lies/lie down and lowers/lower the head"),
    *_actions(
        Role.MIDDLE, "lying", "lying",
        "{subject} lies/lie still and breathes/breathe calmly",
        "{subject} rolls/roll over onto one side",
    ),
    *_actions(
        Role.MIDDLE, "lying", "standing",
        "{subject} gets/get up and looks/look around",
        "{subject} slowly gets/get up again",
    ),
    *_actions(Role.ENDING, "standing", "standing", "{subject} looks/look straight into the camera"),
    *_actions(
        Role.ENDING, "moving", "moving",
        "{subject} runs/run away from the camera and grows/grow smaller in the distance",
    ),
    *_actions(Role.ENDING, "lying", "lying", "{subject} closes/close the eyes and falls/fall asleep"),
)  # fmt: skip

_VEHICLE = (
    *_actions(
        Role.OPENING, "standing", "standing",
        "{subject} stands/stand still while reflections glide across the surface",
        "{subject} stands/stand still in the middle of the picture",
    ),
    *_actions(
        Role.MIDDLE, "standing", "standing",
        "Lights come on at {subject}, one after the other",
        "{subject} trembles/tremble slightly, ready to leave",
    ),
    *_actions(
        Role.MIDDLE, "standing", "moving",
        "{subject} starts/start to move and slowly gains/gain speed",
        "{subject} sets/set off towards the camera",
        "{subject} sets/set off and leaves/leave the camera behind",
    ),
    *_actions(
        Role.MIDDLE, "moving", "moving",
        "{subject} moves/move on from left to right at an even speed",
        "{subject} speeds/speed up, and the surroundings rush past",
        "{subject} goes/go into a long curve to the left",
        "{subject} goes/go into a long curve to the right",
        "{subject} passes/pass close by the camera",
        "{subject} slows/slow down a little and moves/move on calmly",
    ),
    *_actions(
        Role.MIDDLE, "moving", "standing",
        "{subject} slows/slow down and comes/come to a halt",
        "{subject} brakes/brake hard and stops/stop",
    ),
    *_actions(Role.ENDING, "standing", "standing", "{subject} stands/stand still as the light slowly fades"),
    *_actions(
        Role.ENDING, "moving", "moving",
        "{subject} moves/move away from the camera and grows/grow smaller in the distance",
    ),
)  # fmt: skip

_SCENERY = (
    *_actions(
        Role.OPENING, "day", "day",
        "Clouds drift slowly over {subject}",
        "A light wind moves everything that is loose around {subject}",
    ),
    *_actions(
        Role.MIDDLE, "day", "day",
        "Mist drifts across {subject} and thins out",
        "Light breaks through the clouds and slides over {subject}",
        "A few birds cross the sky above {subject}",
        "The shadows around {subject} slowly grow longer",
    ),
    *_actions(Role.MIDDLE, "day", "rain", "The sky darkens and rain begins to fall on {subject}"),
    *_actions(
        Role.MIDDLE, "rain", "rain",
        "Rain falls in slanting lines on {subject}",
        "A gust of wind drives the rain across {subject}",
    ),
    *_actions(Role.MIDDLE, "rain", "day", "The rain over {subject} ends and light breaks through"),
    *_actions(Role.MIDDLE, "day", "dusk", "The sun sinks and the light on {subject} turns warm"),
    *_actions(Role.MIDDLE, "dusk", "night", "Night falls over {subject} and the first lights come on"),
    *_actions(
        Role.MIDDLE, "night", "night",
        "Stars move slowly across the sky above {subject}",
        "Thin clouds pass the moon above {subject}",
    ),
    *_actions(Role.MIDDLE, "night", "day", "Day breaks and the first light reaches {subject}"),
    *_actions(Role.ENDING, "day", "day", "The clouds open and full light falls on {subject}"),
    *_actions(Role.ENDING, "rain", "rain", "The rain grows softer until single drops fall on {subject}"),
    *_actions(Role.ENDING, "dusk", "dusk", "The last light slowly leaves {subject}"),
    *_actions(Role.ENDING, "night", "night", "The lights around {subject} go out one by one"),
)  # fmt: skip

ACTIONS = {
    SubjectKind.PERSON: _PERSON,
    SubjectKind.ANIMAL: _ANIMAL,
    SubjectKind.VEHICLE: _VEHICLE,
    SubjectKind.SCENERY: _SCENERY,
}

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
