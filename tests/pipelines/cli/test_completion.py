"""`a2data completion`, tried in a real bash and fish; zsh reads its script without running it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.cli.commands import COMMANDS
from pipelines.cli.main import main

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_a2data; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path, capsys):
    """A function that returns what bash offers for the last of these words."""
    script = script_of("bash", tmp_path, capsys)

    def offered(*words: str) -> list[str]:
        command = ["bash", "-c", COMPLETE, "bash", script, "a2data", *words]
        out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return out.stdout.split()

    return offered


def test_bash_completes_commands_flags_choices_and_files(complete, tmp_path):
    (tmp_path / "work-1").mkdir()
    assert complete("st") == ["status"]
    assert set(COMMANDS) <= set(complete(""))
    assert complete("detect", "--confid") == ["--confidence"]
    assert complete("run", "--profile", "") == ["builtin", "production", "research", "small"]
    assert complete("models", "licen") == ["licences"]
    assert complete("status", "wor") == ["work-1"]


def script_of(shell: str, folder: Path, capsys) -> str:
    """Write the script of a shell. Returns its path; skips if there is no such shell."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} in PATH")
    assert main(["completion", shell]) == 0
    script = folder / f"a2data.{shell}"
    script.write_text(capsys.readouterr().out)
    return str(script)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_have_no_syntax_error(shell, tmp_path, capsys):
    script = script_of(shell, tmp_path, capsys)
    read = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")


def test_fish_completes_commands_flags_choices_and_files(tmp_path, capsys):
    script = script_of("fish", tmp_path, capsys)
    (tmp_path / "work-1").mkdir()

    def offered(line: str) -> list[str]:
        """What fish offers for the last word, without the descriptions."""
        command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"]
        out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        return [each.partition("\t")[0] for each in out.splitlines()]

    assert offered("a2data st") == ["status"]
    assert set(COMMANDS) <= set(offered("a2data "))
    assert offered("a2data detect --confid") == ["--confidence"]
    assert offered("a2data run --profile ") == ["builtin", "production", "research", "small"]
    assert offered("a2data models licen") == ["licences"]
    assert "work-1/" in offered("a2data status wor")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in script] == []
    assert "allow-shrink" in script
