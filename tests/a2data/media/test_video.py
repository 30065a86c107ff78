import itertools
import math
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2data.media import video


def smooth(count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(count, height, width, 3) uint8: a gradient that drifts to the right."""
    x = np.arange(width)[None, :, None] + 3 * np.arange(count)[:, None, None, None]
    y = np.arange(height)[:, None, None]
    return np.stack(np.broadcast_arrays(x[..., 0] % 200 + 20, y[..., 0] + 60, x[..., 0] % 100 + 90), -1).astype(
        np.uint8
    )


def write(path: Path, frames: np.ndarray, fps: int = 30, first_pts: int = 0) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = first_pts + number, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_a_clip_comes_back_as_it_was_encoded():
    frames = smooth(9)
    back = video.decode(video.encode(frames, 15, crf=8))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 3


def test_the_same_frames_give_the_same_bytes():
    assert video.encode(smooth(9), 15) == video.encode(smooth(9), 15)


def test_decord_reads_a_clip_as_pyav_does():
    pytest.importorskip("decord")
    data = video.encode(smooth(9), 15)
    assert np.abs(video.decode(data, "decord").astype(int) - video.decode(data)).max() <= 4


def test_both_backends_read_the_same_frames_at_the_same_times(tmp_path):
    pytest.importorskip("decord")
    path = str(write(tmp_path / "a.mp4", smooth(40)))
    ours, theirs = list(video.read(path)), list(video.read(path, backend="decord"))
    assert [f.index for f in theirs] == [f.index for f in ours] == list(range(40))
    assert [f.pts_s for f in theirs] == pytest.approx([f.pts_s for f in ours], abs=1e-4)
    for a, b in zip(ours, theirs, strict=True):
        difference = np.abs(a.picture.to_ndarray(format="rgb24").astype(int) - b.picture.to_ndarray(format="rgb24"))
        assert difference.max() <= 4


def test_decord_is_refused_what_it_would_misread(tmp_path):
    pytest.importorskip("decord")
    path = str(write(tmp_path / "a.mp4", smooth(10)))
    with pytest.raises(ValueError, match="use the decoder pyav"):
        next(video.read(path, stream=1, backend="decord"))


def test_a_decoder_whose_package_is_missing_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write(tmp_path / "a.mp4", smooth(5))
    for read in (
        lambda: next(video.read(str(path), backend="decord")),
        lambda: video.decode(path.read_bytes(), "decord"),
    ):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'a2data\[decord\]'"):
            read()


def test_a_decoder_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    path = write(tmp_path / "a.mp4", smooth(5))
    for read in (
        lambda: next(video.read(str(path), backend="opencv")),
        lambda: video.decode(path.read_bytes(), "opencv"),
    ):
        with pytest.raises(ValueError, match=r"unknown decoder 'opencv'.*pyav, decord"):
            read()


def test_urls_are_read_through_fsspec(tmp_path):
    path = write(tmp_path / "a.mp4", smooth(5))
    assert len(list(video.read(f"file://{path}"))) == 5


def test_a_stream_that_is_not_there_is_named(tmp_path):
    path = str(write(tmp_path / "a.mp4", smooth(5)))
    with pytest.raises(ValueError, match="video stream 3 does not exist, it has 1"):
        next(video.read(path, stream=3))


@given(st.lists(st.none() | st.floats(-5, 5), min_size=1, max_size=40), st.floats(0.01, 0.2))
def test_time_always_grows(raw, step):
    last, shift, times = -math.inf, 0.0, []
    for value in raw:
        last, shift = video.next_time(value, last, shift, step)
        times.append(last)
    assert all(a < b for a, b in itertools.pairwise(times))


def test_time_is_left_alone_where_it_grows():
    last, shift, times = -math.inf, 0.0, []
    for value in [1.075, 1.1, 1.2, 9.0]:
        last, shift = video.next_time(value, last, shift, 0.04)
        times.append(last)
    assert times == [1.075, 1.1, 1.2, 9.0]


def test_a_clock_that_begins_again_is_joined_to_the_old_one():
    last, shift, times = -math.inf, 0.0, []
    for value in [50.0, 50.5, 0.0, 0.5, 1.0]:
        last, shift = video.next_time(value, last, shift, 0.5)
        times.append(last)
    assert times == [50.0, 50.5, 51.0, 51.5, 52.0]


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile inner.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\ninner.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
)
@pytest.mark.parametrize("by_opener", [False, True])
def test_a_playlist_is_not_a_video_and_opens_nothing_else(tmp_path, monkeypatch, playlist, by_opener):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner.mp4").write_bytes(video.encode(np.zeros((5, 64, 64, 3), np.uint8), 15.0))
    path = tmp_path / "outer.mp4"
    path.write_text(playlist)
    assert video.probe(str(tmp_path / "inner.mp4")).width == 64
    with pytest.raises(ValueError, match=r"not a (video|container)"):
        video.probe(str(path), opener=(lambda: path.open("rb")) if by_opener else None)
