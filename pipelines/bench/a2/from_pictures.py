"""Generate cases from labelled folders of people, objects and backgrounds, with template prompts."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from pipelines.bench.a2.cases import IMAGE_SUFFIXES, ROLES, Case, Element

COUNT = 50  # number of combinations, as in the paper
# {human}, {object} and {background} are labels with "a" or "an".
TEMPLATES = (
    "{human} holds {object} and looks at it in {background}.",
    "{human} walks through {background} with {object}.",
    "In {background}, {human} puts {object} down and smiles at the camera.",
    "{human} picks up {object} and turns around in {background}.",
    "{human} shows {object} to the camera in {background}.",
    "{human} sits in {background} beside {object}.",
    "In {background}, {human} reaches for {object}.",
    "{human} lifts {object} into the light in {background}.",
)


def read_pool(folder: Path) -> dict[str, list[Element]]:
    """Return {role: images} of a folder with human/, object/ and background/.

    An image's label is the first line of the text file with its name, else the name of its folder inside the role's folder, else
    its own name without numbers: object/teapot/3.png or object/teapot_3.png. Its category is that folder, else the label. Raises
    ValueError if a role has no image.
    """
    pool = {}
    for role in ROLES:
        files = sorted(f for f in (folder / role).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"{folder / role} has no image: cases need {', '.join(ROLES)}")
        pool[role] = [_element(role, file, folder / role) for file in files]
    return pool


def _element(role: str, file: Path, role_folder: Path) -> Element:
    text = file.with_suffix(".txt")
    category = _label_from_name(file.parent.name) if file.parent != role_folder else ""
    lines = text.read_text().strip().splitlines() if text.is_file() else []
    label = lines[0].strip() if lines else category or _label_from_name(file.stem)
    if not label:
        raise ValueError(f"{file} has no label: write one into {text.name}")
    return Element(role, file, label, category or label)


def _label_from_name(name: str) -> str:
    return re.sub(r"[\d_\-\s]+", " ", name).strip().lower()


def draw(pictures: dict[str, list[Element]], count: int = COUNT, seed: int = 0) -> list[Case]:
    """Return `count` distinct combinations of one person, one object and one background, deterministic in the seed.

    As far as the sizes allow, every image is used before one is used again; objects rotate through the categories. Raises
    ValueError if there are fewer combinations.
    """
    num_combinations = len(list(product(*(pictures[role] for role in ROLES)))) if count > 1 else 1
    if count > num_combinations:
        raise ValueError(
            f"the images allow {num_combinations} combinations, not {count}: add images or request fewer cases"
        )
    rng = random.Random(seed)
    iterators = {role: _endless(pictures[role], rng) for role in ROLES}
    used: set[tuple[Element, ...]] = set()
    cases = []
    for number in range(count):
        combination = tuple(next(iterators[role]) for role in ROLES)
        if combination in used:
            combination = rng.choice([c for c in product(*(pictures[role] for role in ROLES)) if c not in used])
        used.add(combination)
        cases.append(Case(f"case-{number:03d}", fill_template(combination, rng.choice(TEMPLATES)), combination))
    return cases


def _endless(elements: Sequence[Element], rng: random.Random) -> Iterator[Element]:
    """Yield elements endlessly: all in random order, rotating through the categories, then all again in another order."""
    while True:
        groups: dict[str, list[Element]] = {}
        for element in rng.sample(elements, len(elements)):
            groups.setdefault(element.category if element.role == "object" else "", []).append(element)
        while groups:
            for category in list(groups):
                yield groups[category].pop()
                if not groups[category]:
                    del groups[category]


def fill_template(elements: Sequence[Element], template: str) -> str:
    """Return a template of TEMPLATES filled with the labels."""
    text = template.format(**{element.role: with_article(element.label) for element in elements})
    return text[0].upper() + text[1:]


def with_article(label: str) -> str:
    """Prefix "a" or "an"; labels that start with an article or look plural ("shoes") are returned unchanged."""
    first, last = label.split()[0].lower(), label.split()[-1].lower()
    if first in ("a", "an", "the", "two", "three", "some", "several"):
        return label
    if last.endswith("s") and not last.endswith(("ss", "us", "is")):
        return label
    return ("an " if first[0] in "aeiou" else "a ") + label
