"""The people of the demo films: two public-domain portraits, cut out, and three more faces warped from them.

The portraits are part of packages of the `demo` extra: Eileen Collins by NASA (`skimage.data.astronaut`) and Grace Hopper by the
US Navy (matplotlib's sample data). Heads and coats share one canvas, so that any head fits any coat. A new face is a
thin-plate spline warp (Bookstein 1989, "Principal Warps") of the 68 landmarks of a portrait in the order of Sagonas et al. 2013
("300 Faces in-the-Wild", figure 1) with different jaw, eyes, nose and mouth; then skin, hair and coat are recoloured. The shapes
below were found by search: a face network (dlib's, 128-D) classifies each of them as a different person.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from a2data.media.pictures import read_picture

HEIGHT, WIDTH = 600, 512  # canvas of all figures, px: the size of Hopper's portrait
Colour = tuple[float, float, float]  # RGB, 0 to 255; gains where stated


@dataclass(frozen=True)
class Shape:
    """Deviation of a face from its portrait. Widths are relative to the portrait's; shifts are fractions of the face's width."""

    jaw: float = 0.0  # wider
    chin: float = 0.0  # lower
    eyes_apart: float = 0.0
    eye_size: float = 0.0
    nose_width: float = 0.0
    nose_length: float = 0.0
    mouth_width: float = 0.0
    mouth_drop: float = 0.0  # lower
    brows: float = 0.0  # higher


@dataclass(frozen=True)
class Person:
    """An identity: its portrait, changes to the face, and outfits."""

    portrait: str  # "collins" or "hopper"
    shape: Shape = Shape()
    skin: Colour | None = None  # gains; None: as photographed
    hair: Colour | None = None  # gains on grey
    neck: Colour | None = None  # colour of the neck on the coat's layer, to match another face
    mirrored: bool = False
    coats: tuple[tuple[str, Colour | None], ...] = ()  # outfit, colour; None: as photographed


@dataclass(frozen=True)
class Figure:
    """A person in an outfit: two layers, so that the head can sway on the shoulders."""

    body: np.ndarray  # (h, w, 4) uint8 RGBA, premultiplied
    head: np.ndarray  # the same size
    neck: tuple[float, float]  # pivot of the head, px
    face_px: float  # brows to chin


PEOPLE = {
    "astronaut": Person(
        "collins", neck=(215, 165, 140), coats=(("orange space suit", None), ("teal coat", (32, 110, 118)))
    ),
    "admiral": Person("hopper", coats=(("navy uniform", None),)),
    "guide": Person(
        "collins",
        Shape(-0.085, 0.050, -0.018, 0.133, -0.124, 0.023, -0.108, -0.023, -0.025),
        skin=(0.68, 0.52, 0.42),
        hair=(0.30, 0.25, 0.22),
        neck=(142, 94, 70),
        coats=(("crimson coat", (150, 40, 60)),),
    ),
    "gardener": Person(
        "collins",
        Shape(0.062, 0.038, 0.022, -0.087, 0.150, -0.041, 0.109, 0.026, -0.023),
        skin=(0.92, 0.78, 0.68),
        hair=(0.75, 0.38, 0.22),
        neck=(195, 135, 105),
        mirrored=True,
        coats=(("olive coat", (92, 104, 58)),),
    ),
    "captain": Person(
        "hopper",
        Shape(-0.123, 0.060, 0.020, -0.192, 0.217, -0.048, 0.084, -0.028, -0.029),
        skin=(0.74, 0.66, 0.60),
        neck=(168, 104, 72),
        coats=(("khaki uniform", (150, 128, 92)),),
    ),
}


def parse_points(text: str) -> np.ndarray:
    """Parse points, "x,y x,y ...", to (n, 2) float64."""
    return np.array([pair.split(",") for pair in text.split()], float)


COLLINS = parse_points(
    """179,104 180,116 181,127 182,139 185,150 191,160 200,168 209,176 220,178 232,177 243,171 253,163 260,154 265,143
    268,131 270,120 272,108 186,94 192,88 200,87 208,89 216,92 236,93 244,91 252,91 260,92 265,99 226,102 225,111
    225,119 225,127 214,131 219,133 224,134 229,133 234,132 195,101 200,98 207,98 212,104 206,104 199,104 237,106
    243,100 250,100 255,105 250,107 244,107 201,139 209,139 218,139 224,141 230,140 238,140 246,141 238,151 229,155
    222,156 216,155 208,150 204,141 218,143 223,144 230,143 243,142 229,150 223,151 217,150"""
)
HOPPER = parse_points(
    """178,203 181,226 186,248 192,270 199,291 209,310 226,323 245,331 269,333 293,329 312,319 329,304 340,284 347,262
    351,241 353,218 355,195 189,188 196,172 211,165 228,165 243,171 284,168 298,161 315,161 331,167 340,181 265,188
    265,205 266,221 267,238 247,246 257,249 268,252 278,249 287,246 210,195 218,187 228,187 238,194 229,195 219,196
    291,192 300,184 310,184 319,190 311,192 301,193 233,281 245,274 258,272 267,274 277,271 288,273 300,277 289,284
    278,287 269,289 259,288 246,285 238,279 258,278 268,279 277,278 296,278 277,278 268,279 258,279"""
)
JAW, BROWS, NOSE_SIDES, MOUTH, TEETH = slice(0, 17), slice(17, 27), slice(31, 36), slice(48, 68), slice(60, 68)
LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW = slice(36, 42), slice(42, 48), slice(17, 22), slice(22, 27)

SUIT_OUTLINE = parse_points(
    """185,175 184,150 181,134 172,130 165,117 157,105 153,80 158,60 175,45 190,38 195,28 215,17 240,16 262,24 285,42
    297,60 302,85 298,105 285,122 278,135 268,137 262,150 255,172 275,185 295,210 304,235 320,245 338,265 345,285
    355,310 360,345 375,345 400,343 425,350 455,370 480,400 495,435 505,460 513,480 513,513 60,513 45,500 28,480
    25,450 25,420 20,400 22,380 25,340 40,310 50,275 75,240 118,208 112,195 118,183 130,168 145,155 165,148 184,150"""
)
COLLINS_OUTLINE = parse_points(
    """185,150 181,134 172,130 165,117 157,105 153,80 158,60 175,45 190,38 195,28 215,17 240,16 262,24 285,42 297,60
    302,85 298,105 285,122 278,135 268,137 262,154 253,167 243,174 232,180 220,181 208,179 199,171 190,163"""
)
UNIFORM_OUTLINE = parse_points(
    """172,82 172,75 190,55 215,38 225,28 250,22 280,25 300,38 325,48 345,65 353,85 362,87 370,105 372,140 368,175
    375,190 372,215 362,245 360,275 350,300 332,308 335,318 350,335 375,350 420,365 465,378 490,392 503,425 508,450
    510,601 12,601 15,550 22,500 28,450 36,412 47,392 60,380 100,365 150,350 185,335 198,318 195,300 170,285 160,270
    162,245 155,225 153,195 158,180 152,175 152,110 155,90"""
)
COAT_OUTLINE = parse_points(
    """205,300 335,300 335,318 350,335 375,350 420,365 465,378 490,392 503,425 508,450 510,601 12,601 15,550 22,500
    28,450 36,412 47,392 60,380 100,365 150,350 185,335 198,318"""
)
BARE_NECK = parse_points("203,296 337,296 330,330 318,370 290,400 240,402 215,385 205,345")
TIE = parse_points("213,440 232,420 245,408 285,408 300,430 284,446 246,446")
NAME_TAG = parse_points("76,480 155,486 172,505 170,520 76,513")
RIBBONS = parse_points("318,528 362,484 412,484 412,494 456,496 456,530 318,530")


@cache
def figure(person: str, outfit: str) -> Figure:
    """Return a person of PEOPLE in one of their outfits. Raises KeyError for an unknown name or outfit."""
    return figure_of(PEOPLE[person], outfit)


@cache
def figure_of(person: Person, outfit: str) -> Figure:
    """Return a person in one of their outfits. Raises KeyError for an unknown outfit."""
    colour = dict(person.coats)[outfit]
    if outfit == "orange space suit":
        return _astronaut_figure()
    head, landmarks = _collins_head() if person.portrait == "collins" else (_hopper_head(), HOPPER)
    if colour and person.portrait == "hopper":
        head = np.dstack([recolour(head[..., :3], colour, 1 - soft_mask(landmarks - (0, 8), soft_px=4)), head[..., 3]])
    head = warp(
        recolour_skin_and_hair(head, landmarks, person.skin, person.hair),
        landmarks,
        move_landmarks(landmarks, person.shape),
    )
    body = recolour_coat(cut_out_person("coat"), colour, person.neck)
    if person.mirrored:
        head, body = head[:, ::-1], body[:, ::-1]
    neck_x = WIDTH - 268.0 if person.mirrored else 268.0
    return Figure(premultiplied(body), premultiplied(head), (neck_x, 330.0), HOPPER[8, 1] - HOPPER[BROWS, 1].mean())


def _astronaut_figure() -> Figure:
    """Return Collins as photographed, with the head on its own layer and the black collar completed beneath it."""
    picture = _portraits()["collins"]
    body, head = cut_out_person("suit").copy(), cut_out_person("collins")
    hole = soft_mask(COLLINS_OUTLINE, shape=picture.shape[:2], soft_px=2.5)
    rows = np.arange(len(picture))[:, None, None]
    body[..., 3:] *= np.where(rows < 160, 1 - np.minimum(1, 3 * hole), 1)
    body[..., :3] = np.where(rows >= 160, body[..., :3] * (1 - hole) + 18 * hole, body[..., :3])
    face_px = COLLINS[8, 1] - COLLINS[BROWS, 1].mean()
    return Figure(premultiplied(body), premultiplied(head), (224.0, 180.0), face_px)


@cache
def _portraits() -> dict[str, np.ndarray]:
    """Return both portraits, (h, w, 3) uint8 RGB, from the installed packages. Raises OSError if one cannot be read."""
    from matplotlib.cbook import get_sample_data
    from skimage import data

    hopper = get_sample_data("grace_hopper.jpg", asfileobj=False)
    return {"collins": data.astronaut(), "hopper": read_picture(str(hopper))}


def _collins_head() -> tuple[np.ndarray, np.ndarray]:
    """Return Collins's head, aligned with Hopper's face on the canvas, and its landmarks."""
    a, b = COLLINS - COLLINS.mean(0), HOPPER - HOPPER.mean(0)
    # a similarity of the plane is one complex factor: its least-squares fit
    a_plane, b_plane = (a @ [1, 1j], b @ [1, 1j])
    similarity = np.vdot(a_plane, b_plane) / np.vdot(a_plane, a_plane)
    linear = np.array([[similarity.real, -similarity.imag], [similarity.imag, similarity.real]])
    shift = HOPPER.mean(0) - linear @ COLLINS.mean(0)
    shift[1] += 8  # px: a shorter neck suits the coat better
    aligned = cv2.warpAffine(cut_out_person("collins"), np.c_[linear, shift], (WIDTH, HEIGHT))
    return aligned, COLLINS @ linear.T + shift


def _hopper_head() -> np.ndarray:
    """Return Hopper's head and hat, without everything below the jaw."""
    layer = cut_out_person("uniform").copy()
    jaw = np.vstack([HOPPER[2:15] - (0, -5), [(WIDTH, HOPPER[14, 1]), (WIDTH, 0), (0, 0), (0, HOPPER[2, 1])]])
    hair = parse_points("150,230 205,230 205,306 150,306"), parse_points("335,230 380,230 380,306 335,306")
    layer[..., 3:] *= np.maximum(soft_mask(jaw, soft_px=2), soft_mask(*hair, soft_px=2))
    return layer


