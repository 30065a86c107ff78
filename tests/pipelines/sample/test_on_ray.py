"""The jobs of `a2data sample` in actors on a real Ray cluster of one node."""

import logging
import os

import pytest
import toy

ray = pytest.importorskip("ray")
pytest.importorskip("jaxtyping")
from pipelines.sample.watch import Nothing  # noqa: E402

from pipelines.run.on_ray import device  # noqa: E402
from pipelines.sample import job as jobs  # noqa: E402
from pipelines.sample import on_ray  # noqa: E402
from pipelines.sample.acceleration import Acceleration  # noqa: E402
from pipelines.sample.sampler import SampleRequest  # noqa: E402


class Toy:
    """A worker that writes down what it was given, and dies of a job with the seed 13."""

    def __init__(self, checkpoint, device, dtype, how):
        self.said = f"{checkpoint} {device} {dtype} {how.cache}"

    def do(self, task):
        if task.job.seed == 13:
            os._exit(1)
        with open(task.job.out, "w") as file:
            file.write(self.said)
        return "ValueError: no" if task.job.seed == 5 else ""


@pytest.fixture
def cluster():
    here = os.pathsep.join([os.path.dirname(toy.__file__), os.getcwd()])
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
             runtime_env={"env_vars": {"PYTHONPATH": here}})  # fmt: skip
    yield
    ray.shutdown()


@pytest.mark.slow
def test_actors_do_every_job_and_name_those_that_failed_or_killed_them(tmp_path, cluster):
    wanted = [
        jobs.located({"out": str(tmp_path / f"{seed}.mp4"), "prompt": "a", "ref": ["human=a.png"], "seed": seed}, ".")
        for seed in (1, 13, 5, 2, 3)
    ]
    seen: list[str] = []
    watch = Nothing()
    watch.made = lambda job, why: seen.append(job.out)
    assert device("auto", None) == "cpu"
    failed = on_ray.spread(
        [SampleRequest(j, {}) for j in wanted], watch, ("a2", "cpu", "float32", Acceleration(cache="taylorseer")), Toy
    )

    assert {os.path.basename(out): why.split("(")[0].strip() for out, why in failed.items()} == {
        "13.mp4": "its worker died",
        "5.mp4": "ValueError: no",
    }
    assert (tmp_path / "3.mp4").read_text() == "a2 cpu float32 taylorseer"
    assert sorted(seen) == sorted(job.out for job in wanted)
    with pytest.raises(ValueError, match="no node of the cluster has a GPU"):
        device("auto", "cuda")
