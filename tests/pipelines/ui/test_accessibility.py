"""Every tab of `a2data ui` on wide and narrow screens, light and dark: axe finds nothing serious, and all fits."""

import importlib.util

import pytest
import tiny_corpus

from a2data.records import Reference, Reject
from a2data.store.tables import Store
from pipelines import marks
from pipelines.triplets import triplets
from pipelines.ui.work import WorkFolder

lacking = [name for name in ("diffusers", "gradio") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(lacking), reason=f"lacks {' and '.join(lacking)}")


@pytest.fixture(scope="module")
def address(checkpoint, tmp_path_factory):
    """The address of a page with all tabs."""
    import tiny_shards

    from pipelines.ui.page import page, serve

    root = tmp_path_factory.mktemp("ui")
    store = Store(root / "work")
    tiny_corpus.write(store)
    rejected = [
        Reject(f"{tiny_corpus.RED}/upper/0", "no other clip shows it", "similarity = 0.42, allowed 0.6 to inf: FAIL")
    ]
    tiny_corpus.put(store, "retrieve", 0, Reference, [tiny_corpus.reference("human", 0.9, 0.2)], rejected=rejected)
    work = WorkFolder(str(root / "work"), triplets(), marks.beside(str(root / "work")))
    made = page(str(checkpoint), str(tiny_shards.make(root / "shards")), str(root / "videos"), None, work)
    yield serve(made, out=str(root / "videos")).local_url
    made.close()


def sample(tab, picture):
    tab.locator("#human input[type=file]").set_input_files(picture)
    tab.locator("#human img").first.wait_for()
    tab.locator("#settings button").first.click()
    tab.locator("#height").wait_for()


def pairs(tab, _):
    tab.locator("#pair svg image").first.wait_for()
    tab.get_by_role("button", name="Explain the element").click()
    tab.locator("#pair-explained pre").wait_for()


def browse(tab, _):
    tab.get_by_label("Rejected").check()
    tab.get_by_text("retrieve: no other clip shows it").first.click()
    tab.locator("#explained pre").wait_for()
    tab.wait_for_function("() => document.querySelector('#explained').getBoundingClientRect().top < innerHeight")


def shards(tab, _):
    tab.locator("#clip-video video").wait_for()
    tab.locator("#references img").first.wait_for()
    tab.locator(".json-node .string").first.wait_for()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1400, "light"),
        (390, "dark"),
        pytest.param(1400, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious_and_every_tab_fits(browser, address, serious, tmp_path, width, scheme):
    import tiny_a2

    picture = tiny_a2.picture(tmp_path / "woman.png")
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.set_default_timeout(120_000)
    tab.goto(address)
    for show in (sample, pairs, browse, shards):
        tab.get_by_role("tab", name=show.__name__).click()
        show(tab, picture)
        assert serious(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.get_by_role("tab", name="Browse").click()
    tab.locator("#browse-search input, #browse-search textarea").fill("nothing like it")
    tab.get_by_text("Nothing passes the filters").wait_for()
    assert serious(tab) == []
    tab.close()