OUTLINES = {
    "suit": ("collins", SUIT_OUTLINE),
    "collins": ("collins", COLLINS_OUTLINE),
    "uniform": ("hopper", UNIFORM_OUTLINE),
    "coat": ("hopper", COAT_OUTLINE),
}


@cache
def cut_out_person(layer: str) -> np.ndarray:
    """Return a layer cut out of its portrait, (h, w, 4) float32. Shared: copy it before writing to it."""
    portrait, outline = OUTLINES[layer]
    picture = _portraits()[portrait]
    return np.dstack([picture.astype(np.float32), matte(picture, outline)])


def matte(picture: np.ndarray, outline: np.ndarray, band_px: int = 7, feather_px: float = 1.2) -> np.ndarray:
    """Return the alpha of a hand-drawn outline, (h, w) float32, refined by GrabCut (Rother et al. 2004) in a band around it."""
    inside = cv2.fillPoly(np.zeros(picture.shape[:2], np.uint8), [outline.astype(np.int32)], 1)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band_px + 1, 2 * band_px + 1))
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(inside, disk, borderType=cv2.BORDER_REPLICATE) == 1] = cv2.GC_FGD
    labels[cv2.dilate(inside, disk) == 0] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    fg_model, bg_model = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(picture), labels, (0, 0, 1, 1), bg_model, fg_model, 4, cv2.GC_INIT_WITH_MASK)
    foreground = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, components, stats, _ = cv2.connectedComponentsWithStats(cv2.medianBlur(foreground, 5))
    largest = (components == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.float32)
    soft = cv2.GaussianBlur(largest, (0, 0), feather_px, borderType=cv2.BORDER_REPLICATE)
    # slightly inside the edge, so that the old background leaves no fringe
    return np.clip((soft - 0.35) / 0.6, 0, 1)


