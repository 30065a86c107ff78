"""`a2data completion`, tried in a real bash; the scripts of other shells are compared with the parser."""

import shutil
import subprocess

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
    if not shutil.which("bash"):
        pytest.skip("no bash in PATH")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "a2data.bash"
    script.write_text(capsys.readouterr().out)

    def offered(*words: str) -> list[str]:
        command = ["bash", "-c", COMPLETE, "bash", str(script), "a2data", *words]
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


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in script] == []
    assert "allow-shrink" in script
