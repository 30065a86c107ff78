"""Benchmark cases: a prompt, and reference images of the people, objects and backgrounds that the video should show."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2data.store.filename import safe_name, safe_path
from a2data.store.folder import file_sha256

ROLES = ("human", "object", "background")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FILE = "cases.jsonl"

# OpenS2V-Eval (Yuan et al. 2025, arXiv 2505.20292) gives a label and a path but not a role; these words determine it.
HUMAN_WORDS = {
    "human",
    "person",
    "people",
    "man",
    "woman",
    "boy",
    "girl",
    "child",
    "face",
    "singleface",
    "singlehuman",
    "humans",
}
BACKGROUND_WORDS = {"background", "environment", "scene", "place"}


@dataclass(frozen=True)
class Element:
    """A reference image of a person, an object or a background, and its label."""

    role: str  # human, object, background
    path: Path
    label: str = ""  # noun phrase without an article: "old man", "red teapot"
    category: str = ""  # category for balanced sampling of objects


@dataclass(frozen=True)
class Case:
    """A task for a model. Its video is named <id>.mp4."""

    id: str
    prompt: str
    elements: tuple[Element, ...]
    truth: Path | None = None  # the clip that the case was taken from, if any: see `from_triplets`

    def of(self, role: str) -> list[Element]:
        return [element for element in self.elements if element.role == role]


def read(path: Path) -> list[Case]:
    """Return the cases of a cases.jsonl or its folder, of OpenS2V-Eval's JSON, or of a folder with images by role.

    Raises ValueError with the line if an image is missing or outside the file's folder, or if an id is not a unique file name.
    """
    if path.is_dir() and (path / FILE).is_file():
        path = path / FILE
    if path.is_dir():
        cases = _role_folders(path)
    elif path.suffix == ".jsonl":
        cases = [_from_line(line, path, n) for n, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
    else:
        cases = _opens2v(path)
    return _validate(cases, path)


def write(cases: Iterable[Case], out: Path) -> Path:
    """Write cases.jsonl to a folder, with every image in a subfolder per role, named by its sha256. Returns the path."""
    lines = []
    for case in cases:
        elements = []
        for element in case.elements:
            entry = {"role": element.role, "label": element.label, "category": element.category}
            elements.append(entry | _copy_file(element.path, element.role, out))
        line: dict[str, Any] = {"id": case.id, "prompt": case.prompt, "elements": elements}
        if case.truth is not None:
            line["truth"] = _copy_file(case.truth, "truth", out)
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text("".join(lines))
    return out / FILE


def _copy_file(file: Path, folder: str, out: Path) -> dict[str, str]:
    """Copy a file to a folder of `out`, named by its content, and return its path and sha256."""
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{folder}/{sha256[:16]}{file.suffix.lower()}"
    (out / folder).mkdir(parents=True, exist_ok=True)
    if not (out / name).exists():
        (out / name).write_bytes(data)
    return {"path": name, "sha256": sha256}


def _from_line(line: str, path: Path, number: int) -> Case:
    context = f"{path}, line {number}"
    try:
        data = json.loads(line)
        elements = tuple(_from_json(element, path.parent, context) for element in data["elements"])
        truth = _verified_file(data["truth"], path.parent, context) if "truth" in data else None
        return Case(str(data["id"]), str(data["prompt"]), elements, truth)
    except json.JSONDecodeError as error:
        raise ValueError(f"{context} is not valid JSON ({error})") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{context} lacks {error}: a case has id, prompt and elements with role and path") from error


def _from_json(data: Mapping[str, Any], folder: Path, context: str) -> Element:
    file = _verified_file(data, folder, context)
    return Element(data["role"], file, data.get("label", ""), data.get("category", ""))


def _verified_file(data: Mapping[str, Any], folder: Path, context: str) -> Path:
    file: Path = folder / safe_path(data["path"], context)
    expected = data.get("sha256", "")
    if expected and file.is_file() and file_sha256(file) != expected:
        raise ValueError(f"{context}: {file} has changed since the case was written: its sha256 differs")
    return file


def _opens2v(path: Path) -> list[Case]:
    try:
        data = json.loads(path.read_text())
        return [_from_opens2v(key, case, path.parent) for key, case in data.items()]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is neither cases.jsonl nor OpenS2V-Eval's JSON ({error!r})") from error


def _from_opens2v(key: str, case: Mapping[str, Any], folder: Path) -> Case:
    labels = list(case.get("class_label") or [])
    if labels and len(labels) != len(case["img_paths"]):
        raise ValueError(f"{key} has {len(case['img_paths'])} images but {len(labels)} labels")
    labels = labels or [""] * len(case["img_paths"])
    pairs = zip(case["img_paths"], labels, strict=True)
    elements = tuple(
        Element(role_of(label, path), folder / safe_path(path.removeprefix("./"), key), label.lower())
        for path, label in pairs
    )
    return Case(key, case["prompt"], elements)


def role_of(label: str, path: str) -> str:
    """Return the role of an OpenS2V-Eval image, by the words of its label, else by its folder."""
    folder = Path(path).parent.name
    for words in (set(label.lower().split()), {folder.lower()}):
        if words & HUMAN_WORDS:
            return "human"
        if words & BACKGROUND_WORDS:
            return "background"
    return "object"


def _role_folders(path: Path) -> list[Case]:
    """Return cases from human/, object/ and background/: images with one name form a case, with its prompt in prompts.json."""
    elements_of: dict[str, list[Element]] = {}
    for role in ROLES:
        for file in sorted((path / role).glob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                elements_of.setdefault(file.stem, []).append(Element(role, file))
    prompts = path / "prompts.json"
    if not elements_of or not prompts.is_file():
        raise ValueError(f"{path} has neither {FILE} nor images in {', '.join(ROLES)} with a prompts.json")
    prompt_of = json.loads(prompts.read_text())
    without_prompt = sorted(set(elements_of) - set(prompt_of))
    if without_prompt:
        raise ValueError(f"{prompts} has no prompt for {', '.join(without_prompt[:5])}")
    return [Case(name, prompt_of[name], tuple(elements)) for name, elements in sorted(elements_of.items())]


def _validate(cases: list[Case], path: Path) -> list[Case]:
    if not cases:
        raise ValueError(f"{path} has no cases")
    seen: set[str] = set()
    for case in cases:
        safe_name(f"{case.id}.mp4", f"{path}: id of a case")
        if case.id in seen:
            raise ValueError(f"{path}: two cases have the id {case.id!r}")
        seen.add(case.id)
        for element in case.elements:
            if element.role not in ROLES:
                raise ValueError(
                    f"{path}: {case.id} has the unknown role {element.role!r}; roles are {', '.join(ROLES)}"
                )
            if not element.path.is_file():
                raise ValueError(f"{path}: {case.id} refers to {element.path}, which does not exist")
        if case.truth is not None and not case.truth.is_file():
            raise ValueError(f"{path}: {case.id} was taken from {case.truth}, which does not exist")
    return cases
