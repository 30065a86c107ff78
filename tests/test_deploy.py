"""The files in deploy/ agree with one another, with ray_cluster.yaml, the pinned versions and the command line."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pipelines.cli.main import parser

ROOT = Path(__file__).parents[1]
JOB, CLUSTER = (yaml.safe_load((ROOT / "deploy" / name).read_text()) for name in ("rayjob.yaml", "raycluster.yaml"))


def understood(command: str) -> bool:
    """Whether the command line accepts a command; the parser raises UsageError if not."""
    program, *words = shlex.split(command)
    return program == "a2data" and bool(parser().parse_args(words))


def test_the_job_and_the_cluster_have_the_same_nodes():
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_the_nodes_are_those_of_ray_cluster_yaml():
    types = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())["available_node_types"]
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == str(types["head"]["resources"]["CPU"])
    for group in CLUSTER["spec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert limits == container["resources"]["requests"]
        same = types[group["groupName"]]
        assert group["maxReplicas"] == same["max_workers"]
        assert int(limits["cpu"]) == same["resources"]["CPU"]
        assert int(limits.get("nvidia.com/gpu", 0)) == same["resources"].get("GPU", 0)


def test_the_cluster_asks_for_a_token_and_has_the_pinned_ray():
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    assert f"ray=={CLUSTER['spec']['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()


def test_the_command_of_the_job_is_understood():
    assert understood(JOB["spec"]["entrypoint"])


def test_the_image_copies_what_the_context_has_and_installs_extras_that_there_are():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.*)$", text, re.M) for name in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for line in re.findall(r"EXTRAS=(\S+)", text) for extra in line.split(",")} <= extras.keys()


@pytest.fixture
def slurm(tmp_path):
    """A PATH with a scontrol of two nodes and an srun that prints its arguments."""
    for name, script in {"scontrol": "printf 'n1\\nn2\\n'", "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "123456", "SLURM_JOB_NUM_NODES": "2"}
    return os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_slurm_starts_ray_on_all_nodes_and_the_command_with_its_arguments(slurm):
    words = ["my videos", "--work", "/shared/work"]
    command = ["bash", str(ROOT / "deploy" / "a2data.sbatch"), *words]
    said = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout.splitlines()
    start, run = said[: said.index("--")], said[said.index("--") + 1 :]
    address = start[start.index("--address") + 1]
    assert start[-2:] == ["--min-nodes", "2"]
    assert re.fullmatch(r"n1:\d{5}", address)
    assert run == ["a2data", "run", *words, "--ray", address]
    assert understood(shlex.join(run))
