"""Script of the demo films: actors, actions, backgrounds, light and camera, as data, and their labels."""

from dataclasses import dataclass

from pipelines.films.people import PEOPLE

OBJECTS = {
    "cup": "red coffee cup",
    "shuttle": "toy space shuttle",
    "ball": "striped ball",
    "suitcase": "blue suitcase",
    "plant": "potted plant",
}


@dataclass(frozen=True)
class Actor:
    """A person or object in a shot. Positions are in pixels of the plate; it moves from `start` to `end` during the shot."""

    id: str  # key of PEOPLE or THINGS
    start: tuple[
        float, float, float
    ]  # x of the middle, y of the lower edge, size (height of an object, brows to chin of a person)
    end: tuple[float, float, float]
    outfit: str = ""  # "": the person's first
    lift: float = 0.0  # height in the middle of the shot, px
    rolls: bool = False  # the ball: rolls without slipping

    @property
    def human(self) -> bool:
        """Return whether it is one of PEOPLE."""
        return self.id in PEOPLE

    @property
    def outfit_name(self) -> str:
        """Return the outfit; "" for an object."""
        return (self.outfit or PEOPLE[self.id].coats[0][0]) if self.human else ""

    def position_at(self, progress: float) -> tuple[float, float, float]:
        """Return x, y and size at a fraction of the shot."""
        x, y, size = (a + (b - a) * progress for a, b in zip(self.start, self.end, strict=True))
        return x, y, size


View = tuple[float, float, float]  # camera's view of the plate: x and y of the middle, width, px


@dataclass(frozen=True)
class Shot:
    """A background, a light, a camera that moves from one view to another, and actors, farthest first."""

    seconds: float
    place: str
    light: str
    start: View
    end: View
    actors: tuple[Actor, ...]
    transition: str = "cut"  # transition to the next shot: cut, dissolve or fade

    @property
    def camera(self) -> str:
        """Return the camera motion: "static", "pan" or "zoom"."""
        return "static" if self.start == self.end else "zoom" if self.start[2] != self.end[2] else "pan"


@dataclass(frozen=True)
class Movie:
    """A demo film."""

    file: str
    fps: float
    shots: tuple[Shot, ...]
    first_pts_s: float = 0.0
    transition_s: float = 0.6  # length of its dissolves and fades


MIDDLE = (480.0, 330.0, 660.0)
WIDE = (480.0, 300.0, 800.0)

# fmt: off
MOVIES = (
    Movie("errand.mp4", 25, (
        Shot(3.0, "room", "day", MIDDLE, MIDDLE, (
            Actor("admiral", (350, 506, 92), (378, 500, 92)), Actor("cup", (770, 498, 74), (510, 498, 74)))),
        Shot(2.6, "street", "day", WIDE, WIDE, (Actor("astronaut", (560, 520, 104), (600, 512, 108), "teal coat"),)),
        Shot(2.8, "kitchen", "lamp", MIDDLE, MIDDLE, (
            Actor("guide", (360, 510, 92), (386, 506, 92)),
            Actor("plant", (760, 500, 130), (520, 500, 130))), "dissolve"),
        Shot(2.8, "park", "day", (360, 360, 600), (600, 360, 600), (
            Actor("ball", (330, 500, 84), (640, 508, 92), rolls=True),)),
        Shot(2.6, "room", "dusk", (440, 320, 560), (440, 320, 560), (
            Actor("gardener", (420, 570, 118), (462, 566, 116)),)),
    )),
    Movie("launch.mp4", 30, (
        Shot(3.0, "launch pad", "night", (500, 320, 760), (500, 330, 600), (
            Actor("astronaut", (560, 752, 98), (540, 750, 100)),)),
        Shot(2.6, "kitchen", "day", (480, 340, 600), (480, 340, 600), (
            Actor("shuttle", (240, 496, 170), (420, 496, 170), lift=60),
            Actor("cup", (510, 506, 80), (730, 506, 80))), "fade"),
        Shot(2.8, "street", "dusk", (420, 330, 600), (420, 330, 600), (
            Actor("admiral", (480, 540, 104), (450, 540, 108)), Actor("suitcase", (190, 512, 96), (560, 512, 96)))),
        Shot(3.0, "park", "day", WIDE, WIDE, (
            Actor("guide", (330, 560, 104), (350, 556, 106)), Actor("gardener", (660, 560, 108), (624, 562, 106)))),
        Shot(2.6, "launch pad", "day", MIDDLE, MIDDLE, (Actor("captain", (330, 546, 100), (372, 540, 100)),)),
    )),
    Movie("garden.mp4", 24, (
        Shot(2.8, "park", "dusk", (420, 330, 640), (420, 330, 640), (
            Actor("gardener", (320, 566, 96), (346, 562, 96)), Actor("suitcase", (670, 500, 96), (400, 504, 98)))),
        Shot(3.0, "kitchen", "day", (370, 320, 640), (590, 320, 640), (
            Actor("admiral", (500, 530, 106), (520, 526, 104)),
            Actor("ball", (800, 502, 96), (500, 502, 96), rolls=True))),
        Shot(2.6, "room", "day", (560, 340, 640), (560, 340, 640), (
            Actor("suitcase", (310, 506, 100), (530, 506, 100)),
            Actor("plant", (540, 498, 160), (800, 498, 160))), "dissolve"),
        Shot(2.8, "street", "day", (560, 330, 580), (560, 330, 580), (
            Actor("guide", (470, 580, 116), (500, 574, 112)),
            Actor("shuttle", (690, 500, 150), (815, 500, 150), lift=50))),
        Shot(2.6, "room", "lamp", WIDE, WIDE, (
            Actor("astronaut", (430, 520, 112), (400, 524, 112), "teal coat"),
            Actor("cup", (530, 500, 90), (800, 500, 90)))),
    )),
    Movie("evening.mkv", 30000 / 1001, (
        Shot(3.0, "kitchen", "lamp", (500, 330, 560), (490, 310, 720), (
            Actor("gardener", (500, 530, 110), (480, 530, 110)), Actor("cup", (290, 500, 90), (560, 500, 90)))),
        Shot(2.6, "launch pad", "day", (440, 330, 640), (440, 330, 640), (
            Actor("astronaut", (470, 716, 90), (430, 714, 92)),)),
        Shot(2.6, "park", "day", (640, 310, 560), (640, 310, 560), (
            Actor("admiral", (600, 640, 126), (640, 630, 124)),), "fade"),
        Shot(2.6, "street", "dusk", (330, 340, 600), (330, 340, 600), (
            Actor("ball", (90, 506, 86), (310, 506, 86), rolls=True),
            Actor("suitcase", (570, 500, 100), (400, 500, 100)))),
        Shot(3.0, "room", "day", WIDE, WIDE, (
            Actor("guide", (300, 510, 100), (322, 506, 100)),
            Actor("astronaut", (650, 516, 106), (620, 520, 104), "teal coat"),
            Actor("shuttle", (400, 506, 140), (550, 506, 140)))),
    ), first_pts_s=0.5),
)
# fmt: on