def move_landmarks(landmarks: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the landmarks, (68, 2), of a face after the changes of `shape`."""
    moved = landmarks.copy()
    width = np.ptp(landmarks[JAW, 0])
    middle = landmarks[27:36, 0].mean()
    jaw_y = landmarks[JAW, 1]
    depth = (jaw_y - jaw_y.min()) / np.ptp(jaw_y)  # 0 beside the ears, 1 at the chin
    moved[JAW, 0] += shape.jaw * (landmarks[JAW, 0] - middle) * np.sin(np.pi * depth * 0.75)
    moved[JAW, 1] += shape.chin * width * depth**2
    for side, eye, brow in ((-1, LEFT_EYE, LEFT_BROW), (1, RIGHT_EYE, RIGHT_BROW)):
        moved[eye] += shape.eye_size * (landmarks[eye] - landmarks[eye].mean(0))
        moved[eye, 0] += side * shape.eyes_apart * width
        moved[brow, 0] += side * shape.eyes_apart * width
    moved[BROWS, 1] -= shape.brows * width
    moved[NOSE_SIDES, 0] += shape.nose_width * (landmarks[NOSE_SIDES, 0] - middle)
    # down the bridge, then the tip
    moved[28:36, 1] += shape.nose_length * width * np.array([0.2, 0.6, 1, 1, 1, 1, 1, 1])
    moved[MOUTH, 0] += shape.mouth_width * (landmarks[MOUTH, 0] - landmarks[MOUTH, 0].mean())
    moved[MOUTH, 1] += shape.mouth_drop * width
    return moved


def warp(layer: np.ndarray, source: np.ndarray, target: np.ndarray, step_px: int = 8) -> np.ndarray:
    """Warp a layer of the canvas so that its `source` points move to `target`. The border of the canvas stays in place."""
    if np.array_equal(source, target):
        return layer
    from scipy.interpolate import RBFInterpolator

    border = np.array([(x, y) for x in np.linspace(0, WIDTH, 5) for y in np.linspace(0, HEIGHT, 5)])
    border = border[(border[:, 0] % WIDTH == 0) | (border[:, 1] % HEIGHT == 0)]
    targets = np.vstack([target, border])
    # backward warp: target pixel -> source pixel
    spline = RBFInterpolator(targets, np.vstack([source, border]) - targets, smoothing=20.0)
    ys, xs = np.mgrid[0 : HEIGHT + 1 : step_px, 0 : WIDTH + 1 : step_px]
    coarse = spline(np.c_[xs.ravel(), ys.ravel()].astype(float)).reshape(*xs.shape, 2).astype(np.float32)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    field = cv2.remap(coarse, x / step_px, y / step_px, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.remap(layer, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR)


def recolour_skin_and_hair(
    head: np.ndarray, landmarks: np.ndarray, skin: Colour | None, hair: Colour | None
) -> np.ndarray:
    """Recolour skin and hair: gains on RGB inside the face, except teeth and eyes; gains on grey outside it."""
    out = head[..., :3]
    margin = 0.06 if hair else 0.3  # without new hair, include the ears
    jaw = landmarks[JAW] + (landmarks[JAW] - landmarks.mean(0)) * margin
    face = soft_mask(np.vstack([jaw, landmarks[BROWS][::-1] - [0, 16]]), landmarks[JAW] + [0, 24], soft_px=3)
    grey = out.mean(2, keepdims=True)
    if skin:
        skin_alpha = face * (
            1 - 0.7 * soft_mask(landmarks[TEETH], landmarks[LEFT_EYE], landmarks[RIGHT_EYE], soft_px=1.2)
        )
        out = out * (1 - skin_alpha) + np.array(skin) * out * skin_alpha * (1.12 - grey / 1250)  # less shine
    if hair:
        out = out * face + grey * np.array(hair) * (1 - face)
    return np.dstack([out, head[..., 3]]).astype(np.float32)


def recolour_coat(coat: np.ndarray, colour: Colour | None, neck: Colour | None) -> np.ndarray:
    """Recolour a coat and remove the name tag and ribbons of the uniform; recolour the neck to match the skin."""
    rgb = coat[..., :3]
    if neck:
        is_skin = np.clip((rgb[..., :1] - rgb[..., 2:] - 8) / 40, 0, 1)  # skin is warmer than collar and cloth
        neck_alpha = soft_mask(BARE_NECK) * is_skin
        rgb = rgb * (1 - neck_alpha) + np.array(neck) * (0.35 + rgb.mean(2, keepdims=True) / 200) * neck_alpha
    if colour:
        badges = (soft_mask(NAME_TAG, RIBBONS, soft_px=0.1) > 0.5).astype(np.uint8)
        rgb = cv2.inpaint(rgb.clip(0, 255).astype(np.uint8), badges, 5, cv2.INPAINT_TELEA).astype(np.float32)
        rgb = recolour(rgb, colour, 1 - soft_mask(BARE_NECK, TIE, soft_px=1.5))
    return np.dstack([rgb, coat[..., 3]]).astype(np.float32)


def recolour(rgb: np.ndarray, colour: Colour, alpha: np.ndarray) -> np.ndarray:
    """Recolour black cloth. The visible folds become light and shade."""
    grey = rgb.mean(2, keepdims=True)
    cloth = np.clip((75 - grey) / 25, 0, 1) * alpha
    shade = (0.7 + 0.016 * (cv2.GaussianBlur(grey, (0, 0), 1.2)[..., None] - 14)).clip(0.4, 1.2)
    return rgb * (1 - cloth) + np.array(colour) * shade * cloth


def soft_mask(*polygons: np.ndarray, shape: tuple[int, ...] = (HEIGHT, WIDTH), soft_px: float = 2.0) -> np.ndarray:
    """Return a blurred mask, (h, w, 1) float32: 1 inside the polygons, 0 outside."""
    mask = np.zeros(shape[:2], np.float32)
    for polygon in polygons:
        cv2.fillPoly(mask, [polygon.astype(np.int32)], 1.0)
    return cv2.GaussianBlur(mask, (0, 0), soft_px)[..., None]


def premultiplied(rgba: np.ndarray) -> np.ndarray:
    """Return a float layer (colours 0 to 255, alpha 0 to 1) as premultiplied (h, w, 4) uint8."""
    alpha = rgba[..., 3:].clip(0, 1)
    return np.rint(np.dstack([rgba[..., :3].clip(0, 255) * alpha, 255 * alpha])).astype(np.uint8)
