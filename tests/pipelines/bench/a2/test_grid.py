import numpy as np
import pytest
import toy_bench
from PIL import Image

from a2data.store.tables import Store
from pipelines.bench.a2 import grid, leaderboard, strips
from pipelines.bench.a2 import tables as recipe
from pipelines.bench.a2.cases import Case, Element


@pytest.fixture
def scored(tmp_path):
    """Two cases with a picture each; a system that made the first."""
    Image.fromarray(np.full((20, 40, 3), (200, 0, 0), np.uint8)).save(tmp_path / "cup.png")
    both = [Case(name, f"A <{name}>.", (Element("object", tmp_path / "cup.png", "cup"),)) for name in "ab"]
    toy_bench.write(
        tmp_path / "videos/a.mp4", np.repeat(np.arange(0, 240, 40, np.uint8), 32 * 48 * 3).reshape(6, 32, 48, 3)
    )
    store = Store(str(tmp_path / "work"))
    home = recipe.write_cases(store, both)
    recipe.import_videos(store, home, tmp_path / "videos")
    strips.write(store, home, tmp_path)
    return both, tmp_path


def test_a_strip_shows_frames_from_first_to_last(scored):
    _, home = scored
    with Image.open(home / "strips/a.jpg") as image:
        shown = np.asarray(image)
    assert shown.shape == (96, 4 * 144 + 3 * 2, 3)
    levels = [shown[:, 146 * n + 20 : 146 * n + 120].mean() for n in range(4)]
    assert levels == pytest.approx([0, 80, 120, 200], abs=8)
    assert not (home / "strips/b.jpg").exists()


def test_the_page_shows_each_case_beside_what_was_made_of_it(scored):
    both, home = scored
    samples = grid.grid(both, {"ours & co": home})
    page = leaderboard.page([], samples=samples)
    assert page.count('<img src="data:image/jpeg;base64,') == 2 + 1
    assert page.count("no video") == 1
    assert "a: A &lt;a&gt;." in page
    assert "ours &amp; co" in page
    assert "img-src data:" in page
    assert "2 of 2 cases" not in page
    assert "1 of 2 cases" in leaderboard.page([], samples=grid.grid(both, {"x": home}, max_cases=1))
    assert grid.grid(both, {}) is None
