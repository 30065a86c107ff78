"""`a2data ui` in a real browser: a video is sampled from an upload, a bad upload is a sentence, shards are looked through."""

import importlib.util
import json

import pytest

from a2data.media import video
from pipelines import ui
from pipelines.cli.main import main

lacking = [name for name in ("diffusers", "gradio") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(lacking), reason=f"lacks {' and '.join(lacking)}")

WAIT_MS = 120_000


@pytest.fixture
def opened(browser, monkeypatch):
    """A function that serves a page and opens it; no request leaves this machine."""
    served, asked = [], []

    def open_(*args):
        made = ui.serve(ui.page(*args), out=args[2])
        served.append(made)
        tab = browser.new_page()
        tab.set_default_timeout(WAIT_MS)
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(made.local_url)
        return tab

    yield open_
    for made in served:
        made.close()
    outside = [url for url in asked if not url.startswith(("http://127.0.0.1", "data:", "blob:"))]
    assert not outside


def fill(tab, values: dict[str, str]) -> None:
    """Fill in settings that have just been unfolded: the page may still put their first values over what was typed."""
    for _ in range(20):
        tab.wait_for_timeout(500)
        fields = {name: tab.locator(f"#{name} input") for name in values}
        lost = [name for name, field in fields.items() if field.input_value() != values[name]]
        if not lost:
            return
        for name in lost:
            fields[name].fill(values[name])
    raise AssertionError(f"the page does not keep {lost}")


def test_a_video_is_sampled_from_what_was_uploaded_and_a_wrong_size_is_a_sentence(opened, checkpoint, tmp_path):
    import tiny_a2

    picture = tiny_a2.picture(tmp_path / "woman.png")
    tab = opened(str(checkpoint), None, str(tmp_path / "made"))
    tab.locator("#prompt textarea").fill("a woman drinks")
    tab.locator("#human input[type=file]").set_input_files(str(picture))
    tab.locator("#human .file-preview a").first.wait_for()  # uploaded: a click before that would sample without it
    tab.get_by_label("Cut out people and objects").uncheck()
    tab.locator("#settings button").first.click()
    fill(tab, {"height": "30", "width": "48", "frames": "13", "steps": "2"})
    tab.locator("#start").click()
    tab.get_by_text("height and width must be divisible by 16").wait_for()

    tab.locator("#height input").fill("32")
    tab.locator("#start").click()
    tab.locator("#video video").wait_for()
    assert video.decode((tmp_path / "made" / "0001.mp4").read_bytes()).shape == (9, 32, 48, 3)


def test_shards_are_looked_through_clip_by_clip(opened, tmp_path):
    import tiny_shards

    shards = tiny_shards.make(tmp_path / "shards")
    tab = opened(None, str(shards), str(tmp_path))
    first = tab.locator("#clip input").input_value()
    tab.locator("#next").click()
    tab.wait_for_function("first => document.querySelector('#clip input').value != first", arg=first)
    tab.locator("#clip-video video").wait_for()
    assert tab.locator("#references img").count() > 0


def test_a_page_of_nothing_and_a_folder_of_no_shards_are_a_sentence(tmp_path, capsys):
    assert main(["ui"]) == 2
    assert main(["ui", "--shards", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "give a --checkpoint to sample with" in said
    assert "has no index.parquet" in said


def test_the_phrases_of_a_prompt_are_marked_where_they_stand():
    made = ui.highlighted("a man in a red top", [(0, 18, "ref0"), (9, 18, "ref1")])
    assert made == [("a man in ", "ref0"), ("a red top", "ref0 ref1")]
    assert ui.highlighted("a room", []) == [("a room", None)]


def test_an_empty_number_is_named(tmp_path):
    values = {name: 1 for name in ui.NAMES} | {"scheduler": "euler", "negative_prompt": "", "steps": None}
    with pytest.raises(ValueError, match="steps: enter a number"):
        ui.job_of("a", (["woman.png"], [], None), True, values, str(tmp_path))


def test_a_page_on_which_nothing_was_filled_in_says_what_is_lacking():
    import gradio

    once = ui.SingleFlight("nowhere", None)
    with pytest.raises(gradio.Error) as error:
        ui.sampled(once, "made", "", None, None, None, True, *[1] * len(ui.NAMES))
    first, second = error.value.message.split("<br>")
    assert first == "the prompt is empty: describe the video"
    assert second.startswith("no reference: upload an image")


REMOTE = "http://pictures.invalid"
PICTURE = f'![x]({REMOTE}/markdown.png) <img src="{REMOTE}/html.png"> <b>bold</b>'


def hostile_triplets(folder):
    """Shards whose every text is Markdown and HTML with a picture on another machine."""
    import hostile_shards

    said = json.loads(hostile_shards.plain()["json"])
    texts = {
        name: PICTURE for name, value in said.items() if isinstance(value, str) and name not in ("format", "clip_id")
    }
    caption = {name: PICTURE if isinstance(value, str) else value for name, value in said["caption"].items()}
    reference = said["references"][0] | {"phrase": PICTURE[:60], "end": 60, "role": PICTURE, "label": PICTURE}
    return hostile_shards.make(
        folder,
        index={"license": PICTURE},
        **texts | {"caption": caption, "references": [reference], "made_by": [PICTURE]},
    )


def test_text_from_shards_is_shown_as_text_and_fetches_nothing(opened, tmp_path):
    home = hostile_triplets(tmp_path / "shards")
    tab = opened(None, str(home), str(tmp_path))
    tab.locator("#clip-video video").wait_for()
    tab.locator("#references img").first.wait_for()
    assert PICTURE in tab.locator("#about textarea, #about input").input_value()
    assert PICTURE[:60] in tab.locator("#phrases").inner_text()
    assert tab.locator(f"[src^='{REMOTE}']").count() == 0


def test_the_error_of_a_damaged_shard_is_shown_as_text(opened, tmp_path):
    import hostile_shards

    home = hostile_shards.make(tmp_path / "shards", shard=f"<img src='{REMOTE}/error.png'>")
    tab = opened(None, str(home), str(tmp_path))
    tab.get_by_text(f"<img src='{REMOTE}").first.wait_for()


@pytest.mark.parametrize("number", range(10))
def test_a_hostile_clip_of_the_index_is_not_written(tmp_path, monkeypatch, number):
    import gradio
    import hostile_shards

    for name in ("outside", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    clip = hostile_shards.names(tmp_path / "outside")[number]
    packed = ui.ShardReader(str(hostile_shards.make(tmp_path / "shards", key=clip)))
    before = hostile_shards.tree(tmp_path)
    with pytest.raises(gradio.Error):
        ui.looked_at(packed, clip)
    assert hostile_shards.tree(tmp_path) == before
