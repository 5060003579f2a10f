"""Motion: procedural clips named after Human3.6M's actions, as joint angles over time.

A clip is a sum of slow sines about a base pose. Each action has a style (arms, legs, trunk); every clip draws its own
numbers from it, and which hand does the work. Walking adds a gait and a path.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from shards.studio.body import BONES

TIME_STEP_S: Final = 0.5
"""Seconds of motion between two frames. Videos say 50 fps, as the real ones do, but are sampled more coarsely here, so
that every frame is worth storing."""

DOFS: Final = (
    *("lean", "side", "turn", "nod", "tilt", "look"),
    *(f"{name}_{hand}" for hand in "ws" for name in ("raise", "spread", "twist", "elbow", "wrist")),
    *(f"{name}_{hand}" for hand in "ws" for name in ("hip", "open", "knee", "roll")),
)
"""Degrees of freedom, in degrees. `w` is the working side, `s` the supporting one; `draw_clip` decides which is left.
lean, side and turn bend the trunk forwards, sidewards, about itself; nod, tilt, look do so with the head; raise lifts
an arm forwards, spread sidewards, twist turns it inwards; hip lifts a thigh forwards, open spreads it, roll turns it
outwards."""

Style = dict[str, tuple[float, float, float]]
"""For some `DOFS`: lowest and highest base angle, and the amplitude about it."""

_STAND: Final[Style] = {
    "lean": (-2, 8, 4), "side": (-4, 4, 3), "turn": (-8, 8, 8), "nod": (-8, 12, 8), "tilt": (-5, 5, 4),
    "look": (-15, 15, 18), "raise_w": (-5, 15, 6), "spread_w": (4, 14, 4), "twist_w": (-10, 25, 8),
    "elbow_w": (8, 30, 8), "wrist_w": (-10, 15, 10), "raise_s": (-5, 15, 6), "spread_s": (4, 14, 4),
    "twist_s": (-10, 25, 8), "elbow_s": (8, 30, 8), "wrist_s": (-10, 15, 10), "hip_w": (-3, 8, 3),
    "open_w": (2, 9, 1), "knee_w": (2, 12, 4), "roll_w": (0, 14, 2), "hip_s": (-3, 8, 3), "open_s": (2, 9, 1),
    "knee_s": (2, 12, 4), "roll_s": (0, 14, 2),
}  # fmt: skip
_SEATED_LEGS: Final[Style] = {
    "hip_w": (76, 90, 2), "hip_s": (76, 90, 2), "knee_w": (68, 98, 4), "knee_s": (68, 98, 4), "open_w": (3, 16, 3),
    "open_s": (3, 16, 3),
}  # fmt: skip
_SEATED: Final[Style] = _SEATED_LEGS | {
    "lean": (2, 22, 7), "raise_w": (15, 50, 10), "raise_s": (15, 45, 8),
    "elbow_w": (30, 80, 15), "elbow_s": (30, 80, 12), "twist_w": (10, 40, 10), "twist_s": (10, 40, 8),
}  # fmt: skip
_GAIT: Final[Style] = {"lean": (0, 8, 2), "elbow_w": (12, 35, 4), "elbow_s": (12, 35, 4), "turn": (-3, 3, 3)}

STYLES: Final[dict[str, Style]] = {
    "Directions": {"raise_w": (30, 85, 28), "spread_w": (10, 60, 25), "elbow_w": (10, 70, 30), "turn": (-15, 15, 15)},
    "Discussion": {
        "raise_w": (15, 50, 22), "elbow_w": (55, 100, 30), "spread_w": (5, 25, 14), "twist_w": (0, 40, 20),
        "raise_s": (10, 45, 18), "elbow_s": (45, 95, 25), "spread_s": (5, 25, 12),
    },
    "Eating": {"raise_w": (35, 60, 18), "elbow_w": (95, 130, 22), "twist_w": (15, 45, 10), "elbow_s": (40, 85, 10)},
    "Greeting": {
        "raise_w": (20, 90, 30), "spread_w": (25, 80, 28), "elbow_w": (30, 95, 30), "lean": (0, 20, 12),
        "raise_s": (0, 40, 15), "elbow_s": (10, 60, 20),
    },
    "Phoning": {"raise_w": (25, 50, 6), "spread_w": (20, 45, 8), "elbow_w": (128, 142, 5), "twist_w": (5, 30, 6),
                "tilt": (-10, 2, 4), "raise_s": (-5, 35, 12), "elbow_s": (10, 80, 16)},
    "Photo": {"raise_w": (55, 80, 8), "elbow_w": (75, 110, 10), "twist_w": (10, 35, 6), "raise_s": (55, 80, 8),
              "elbow_s": (70, 105, 10), "twist_s": (10, 35, 6), "lean": (0, 28, 12), "knee_w": (2, 40, 14),
              "knee_s": (2, 40, 14), "hip_w": (2, 35, 10), "hip_s": (2, 35, 10)},
    "Posing": {"spread_w": (20, 60, 14), "elbow_w": (60, 110, 18), "twist_w": (-30, 50, 10), "turn": (-25, 25, 12),
               "side": (-10, 10, 6), "hip_w": (0, 25, 6), "knee_w": (5, 35, 8), "open_w": (5, 16, 2),
               "raise_s": (-10, 60, 15), "spread_s": (10, 55, 12), "elbow_s": (20, 100, 15)},
    "Purchases": {"lean": (10, 45, 22), "raise_w": (25, 75, 20), "elbow_w": (25, 70, 20), "raise_s": (20, 65, 18),
                  "elbow_s": (25, 75, 20), "knee_w": (5, 35, 12), "knee_s": (5, 35, 12), "hip_w": (5, 30, 8),
                  "hip_s": (5, 30, 8), "nod": (5, 25, 8)},
    "Sitting": _SEATED | {"elbow_w": (40, 110, 22), "look": (-30, 30, 20)},
    "SittingDown": _SEATED | {"lean": (8, 35, 10), "hip_w": (88, 112, 7), "hip_s": (88, 112, 7),
                              "knee_w": (55, 118, 9), "knee_s": (55, 118, 9), "open_w": (5, 26, 4)},
    "Smoking": {"raise_w": (25, 50, 14), "elbow_w": (95, 138, 22), "spread_w": (8, 25, 6), "twist_w": (10, 40, 8),
                "elbow_s": (10, 100, 8), "twist_s": (0, 50, 6)},
    "Waiting": {"turn": (-15, 15, 12), "look": (-30, 30, 28), "elbow_w": (10, 110, 12), "twist_w": (0, 55, 10),
                "elbow_s": (10, 110, 12), "twist_s": (0, 55, 10), "hip_w": (0, 20, 5), "knee_w": (4, 30, 8)},
    "WalkDog": _GAIT | {"raise_w": (20, 60, 14), "elbow_w": (10, 50, 10), "lean": (4, 24, 8), "nod": (5, 25, 8)},
    "Walking": _GAIT,
    "WalkTogether": _GAIT | {"raise_w": (5, 30, 10), "spread_w": (8, 26, 5), "elbow_w": (15, 70, 12),
                             "look": (-35, 35, 15)},
}  # fmt: skip
"""What each action changes in the way one stands."""

ACTIONS: Final = tuple(STYLES)
SEATED_ACTIONS: Final = frozenset({"Sitting", "SittingDown"})
WALKING_ACTIONS: Final = frozenset({"WalkDog", "Walking", "WalkTogether"})
_OFTEN_SEATED: Final = {"Eating": 0.4, "Phoning": 0.3, "Smoking": 0.4, "Waiting": 0.3}
_TRUNK: Final = {"spine_01": 0.4, "spine_02": 0.35, "spine_03": 0.25}


Stance = Literal["standing", "walking", "on a seat", "on the floor"]


@dataclass(frozen=True, eq=False)
class Clip:
    """A motion that any body can do.

    Attributes:
        rotations: `t n 3 3`, each of `body.BONES` relative to its parent, from the canonical pose.
        ground_mm: `t 2`, where the person is, world x and y.
        heading: `t`, radians; 0 faces -y, positive turns to the left.
        stance: what stays at `ground_mm`: the feet of one who stands, else the pelvis.
    """

    rotations: np.ndarray
    ground_mm: np.ndarray
    heading: np.ndarray
    stance: Stance


def draw_clip(rng: np.random.Generator, action: str, frames: int) -> Clip:
    """Draw one clip of an action, one of `ACTIONS`; frames are `TIME_STEP_S` apart."""
    seconds = np.arange(frames) * TIME_STEP_S
    stance = _draw_stance(rng, action)
    style = _STAND | STYLES[action] | (_SEATED_LEGS if stance == "on a seat" and action not in SEATED_ACTIONS else {})
    angles = {name: _wander(rng, seconds, *style[name]) for name in DOFS}
    heading = np.radians(rng.uniform(-180, 180) + _wander(rng, seconds, -1, 1, 12 if "seat" in stance else 28))
    ground = np.tile(rng.uniform(-500, 500, 2), (frames, 1))
    if stance == "walking":
        ground, heading = _walk(rng, seconds, angles)
    elif stance == "on the floor":
        _sit_on_floor(rng, angles)
    left = "w" if rng.random() < 0.5 else "s"
    return Clip(_rotations(angles, heading, left), ground, heading, stance)


def _draw_stance(rng: np.random.Generator, action: str) -> Stance:
    """How the person of a clip is held up."""
    if action in WALKING_ACTIONS:
        return "walking"
    if action == "SittingDown" and rng.random() < 0.5:
        return "on the floor"
    return "on a seat" if action in SEATED_ACTIONS or rng.random() < _OFTEN_SEATED.get(action, 0.0) else "standing"


def _wander(rng: np.random.Generator, seconds: np.ndarray, low: float, high: float, amplitude: float) -> np.ndarray:
    """A base value and three slow sines about it, over time."""
    hertz = rng.uniform(0.08, 0.55, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    shares = rng.dirichlet(np.ones(3))
    waves = np.sin(2 * np.pi * hertz * seconds[:, None] + phases) @ shares
    return rng.uniform(low, high) + 1.3 * amplitude * waves


def _walk(
    rng: np.random.Generator, seconds: np.ndarray, angles: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Put a gait into the angles; return the path `t 2` in mm and the heading in radians, along a circle."""
    hertz = rng.uniform(0.75, 1.0)
    stride = rng.uniform(0.85, 1.1)
    phase = 2 * np.pi * hertz * seconds + rng.uniform(0, 2 * np.pi)
    for side, shift in (("w", 0.0), ("s", np.pi)):
        swing = np.sin(phase + shift)
        angles[f"hip_{side}"] = 6 + 24 * stride * swing
        # The knee folds most while the thigh swings forwards.
        angles[f"knee_{side}"] = 8 + 26 * (1 + np.cos(phase + shift - 0.3)) ** 1.5 / 1.6
        angles[f"raise_{side}"] = angles[f"raise_{side}"] - rng.uniform(12, 24) * swing
    angles["turn"] = angles["turn"] + 6 * np.sin(phase)
    radius, way = rng.uniform(700, 1300), rng.choice([-1.0, 1.0])
    bearing = rng.uniform(0, 2 * np.pi) + way * 1150 * stride * hertz * seconds / radius
    ground = radius * np.stack([np.cos(bearing), np.sin(bearing)], axis=1) + rng.uniform(-250, 250, 2)
    # Facing -y at heading 0, a walk along the tangent (-sin, cos) * way needs this turn.
    return ground, bearing + (np.pi if way > 0 else 0.0)


