"""Files as they are found in the wild: each is processed rightly, or refused in words that a person understands."""

import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from a2data.records import ClipVideo, Reject, Source
from pipelines.sources import manifest
from stages.ingest import Ingest
from stages.segment.stage import Segment

HEIGHT, WIDTH, BLOCK = 240, 320, 24


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame that says its number: in the top left corner a white block, right of it 8 blocks, black or white, for its bits."""
    x, y = np.meshgrid(np.linspace(60, 200, width), np.linspace(40, 160, height))
    frame = np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8)
    for place, white in enumerate([True] + [bool(number >> bit & 1) for bit in range(8)]):
        frame[:BLOCK, place * BLOCK : (place + 1) * BLOCK] = 235 if white else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """What `picture` has drawn."""
    middles = [frame[BLOCK // 2, place * BLOCK + BLOCK // 2].mean() > 128 for place in range(9)]
    assert middles[0], "the top left corner is not where it was drawn"
    return sum(1 << bit for bit, white in enumerate(middles[1:]) if white)


def write(
    path: Path,
    times: list[float],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rotation: int = 0,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video that shows picture(n) from times[n] (seconds) on."""
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 3000)
        if rotation:
            stream.set_display_rotation(-rotation)
        for number, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, size[1], size[0]), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 3000), Fraction(1, 3000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def at_30_fps(count: int = 60) -> list[float]:
    return [number / 30 for number in range(count)]


def process(path: Path | str) -> list[ClipVideo | Reject]:
    """What ingest and segment make of one file."""
    [source] = manifest.sources([str(path)])
    rows = []
    for row in Ingest().run(None, [source]):
        rows += [row] if isinstance(row, Reject) else Segment(shot_model="").run(None, [row])
    return rows


def clip_of(path: Path | str) -> ClipVideo:
    """The one clip of a file; checks that each of its frames shows the source frame that it names."""
    [film] = process(path)
    assert isinstance(film, ClipVideo), film
    assert [number_of(frame) for frame in film.frames] == film.source_frames
    return film


def due(times: list[float], count: int) -> list[int]:
    """Which frame is on screen at each 1/15 s after the first: the last one that has begun, found by search."""
    return [max(n for n, t in enumerate(times) if t <= times[0] + tick / 15 + 0.002) for tick in range(count)]


def refusal(path: Path | str) -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        process(path)
    return str(error.value)


def test_a_plain_video_gives_every_second_frame(tmp_path):
    assert clip_of(write(tmp_path / "a.mp4", at_30_fps())).source_frames == list(range(0, 60, 2))


def test_text_that_is_called_mp4_is_not_a_video(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("dear diary, " * 500)
    assert "not a video" in refusal(path)


def test_a_file_without_a_byte_is_not_a_video(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "empty" in refusal(path)


def test_a_truncated_file_is_refused_with_the_frame_where_it_stops(tmp_path):
    whole = write(tmp_path / "whole.mp4", at_30_fps(90), options={"movflags": "+faststart"}).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    assert re.search(r"decoding stopped after frame \d+ \(\d\.\d\d s\): .*complete\?", refusal(path))


def test_a_file_without_its_index_is_not_a_video(tmp_path):
    whole = write(tmp_path / "whole.mp4", at_30_fps()).read_bytes()
    path = tmp_path / "no-moov.mp4"
    path.write_bytes(whole[: whole.index(b"moov") - 4])
    assert "without its index" in refusal(path)


def test_sound_alone_is_not_a_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "does not contain a video stream, only audio" in refusal(path)


def test_a_folder_without_video_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(ValueError, match="does not contain videos"):
        manifest.sources([str(tmp_path)])


def test_one_frame_is_too_short(tmp_path):
    [reject] = process(write(tmp_path / "one.mp4", [0.0]))
    assert reject.reason == "too short"


def test_16_by_16_pixels_are_too_small(tmp_path):
    [reject] = process(write(tmp_path / "tiny.mp4", at_30_fps(), size=(16, 16)))
    assert (reject.reason, reject.detail) == ("too small", "16 x 16: the short side is under 200 px")


def test_odd_sizes_become_even(tmp_path):
    film = clip_of(write(tmp_path / "odd.mp4", at_30_fps(), pix_fmt="yuv444p", size=(321, 241)))
    assert (film.width, film.height) == (320, 240)
    assert film.crop == (0, 0, 321, 241)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_is_turned_upright(tmp_path, rotation):
    """The camera lay on its side: what it wrote down has to be turned clockwise by `rotation`."""
    path = write(tmp_path / "turned.mp4", at_30_fps(), rotation=rotation)
    [film] = process(path)
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    upright = np.rot90(first, -rotation // 90)
    assert (film.height, film.width) == upright.shape[:2]
    assert np.abs(film.frames[0].astype(int) - upright).mean() < 3


def test_a_rotation_written_into_the_index_turns_clockwise(tmp_path):
    """By the QuickTime file format, (a, b, c, d) = (0, 1, -1, 0) takes the top left corner to the top right."""
    data = bytearray(write(tmp_path / "plain.mp4", at_30_fps()).read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    [film] = process(path)
    assert (film.width, film.height) == (HEIGHT, WIDTH)
    assert film.frames[0, BLOCK // 2, -BLOCK // 2].mean() > 200


def test_variable_frame_rates_keep_their_time(tmp_path):
    times = [0.0]
    for number in range(70):
        times.append(times[-1] + (0.01, 0.033, 0.09)[number % 3])
    film = clip_of(write(tmp_path / "vfr.mkv", times))
    assert film.source_frames == due(times, len(film.source_frames))
    assert film.source_pts_s == pytest.approx([times[n] for n in film.source_frames], abs=0.001)
    assert len(film.source_frames) == pytest.approx(times[-1] * 15, abs=2)


def test_10_bit_video_becomes_8_bit(tmp_path):
    film = clip_of(write(tmp_path / "deep.mp4", at_30_fps(), codec="libx265", pix_fmt="yuv420p10le"))
    assert np.abs(film.frames[0].astype(int) - picture(0)).mean() < 4


def test_av1_is_read(tmp_path):
    assert clip_of(write(tmp_path / "av1.mp4", at_30_fps(), codec="libsvtav1")).source_frames == list(range(0, 60, 2))


def test_a_transport_stream_is_read_and_starts_where_it_starts(tmp_path):
    film = clip_of(write(tmp_path / "a.ts", at_30_fps()))
    assert film.source_frames == list(range(0, 60, 2))
    assert film.source_pts_s[0] > 0  # as FFmpeg's multiplexer begins them


def test_a_first_time_other_than_zero_moves_the_clock(tmp_path):
    times = [7.5 + time_s for time_s in at_30_fps()]
    film = clip_of(write(tmp_path / "late.mkv", times))
    assert film.source_frames == list(range(0, 60, 2))
    assert film.source_pts_s[0] == pytest.approx(7.5, abs=0.001)


def test_metadata_that_is_not_utf8_is_accepted(tmp_path):
    path = write(tmp_path / "plain.mkv", at_30_fps(), metadata={"title": "REPLACE-ME"})
    path.write_bytes(path.read_bytes().replace(b"REPLACE-ME", b"caf\xe9 \xff\xfe!!!"))
    assert len(clip_of(path).source_frames) == 30


def test_of_several_video_streams_the_largest_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream, (width, height) in zip(streams, [(160, 120), (WIDTH, HEIGHT)], strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(60):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(number, stream.height, stream.width), format="rgb24")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    film = clip_of(path)
    assert (film.width, film.height, len(film.source_frames)) == (WIDTH, HEIGHT, 30)


def test_names_with_spaces_and_unicode_are_names(tmp_path):
    path = write(tmp_path / "été à Łódź, 東京 [1080p] %20 #1.mp4", at_30_fps())
    assert len(clip_of(path).source_frames) == 30


def test_a_video_that_is_not_there_is_named(tmp_path):
    gone = Source("unread-0", str(tmp_path / "gone.mp4"), "", "", "", 0, "")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        list(Ingest().run(None, [gone]))
