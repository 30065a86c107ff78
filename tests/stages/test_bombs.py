"""Small files that ask for much, and files that name others: each is refused by name, before it costs anything."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import hostile_videos as hostile
import numpy as np
import pytest

from a2data.media import video
from a2data.media.decode_limits import LimitError, MemoryCeiling
from a2data.records import ClipVideo, Reject, Source, Video
from stages.ingest import Ingest
from stages.segment.stage import Segment

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")


def ingest(path: Path | str, **settings) -> Video | Reject:
    size = Path(path).stat().st_size if Path(path).exists() else 0
    [found] = Ingest(**settings).run(None, [Source("feed", str(path), "", "", "", size, "")])
    return found


def segment(path: Path, **settings) -> list[ClipVideo | Reject]:
    return list(Segment(shot_model="", **settings).run(None, [ingest(path)]))


@pytest.mark.parametrize("pixel_aspect", [(400, 1), (1, 400)])
def test_pixels_of_a_shape_that_no_film_has_are_rejected(tmp_path, pixel_aspect):
    path = hostile.write(tmp_path / "a.mp4", pixel_aspect=Fraction(2))
    reject = ingest(hostile.with_pixel_aspect(path, *pixel_aspect))
    assert (reject.reason, reject.key) == ("pixel aspect", "feed")
    assert "allowed 1:4 to 4:1" in reject.detail


def test_anamorphic_pixels_pass(tmp_path):
    found = ingest(hostile.write(tmp_path / "a.mp4", pixel_aspect=Fraction(64, 45)))
    assert (found.width, found.height) == (455, 240)


def test_a_picture_that_is_longer_than_any_film_is_rejected(tmp_path):
    path = hostile.write(tmp_path / "a.mp4", size=(1280, 256))
    assert ingest(path).reason == "aspect"
    assert isinstance(ingest(path, max_aspect=5.0), Video)


@pytest.mark.parametrize("claimed", [(16_000, 4_000), (65_500, 65_500)])
def test_a_picture_that_is_larger_than_its_container_says_is_rejected(tmp_path, claimed):
    path = hostile.with_jpeg_size(hostile.write(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p"), *claimed)
    try:
        reason = ingest(path).reason
    except ValueError as error:  # the decoder itself refuses what exceeds the bound in pixels
        reason = str(error)
    assert "too large" in reason or "no frame can be decoded" in reason


@pytest.mark.parametrize("claimed", [(16_000, 4_000), (65_500, 65_500)])
def test_pictures_that_grow_in_the_middle_of_a_video_fail_it(tmp_path, claimed):
    plain = hostile.write(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(ValueError, match=r"too large|decoding stopped after frame 19"):
        segment(hostile.with_jpeg_size(plain, *claimed, first=20))


def test_the_longest_side_as_coded_and_as_shown_is_bounded(tmp_path):
    path = hostile.write(tmp_path / "a.mp4", pixel_aspect=Fraction(2))
    assert "640 x 240 as shown" in ingest(path, max_side_px=639).detail
    assert "320 x 240 as coded" in ingest(path, max_side_px=319).detail
    assert isinstance(ingest(path, max_side_px=640), Video)
    with pytest.raises(LimitError, match="320 x 240 as coded"):
        segment(path, max_side_px=319)


def test_a_rate_that_is_a_clock_is_rejected(tmp_path):
    path = hostile.write(tmp_path / "a.mp4", count=150, rate=1500)
    assert ingest(path, min_duration_s=0.05).reason == "too many fps"
    assert isinstance(ingest(path, min_duration_s=0.05, max_fps=1500), Video)


def test_the_number_of_frames_is_bounded_as_stated_and_as_decoded(tmp_path):
    path = hostile.write(tmp_path / "a.mp4")
    assert ingest(path, max_source_frames=39).reason == "too many frames"
    assert isinstance(ingest(path, max_source_frames=40), Video)
    with pytest.raises(LimitError, match="more than 39 frames were decoded"):
        segment(path, max_source_frames=39)
    assert segment(path, max_source_frames=40) == segment(path)


def test_a_file_of_too_many_bytes_is_rejected_unopened(tmp_path):
    path = hostile.write(tmp_path / "a.mp4")
    assert ingest(path, max_bytes=path.stat().st_size - 1).reason == "too many bytes"
    assert isinstance(ingest(path, max_bytes=path.stat().st_size), Video)


def test_limits_on_decoding_are_not_part_of_the_resume_key():
    assert Segment(max_source_frames=1, max_side_px=1, max_decoder_bytes=1).cache_fields() == Segment().cache_fields()


@on_linux
def test_memory_beyond_the_ceiling_is_refused_within_it_alone():
    ceiling = MemoryCeiling(50_000_000)
    # more than a process frees meanwhile: the limit is on what it holds, and objects of earlier tests may go at any time
    with ceiling.held(), pytest.raises(MemoryError):
        bytearray(8_000_000_000)
    assert len(bytearray(100_000_000)) == 100_000_000


ONE_FILE = """
import os, sys
from a2data.records import Source
from stages.ingest import Ingest
from stages.segment.stage import Segment
path, most = sys.argv[1], int(sys.argv[2])
try:
    source = Source("feed", path, "", "", "", os.path.getsize(path), "")
    [found] = Ingest(max_source_frames=10**9, max_decoder_bytes=most).run(None, [source])
    said = getattr(found, "reason", "") or len(list(Segment(shot_model="").run(None, [found])))
