"""`a2data ui` in a real browser: a video is sampled from an upload, a bad upload is a sentence, shards are looked through."""

import importlib.util
import json
import time
from types import SimpleNamespace

import pytest

from a2data.media import video
from pipelines.cli.main import main
from pipelines.ui.sample import SETTING_NAMES, CancelledError, Progress, SingleFlight, make_job, sample_updates
from pipelines.ui.shards import ShardReader, highlight, triplet_outputs

lacking = [name for name in ("diffusers", "gradio") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(lacking), reason=f"lacks {' and '.join(lacking)}")


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


def test_a_video_is_sampled_from_what_was_uploaded_and_a_wrong_size_is_a_sentence(
    opened, serious, checkpoint, tmp_path
):
    import tiny_a2

    picture = tiny_a2.picture(tmp_path / "woman.png")
    tab = opened(str(checkpoint), None, str(tmp_path / "made"))
    tab.locator("#prompt textarea").fill("a woman drinks")
    tab.locator("#human input[type=file]").set_input_files(str(picture))
    tab.locator("#human img").first.wait_for()  # uploaded, and shown: a click before that would sample without it
    tab.get_by_label("Cut out people and objects").uncheck()
    tab.locator("#settings button").first.click()
    fill(tab, {"height": "30", "width": "48", "frames": "13", "steps": "2"})
    tab.locator("#start").click()
    tab.get_by_text("height and width must be divisible by 16").wait_for()
    assert serious(tab) == []

    tab.locator("#height input").fill("32")
    tab.locator("#start").click()
    tab.locator("#video video").wait_for()
    tab.get_by_text("step 2 of 2").wait_for()
    assert "made/0001.mp4" in tab.locator("#status").inner_text()
    assert tab.locator("#sheet img").evaluate("img => img.naturalWidth") > 300
    assert tab.locator("#cancel").is_disabled()
    tab.locator("#record button").first.click()
    tab.locator("#record .json-node").first.wait_for()
    assert serious(tab) == []
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
    made = highlight("a man in a red top", [(0, 18, "ref0"), (9, 18, "ref1")])
    assert made == [("a man in ", "ref0"), ("a red top", "ref0 ref1")]
    assert highlight("a room", []) == [("a room", None)]


def test_an_empty_number_is_named(tmp_path):
    values = {name: 1 for name in SETTING_NAMES} | {"scheduler": "euler", "negative_prompt": "", "steps": None}
    with pytest.raises(ValueError, match="steps: enter a number"):
        make_job("a", (["woman.png"], [], None), True, values, str(tmp_path))


def test_a_page_on_which_nothing_was_filled_in_says_what_is_lacking():
    import gradio

    once = SingleFlight("nowhere", None)
    with pytest.raises(gradio.Error) as error:
        next(sample_updates(once, "made", "session", "", None, None, None, True, *[1] * len(SETTING_NAMES)))
    first, second = error.value.message.split("<br>")
    assert first == "the prompt is empty: describe the video"
    assert second.startswith("no reference: upload an image")


@pytest.fixture
def asked(tmp_path):
    """What the page gives `sample_updates`: a prompt, a picture of a person and the settings of a small video."""
    import tiny_a2

    picture = tiny_a2.picture(tmp_path / "woman.png")
    return "a woman", [(str(picture), None)], None, None, False, 32, 48, 13, 4, 5.0, 1.0, 8.0, "unipc", 0, ""


class Endless(SingleFlight):
    """Samples until it is cancelled."""

    def sample(self, job, digests, progress):
        while True:
            progress.step()
            time.sleep(0.01)


def test_a_video_is_cancelled_between_two_steps_and_only_by_its_own_page(asked, tmp_path):
    once = Endless(SimpleNamespace(defaults={}, conditioning="a2"), None)
    shown = sample_updates(once, str(tmp_path / "made"), "mine", *asked)
    assert next(shown)[0] == (None, "", None)
    once.cancel("another page")
    made, text, busy = next(shown)
    assert (made, busy) == (None, True)
    assert "sampling, step" in text
    once.cancel("mine")
    *_, (made, text, busy) = shown
    assert (made, busy) == (None, False)
    assert "cancelled, step" in text


def test_a_video_that_waits_for_another_is_cancelled_too():
    once, progress = SingleFlight(SimpleNamespace(), None), Progress(4)
    progress.cancelled.set()
    with once.lock, pytest.raises(CancelledError):
        once.sample(None, {}, progress)
    assert progress.phase == "waiting for the video before"


def test_a_page_that_is_closed_ends_its_video(asked, tmp_path):
    once = Endless(SimpleNamespace(defaults={}, conditioning="a2"), None)
    shown = sample_updates(once, str(tmp_path / "made"), "mine", *asked)
    next(shown)
    shown.close()
    assert once.running["mine"].cancelled.is_set()


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
    packed = ShardReader(str(hostile_shards.make(tmp_path / "shards", key=clip)))
    before = hostile_shards.tree(tmp_path)
    with pytest.raises(gradio.Error):
        triplet_outputs(packed, clip)
    assert hostile_shards.tree(tmp_path) == before
