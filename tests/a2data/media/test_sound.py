"""The sound of clips, cut from films whose sound is known."""

import numbered_film as film
import numpy as np
import pytest
import sounding_film
from sounding_film import RATE_HZ, Sound, blank, clicks, tone

from a2data.media import sound, video


def cut(path, start_s, length_s, rate_hz=RATE_HZ):
    with sound.reading(str(path), None, rate_hz) as track:
        return track.cut(start_s, length_s)


def written(tmp_path, *sounds, name="film.mkv"):
    return sounding_film.write(tmp_path / name, blank(60), [n / 30 for n in range(60)], *sounds)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return film.write(tmp_path_factory.mktemp("film") / "film.mp4")


def test_the_sound_of_a_clip_starts_with_its_first_frame(path):
    # the tone starts 1 s into the film, so 0.5 s into a sound from 0.5 s
    samples = cut(path, 0.5, 1.5, 32_000).samples
    assert samples.shape == (2, 48_000)
    loud = np.abs(samples[0]) > 0.05
    assert np.argmax(loud) == pytest.approx(16_000, abs=320)  # AAC smears an edge over 10 ms
    assert loud[17_000:47_000].mean() > 0.8


def test_clips_cut_one_after_another_are_in_phase_with_the_source(path):
    with sound.reading(str(path), None, 32_000) as track:
        for start_s in (1.5, 2.0, 2.2, 4.0):
            heard = track.cut(start_s, 0.5).samples[0]
            t = start_s + np.arange(16_000) / 32_000
            assert np.corrcoef(heard, np.sin(2 * np.pi * film.TONE_HZ * t))[0, 1] > 0.999


def test_a_film_without_sound_has_none(tmp_path):
    silent = film.write(tmp_path / "silent.mp4", frames=10, sound_from_s=None)
    with sound.reading(str(silent), None, 32_000) as track:
        assert track is None


def test_times_in_whole_milliseconds_leave_no_gaps(tmp_path):
    # 1024 samples at 44.1 kHz are 23.22 ms, which Matroska rounds
    path = written(tmp_path, Sound(tone(2, rate_hz=44_100), rate_hz=44_100))
    heard = cut(path, 0.5, 1.0).samples[0]
    wave = np.sin(2 * np.pi * 440 * (0.5 + np.arange(RATE_HZ) / RATE_HZ))
    assert np.abs(heard / np.abs(heard).max() - wave).max() < 0.01


@pytest.mark.parametrize(("start_s", "length_s"), [(0.7, 1.0), (0.0, 0.8)])
def test_a_sound_that_starts_late_or_ends_early_is_in_its_place_between_silence(tmp_path, start_s, length_s):
    path = written(tmp_path, Sound(tone(length_s), start_s=start_s))
    heard = np.abs(cut(path, 0.0, 2.0).samples[0])
    loud = np.flatnonzero(heard > 0.001)
    assert loud[0] / RATE_HZ == pytest.approx(start_s, abs=0.002)
    assert loud[-1] / RATE_HZ == pytest.approx(start_s + length_s, abs=0.002)


def test_a_clip_at_whose_time_there_is_no_sound_has_none(tmp_path):
    assert cut(written(tmp_path, Sound(tone(0.5))), 1.0, 0.5).samples is None


def test_the_default_track_is_taken(tmp_path):
    path = written(tmp_path, Sound(tone(2, 3000.0), default=False), Sound(tone(2, 440.0)))
    heard = cut(path, 0.0, 1.0).samples[0]
    assert np.argmax(np.abs(np.fft.rfft(heard))) == 440  # 1 s, so a bin is 1 Hz


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_mono_and_surround_sound_become_stereo(tmp_path, layout, channels):
    samples = tone(2, channels=channels)
    heard = cut(written(tmp_path, Sound(samples, layout=layout)), 0.0, 2.0).samples
    assert heard.shape == (2, 2 * RATE_HZ)
    assert np.corrcoef(heard[1], samples[0])[0, 1] > 0.999
    if channels < 3:  # as loud as before: half of the energy of mono is on each side
        assert np.square(heard).sum() == pytest.approx(np.square(samples).sum(), rel=0.01)


def test_packets_that_cannot_be_decoded_are_reported_and_the_rest_is_in_its_place(tmp_path):
    path = film.write(tmp_path / "film.mp4", frames=90, sound_from_s=0.0)
    whole = cut(path, 0.0, 3.0).samples[0]
    data = bytearray(path.read_bytes())
    with video.open_source(str(path)) as (container, _):
        damaged = [p for p in container.demux(container.streams.audio[0]) if p.pts and 1.0 < p.pts * p.time_base < 1.2]
    for packet in damaged:
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    heard = cut(path, 0.0, 3.0)
    assert f"{len(damaged)} packets of its sound cannot be decoded: " in heard.problem
    assert np.abs(heard.samples[0, 60_000:] - whole[60_000:]).max() < 0.01
    assert cut(path, 2.0, 1.0).problem == ""


def test_sound_in_the_mp4_keeps_the_frames_and_its_bytes_are_equal_again(path):
    samples = cut(path, 2.0, 2.0, 32_000).samples
    mp4 = video.encode([film.numbered(n) for n in range(48)], 24.0)
    made = sound.with_sound(mp4, samples, 32_000)
    assert [film.number_of(picture) for picture in video.decode(made)] == list(range(48))
    assert made == sound.with_sound(mp4, samples, 32_000)
    heard = sound.of_clip(made, 32_000, 0.0, 2.0).samples
    assert np.corrcoef(heard[0], samples[0])[0, 1] > 0.999
    assert np.corrcoef(sound.of_clip(made, 32_000, 0.5, 1.0).samples[0], samples[0, 16_000:48_000])[0, 1] > 0.999


def test_a_click_is_where_it_was_after_a_cut_and_an_encoding(tmp_path):
    path = written(tmp_path, Sound(clicks(2.0, [1.1])))
    mp4 = sound.with_sound(video.encode(np.stack(blank(15)), 15.0), cut(path, 0.75, 1.0).samples, RATE_HZ)
    heard = np.abs(sound.of_clip(mp4, RATE_HZ, 0.0, 1.0).samples[0])
    assert np.argmax(heard > 0.3) / RATE_HZ == pytest.approx(0.35, abs=0.001)