except ValueError as error:
    said = error
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), said)
"""


def peak_bytes(path: Path, max_decoder_bytes: int = 1_500_000_000) -> tuple[int, str]:
    """The most memory that a process of its own takes for ingest and segment, and what comes of it."""
    command = [sys.executable, "-c", ONE_FILE, str(path), str(max_decoder_bytes)]
    peak, said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(maxsplit=1)
    return int(peak) * 1024, said.strip()


@on_linux
def test_a_file_that_takes_too_much_memory_to_open_is_rejected(tmp_path):
    path = hostile.write(tmp_path / "a.mp4", count=30, size=(1920, 1080), codec="mpeg4")
    assert peak_bytes(path, 1_000_000)[1] == "memory"


@on_linux
def test_an_index_that_claims_80_million_frames_takes_no_memory(tmp_path):
    """Its 3 kB would otherwise take 4.9 GB and a minute."""
    peak, said = peak_bytes(hostile.with_sample_count(hostile.write(tmp_path / "a.mp4"), 80_000_000))
    assert "none of the frames" in said
    assert peak < 600_000_000


def playlist(kind: str, folder: Path) -> bytes:
    """A text or a picture that FFmpeg would open as a video; the texts name a video that is not theirs to show."""
    if kind in ("gif", "apng"):
        path = folder / f"made.{kind}"
        hostile.write(path, count=5, codec=kind, pix_fmt="rgb8" if kind == "gif" else "rgb24")
        return path.read_bytes()
    other = hostile.write(folder / "secret.ts")
    return {
        "concat": f"ffconcat version 1.0\nfile '{other.name}'\n",
        "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }[kind].encode()


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8"])
@pytest.mark.parametrize("kind", ["concat", "hls", "sdp", "gif", "apng"])
def test_a_playlist_or_a_picture_is_not_opened_whatever_it_is_called(tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(playlist(kind, tmp_path))
    for where in (str(path), f"file://{path}"):
        with pytest.raises(ValueError, match=r"not a (video|container)"):
            ingest(where)
        with pytest.raises(ValueError, match=r"not a (video|container)"):
            next(video.read(where))
    with pytest.raises(av.error.FFmpegError):
        video.decode(path.read_bytes())


def test_a_path_that_is_a_protocol_of_ffmpeg_opens_nothing(tmp_path):
    secret = hostile.write(tmp_path / "secret.ts")
    for path in (f"concat:{secret}|{secret}", f"subfile,,start,0,end,9999999,,:{secret}", f"file:{secret}|x"):
        with pytest.raises((ValueError, OSError)):
            next(video.read(path))


def test_hundreds_of_streams_beside_the_video_do_no_harm(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(900):
            container.add_stream("pcm_s16le", rate=8000).layout = "mono"
        for n in range(40):
            shade = np.full((240, 320, 3), 60 + n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode(None))
    assert isinstance(ingest(path), Video)


def test_a_picture_that_stands_for_ten_minutes_gives_one_second_of_it(tmp_path):
    path = hostile.write(tmp_path / "a.mkv", count=60, times=[*range(30), *range(18_000, 18_030)])
    films = [row for row in segment(path) if isinstance(row, ClipVideo)]
    assert sum(len(film.source_frames) for film in films) <= 60


def test_a_clip_of_more_frames_than_memory_is_refused(tmp_path, monkeypatch):
    data = hostile.write(tmp_path / "a.mp4").read_bytes()
    monkeypatch.setattr(video, "MAX_CLIP_BYTES", 39 * 320 * 240 * 3)
    with pytest.raises(ValueError, match="the clip has more than"):
        video.decode(data)


def test_16_bit_pictures_with_alpha_become_8_bit(tmp_path):
    [film] = segment(hostile.write(tmp_path / "a.mov", count=31, codec="png", pix_fmt="rgba64be"))
    assert film.frames.shape[1:] == (240, 320, 3)
