"""What a worker counts of its units, and when."""

from threading import Barrier, Thread

from a2data import heartbeat
from a2data.heartbeat import Progress
from a2data.media import video


def test_steps_count_for_the_unit_in_work():
    progress = Progress("cut")
    heartbeat.step()
    assert progress.report() == {"": ("cut", 0)}

    with progress.unit("a", "cut"):
        heartbeat.step()
        assert list(heartbeat.counted("xyz")) == ["x", "y", "z"]
        assert progress.report() == {"a": ("cut", 4)}
        progress.enter("measure")
        assert progress.report() == {"a": ("measure", 5)}
    assert progress.report() == {"": ("cut", 1)}  # the job has advanced by a unit


def test_threads_count_for_their_own_units():
    progress, both = Progress("cut"), Barrier(3)

    def work(unit: str, steps: int) -> None:
        with progress.unit(unit, "cut"):
            for _ in range(steps):
                heartbeat.step()
            both.wait(10)
            both.wait(10)

    threads = [Thread(target=work, args=about) for about in (("a", 2), ("b", 5))]
    for thread in threads:
        thread.start()
    both.wait(10)
    assert progress.report() == {"a": ("cut", 2), "b": ("cut", 5)}
    both.wait(10)
    for thread in threads:
        thread.join()


def test_every_decoded_frame_is_a_step(tmp_path):
    import numpy as np

    path = tmp_path / "film.mp4"
    path.write_bytes(video.encode(np.zeros((9, 32, 48, 3), np.uint8), 15, crf=20))
    progress = Progress("segment")

    with progress.unit("a", "segment"):
        assert len(list(video.read(str(path)))) == 9
        assert progress.report() == {"a": ("segment", 9)}