def _sit_on_floor(rng: np.random.Generator, angles: dict[str, np.ndarray]) -> None:
    """Change seated angles to sitting on the floor, knees up or legs stretched.

    With thighs and shanks of about one length, heels are level with the hips where knee = 2 hip - 180 degrees.
    """
    bent = rng.uniform(0, 1)
    angles["lean"] = 0.4 * angles["lean"]
    for side in "ws":
        # Hands stay above the floor.
        angles[f"raise_{side}"] = angles[f"raise_{side}"] + 30
        share = np.clip(bent + rng.uniform(-0.35, 0.35), 0.05, 1)
        angles[f"hip_{side}"] = 92 + 32 * share + 0.3 * (angles[f"hip_{side}"] - angles[f"hip_{side}"].mean())
        angles[f"knee_{side}"] = 2 * angles[f"hip_{side}"] - 180


def _turn(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Rotations `t 3 3` about a world axis."""
    radians = np.radians(degrees)
    cos, sin = np.cos(radians), np.sin(radians)
    matrices = np.zeros((len(radians), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrices[:, axis, axis] = 1
    matrices[:, i, i] = matrices[:, j, j] = cos
    matrices[:, j, i], matrices[:, i, j] = sin, -sin
    return matrices


def _rotations(angles: dict[str, np.ndarray], heading: np.ndarray, left: str) -> np.ndarray:
    """Angles to rotations `t n 3 3`; `left` says which of the sides `w` and `s` is the person's left."""
    frames = len(heading)
    out = np.tile(np.eye(3), (frames, len(BONES), 1, 1))

    def put(bone: str, rotation: np.ndarray) -> None:
        out[:, BONES.index(bone)] = rotation

    tipped = 0.25 * angles["lean"]
    put("pelvis", _turn(2, np.degrees(heading)) @ _turn(0, tipped))
    for bone, share in _TRUNK.items():
        bend = _turn(0, 0.75 * share * angles["lean"]) @ _turn(1, share * angles["side"])
        put(bone, bend @ _turn(2, share * angles["turn"]))
    for bone in ("neck_01", "head"):
        bend = _turn(0, 0.5 * angles["nod"]) @ _turn(1, 0.5 * angles["tilt"])
        put(bone, bend @ _turn(2, 0.5 * angles["look"]))
    for side in "ws":
        hand, sign = ("l", 1.0) if side == left else ("r", -1.0)
        spread, lift = angles[f"spread_{side}"], angles[f"raise_{side}"]
        # The shoulder girdle follows an arm that goes above the horizontal.
        shrug = 0.35 * np.maximum(0, np.maximum(spread, lift) - 55)
        put(f"clavicle_{hand}", _turn(1, -sign * shrug))
        upper = _turn(1, -sign * (spread - shrug)) @ _turn(0, -lift)
        put(f"upperarm_{hand}", upper @ _turn(2, -sign * angles[f"twist_{side}"]))
        put(f"lowerarm_{hand}", _turn(0, -np.clip(angles[f"elbow_{side}"], 0, 148)))
        put(f"hand_{hand}", _turn(1, sign * angles[f"wrist_{side}"]))
        # Legs stay where they are when the pelvis tips forwards.
        thigh = _turn(1, -sign * angles[f"open_{side}"]) @ _turn(0, -angles[f"hip_{side}"] - tipped)
        put(f"thigh_{hand}", thigh @ _turn(2, sign * angles[f"roll_{side}"]))
        put(f"calf_{hand}", _turn(0, np.clip(angles[f"knee_{side}"], 0, 140)))
        # Soles stay about level: the foot undoes what hip and knee tilt, within its range.
        level = angles[f"hip_{side}"] - np.clip(angles[f"knee_{side}"], 0, 140)
        put(f"foot_{hand}", _turn(0, np.clip(level, -25, 35)))
    return out
