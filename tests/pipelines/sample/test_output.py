"""Videos as files: whole, with a comment and sound."""

import hashlib
import io
import json

import av
import numpy as np
import pytest
from tiny_song import song

from a2data.media import video
from a2data.store.folder import Folder
from pipelines.sample import output

RECORD = {"key": "k" * 64, "prompt": "eine Frau trinkt Tee 茶", "settings": {"fps": 15.0}}


def colours(*values, height=32, width=48) -> np.ndarray:
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def heard(mp4: bytes) -> np.ndarray:
    """The sound of a video, (samples, ) at 48 kHz."""
    with av.open(io.BytesIO(mp4), "r") as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


def test_the_file_says_how_it_was_made_and_shows_the_same_frames():
    plain = video.encode(colours(*range(0, 200, 20)), 15.0)
    made = output.embed_metadata(plain, RECORD)

    with av.open(io.BytesIO(made), "r") as file:
        assert json.loads(file.metadata["comment"]) == RECORD
    assert np.array_equal(video.decode(made), video.decode(plain))
    assert made == output.embed_metadata(plain, RECORD)


@pytest.mark.parametrize(("start_s", "loud"), [(0.0, False), (1.5, True)])
def test_sound_is_laid_under_from_where_it_is_said_and_cut_to_the_length(tmp_path, start_s, loud):
    made = output.embed_metadata(video.encode(colours(*[90] * 9), 15.0), RECORD, (song(tmp_path / "a.wav"), start_s))
    sound = heard(made)

    assert abs(len(sound) / output.RATE_HZ - 9 / 15) < 0.05
    middle = sound[len(sound) // 4 : -len(sound) // 4]
    assert (np.abs(middle).max() > 0.3) == loud
    if loud:
        rises = ((middle[1:] > 0) & (middle[:-1] <= 0)).sum()
        assert rises / (len(middle) / output.RATE_HZ) == pytest.approx(440, rel=0.02)
    assert len(video.decode(made)) == 9


def test_sound_that_is_shorter_ends_early_and_none_at_all_is_refused(tmp_path):
    clip = video.encode(colours(*[90] * 30), 15.0)
    made = output.embed_metadata(clip, RECORD, (song(tmp_path / "a.wav", 1.5), 1.0))
    assert len(heard(made)) / output.RATE_HZ == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="has no sound at 7 s"):
        output.embed_metadata(clip, RECORD, (song(tmp_path / "a.wav"), 7.0))


def test_a_video_is_done_while_its_file_is_the_one_that_its_record_speaks_of(tmp_path):
    out = str(tmp_path / "deep" / "a.mp4")
    assert not output.is_done(out, RECORD["key"], preview=False)
    output.write(out, colours(10, 20), RECORD, ("", 0.0), None)

    assert output.is_done(out, RECORD["key"], preview=False)
    assert not output.is_done(out, "other", preview=False)
    assert not output.is_done(out, RECORD["key"], preview=True)
    said = json.loads((tmp_path / "deep" / "a.json").read_text())
    assert said == RECORD | {
        "frames_written": 2,
        "sha256": hashlib.sha256((tmp_path / "deep" / "a.mp4").read_bytes()).hexdigest(),
    }
    (tmp_path / "deep" / "a.mp4").write_bytes(b"half")
    assert not output.is_done(out, RECORD["key"], preview=False)
    (tmp_path / "deep" / "a.json").write_text("{")
    assert not output.is_done(out, RECORD["key"], preview=False)


def test_a_write_that_breaks_leaves_no_half_file_and_no_record(tmp_path, monkeypatch):
    def full(self, data, *names):
        with self.writing(*names) as out:
            out.write(data[: len(data) // 2])
            raise OSError("no space left on device")

    monkeypatch.setattr(Folder, "put", full)
    with pytest.raises(OSError, match="no space left"):
        output.write(str(tmp_path / "a.mp4"), colours(10, 20), RECORD, ("", 0.0), None)
    assert list(tmp_path.iterdir()) == []
