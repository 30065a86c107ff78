"""A set of films without pictures: rectangles that move over four places, with everything that the scores need."""

import numpy as np

from pipelines.films.truth import Entity, Film, Shot, Transition, Truth, sight

HEIGHT, WIDTH, LENGTH = 90, 160, 20
CAST = {
    "ann": ("human", ["woman"], {"upper": ["red"]}, (36, 60)),
    "bea": ("human", ["woman"], {"upper": ["green", "blue"]}, (34, 62)),
    "cup": ("object", ["cup", "mug"], {"": ["yellow"]}, (26, 26)),
    "box": ("object", ["box"], {"": ["brown"]}, (30, 24)),
}
SCRIPT = [  # of each film: the place, and who walks where
    [("hall", ["ann"]), ("yard", ["bea", "cup"]), ("hall", ["box"]), ("shed", ["ann", "cup"])],
    [("yard", ["bea"]), ("hall", ["ann", "box"]), ("shed", ["cup"]), ("yard", ["bea", "ann"])],
    [("shed", ["bea", "box"]), ("yard", ["cup"]), ("hall", ["bea"]), ("pier", ["ann"])],
]


def entity(name: str, start: int, column: int) -> Entity:
    kind, nouns, colours, (wide, tall) = CAST[name]
    sights = {}
    for step in range(LENGTH):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        left = 10 + 70 * column + step
        mask[HEIGHT - 8 - tall : HEIGHT - 8, left : left + wide] = True
        sights[start + step] = sight(mask, 1.0)
    return Entity(name, kind, nouns, "", colours, ["look-alike"] if name == "bea" else [], sights)


def film(number: int) -> Film:
    shots, cuts, soft, start = [], [], [], 0
    for n, (place, names) in enumerate(SCRIPT[number]):
        if n == 2:
            soft.append(Transition("dissolve", start, start + 6))
            start += 6
        elif n:
            cuts.append(start)
        cast = [entity(name, start, column) for column, name in enumerate(names)]
        colours = {"hall": ["beige"], "yard": ["green"], "shed": ["brown"], "pier": ["blue"]}[place]
        shots.append(Shot(start, start + LENGTH, place, "day", "static", colours=colours, entities=cast))
        start += LENGTH
    thumbs = np.random.default_rng(number).integers(0, 255, (start, 18, 24), np.uint8)
    return Film(f"film{number}.mp4", 25.0, start, WIDTH, HEIGHT, cuts, shots, soft, thumbs=thumbs)


def truth() -> Truth:
    return Truth("S", [film(n) for n in range(len(SCRIPT))])
