import functools
import shutil
from pathlib import Path
from typing import Any

import pytest

from a2data.records import Source
from a2data.store.tables import Store


@pytest.fixture
def store(tmp_path) -> Store:
    """Four shards of two videos each."""
    store = Store(tmp_path / "work")
    for shard in range(4):
        rows = [Source(f"{shard:015x}{n}", f"{shard}{n}.mp4", "CC0-1.0", "test", "", 1, "") for n in range(2)]
        store.write("manifest", shard, Source, rows)
    return store


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint folder of A2, whole and tiny."""
    pytest.importorskip("diffusers")

    import tiny_a2

    return tiny_a2.write(tmp_path_factory.mktemp("a2") / "tiny-a2")


@functools.cache
def loaded_once(*settings: Any) -> Any:
    """A Sampler, the same for all tests that ask for the same: what it samples does not depend on what it sampled before."""
    return true_sampler()(*settings)


@functools.cache
def true_sampler() -> Any:
    """The class, as it is before a test replaces it."""
    from pipelines.sample.sampler import Sampler

    return Sampler


@pytest.fixture
def studio(checkpoint, tmp_path, monkeypatch) -> Path:
    """A working folder with pictures and a checkpoint to sample with, in which the test runs."""
    import tiny_a2

    from pipelines.sample import sampler

    true_sampler()
    monkeypatch.setattr(sampler, "Sampler", loaded_once)
    for seed, name in enumerate(("woman", "cup", "room")):
        tiny_a2.picture(tmp_path / f"{name}.png", seed)
    (tmp_path / "a2").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unloaded(monkeypatch) -> None:
    """No network may be loaded."""
    from pipelines.sample import sampler

    true_sampler()

    def load(*_: Any) -> None:
        raise AssertionError("a checkpoint was loaded")

    monkeypatch.setattr(sampler, "Sampler", load)


@pytest.fixture(scope="session")
def corpus_store(tmp_path_factory) -> Store:
    import tiny_corpus

    store = Store(tmp_path_factory.mktemp("report") / "work")
    tiny_corpus.write(store)
    return store


@pytest.fixture(scope="session")
def page(corpus_store, tmp_path_factory) -> Any:
    from html_page import Page

    from pipelines.report.page import write_report
    from pipelines.triplets import triplets

    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(corpus_store, out, triplets())
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser():
    """A headless chromium. Not of the whole session: while it is open an event loop runs, which other tests would meet."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium in PATH")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="session", autouse=True)
def parser_made_once():
    """Make the parser of the command line once, before any test changes what it refers to. Yields the real function."""
    from pipelines.cli import main as cli

    make, made = cli.parser, cli.parser()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "parser", lambda: made)
        yield make


@pytest.fixture(scope="module")
def toy_stages(parser_made_once):
    """For tests of toy_folder.py: every profile is the toy pipeline: tables without pixels, but the real retrieve and pack."""
    from toy_folder import stages

    from pipelines.cli import jobs, session
    from pipelines.cli import main as cli
    from pipelines.report import page

    with pytest.MonkeyPatch.context() as patch:
        for module in (jobs, session):
            patch.setattr(module, "triplets", stages)
        patch.setattr(cli, "parser", functools.cache(parser_made_once))  # for speed, like the next
        patch.setattr(page, "report", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A function that makes a work folder of people, {video_id: who}, in which all is done but the packing."""
    import toy_pairs
    from toy_folder import PEOPLE, stages

    made: dict[str, Path] = {}

    def fill(work, people=None) -> str:
        people = people or PEOPLE
        if repr(people) not in made:
            store = Store(made.setdefault(repr(people), tmp_path_factory.mktemp("filled")))
            toy_pairs.fill(store, people)
            toy_pairs.make(store, stages()[:-1])
        shutil.copytree(made[repr(people)], work)
        return str(work)

    return fill
