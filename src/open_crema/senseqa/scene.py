"""What there is in a room: the world that every sense is a view of.

World coordinates are metres, x right, y ahead, z up; the camera stands near the origin and looks
along y. Camera coordinates are x right, y down, z ahead. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from open_crema.senseqa.sounds import Note

Vector = tuple[float, float, float]
Rgb = tuple[float, float, float]

SIZE = 112  # pixels, width and height
FOCAL = 97.0  # pixels: 60 degrees across
SECONDS = 4.0

# Far enough apart to be named after any light of `Light`; rooms and furniture in sight are greyish.
COLOURS: Mapping[str, Rgb] = {
    "red": (0.80, 0.07, 0.07),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.95, 0.90, 0.10),
    "green": (0.10, 0.58, 0.12),
    "cyan": (0.15, 0.82, 0.85),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.52, 0.10, 0.68),
    "white": (0.97, 0.97, 0.97),
}
SHAPES = ("ball", "cube", "cylinder", "cone", "pyramid", "ring")
FURNITURE = ("table", "chair", "bed", "shelf", "lamp", "sofa")
TILTS: Mapping[str, Vector] = {  # camera coordinates
    "left": (-1.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0),
    "up": (0.0, -1.0, 0.0),
    "down": (0.0, 1.0, 0.0),
}
STILL: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Pattern:
    """How a surface's brightness varies: ``1 + strength * f(p)``, f in [-1, 1].

    kind: "plain", "stripes", "checks", "spots" or "mottled". p: local coordinates of a solid (its
    half sizes are 1), or metres on the room. seed: of directions and phases.
    """

    kind: str = "plain"
    strength: float = 0.0
    scale: float = 1.0
    seed: int = 0


PLAIN = Pattern()


@dataclass(frozen=True)
class Solid:
    """One body of one colour. half: half sizes along its own axes; yaw: its turn around z."""

    kind: str
    centre: Vector
    half: Vector
    yaw: float = 0.0
    colour: Rgb = (0.5, 0.5, 0.5)
    pattern: Pattern = PLAIN


@dataclass(frozen=True)
class Relief:
    """What is too fine for depth (below a millimetre) and shows in the normals alone.

    tilt: the slats that cover a panel face this way (a key of TILTS); bulge: 1 where the round mark
    is raised, -1 where it is sunken, 0 without one.
    """

    tilt: str | None = None
    bulge: int = 0


@dataclass(frozen=True)
class Thing:
    """An object in play; it came into the room after the scan.

    drift: m/s, seen as displacement between key frames. dart: m/s, its velocity at the key frames
    on top of that: it moves to and fro in step with the camera's shutter, once between two frames,
    so that still pictures do not show it (as a strobe makes a fan stand still).
    celsius: its temperature. grounded: whether it stands on the floor and darkens it.
    """

    solid: Solid
    colour: str
    drift: Vector = STILL
    dart: Vector = STILL
    celsius: float = 21.0
    grounded: bool = True
    relief: Relief | None = None

    @property
    def shape(self) -> str:
        return self.solid.kind


@dataclass(frozen=True)
class Fixture:
    """A piece of furniture: it stands still, at the room's temperature, and is in the scan."""

    kind: str
    solids: tuple[Solid, ...]
    colour: str
    place: str


@dataclass(frozen=True)
class Room:
    """A box around the origin: ``|x| <= half_width``, ``-back <= y <= front``, ``0 <= z <= height``
    (metres), with patterns for the floor and the walls."""

    half_width: float
    front: float
    back: float
    height: float
    floor: Rgb
    wall: Rgb
    floor_pattern: Pattern
    wall_pattern: Pattern
    celsius: float


@dataclass(frozen=True)
class Camera:
    """A pinhole. pitch: radians downwards; yaw: to the left. drift: radians/s of yaw, seen between
    key frames; dart: m/s in camera coordinates, turn: radians/s, both as a thing's dart."""

    height: float = 1.5
    pitch: float = 0.15
    yaw: float = 0.0
    drift: float = 0.0
    dart: Vector = STILL
    turn: float = 0.0


@dataclass(frozen=True)
class Light:
    """ambient + (1 - ambient) * cos of the angle to ``towards``, times the tint."""

    towards: Vector
    ambient: float
    tint: Rgb


@dataclass(frozen=True)
class Spot:
    """A warm or cold mark that something left on the floor: degrees above the floor's."""

    x: float
    y: float
    radius: float
    degrees: float


@dataclass(frozen=True)
class Contact:
    """What the touch sensor lies on at a key frame: texture (None: nothing), angle of its ridges
    in radians, and which thing the finger is seen on (None: out of sight)."""

    texture: str | None
    angle: float = 0.0
    thing: int | None = None


@dataclass(frozen=True)
class Scene:
    """All of it. seed: words and numbers that noise and grain are drawn from, so that two scenes
    that differ in one thing differ in nothing else.

    times: seconds of the key frames. contacts, cues: one entry a key frame; cues are the things
    that the video shows sounding.
    """

    seed: tuple[str | int, ...]
    times: tuple[float, ...]
    room: Room
    camera: Camera
    light: Light
    things: tuple[Thing, ...]
    fixtures: tuple[Fixture, ...]
    notes: tuple[Note, ...]
    contacts: tuple[Contact, ...]
    cues: tuple[frozenset[int], ...]
    spots: tuple[Spot, ...] = field(default=())
    grain: float = 3.0  # of the picture, in levels of 255
