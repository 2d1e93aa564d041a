"""What a user sees who does not know the commands: help, nearest names, completions of a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hcpr_tune
from hcpr_tune.cli.commands.completion import SHELLS
from hcpr_tune.cli.main import COMMANDS, command_module, command_parser, parser
from hcpr_tune.cli.studies import __path__ as studies_path
from tests.conftest import ROOT


def test_the_command_alone_prints_its_help(command):
    done = command()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == command("--help").stdout
    assert all(f"\n    {name} " in done.stdout for name in COMMANDS)


def test_every_command_is_listed(command):
    folders = [Path(studies_path[0]), Path(studies_path[0]).parent / "commands"]
    assert {path.stem for folder in folders for path in folder.glob("[a-z]*.py")} == set(COMMANDS)
    for name in COMMANDS:
        assert callable(command_module(name).run)
        assert command_parser(parser([name]), name).description


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tun"], "hcpr_tune: error: argument COMMAND: 'tun' is unknown; did you mean tune? See hcpr_tune --help"),
        (["zzz"], "'zzz' is unknown; choose from tune, plan, "),
        (["status", "one", "--jsn"], "unrecognized arguments: --jsn; did you mean --json? See hcpr_tune status --help"),
        (["status", "one", "two"], "unrecognized arguments: two; see hcpr_tune status --help"),
        (["evaluate", "--model", "x", "--split", "tset"], "argument --split: 'tset' is unknown; did you mean test?"),
        (["data", "cifar1"], "data cifar1 cannot be downloaded; did you mean cifar10?"),
        (["completion", "bsh"], "argument SHELL: 'bsh' is unknown; did you mean bash?"),
        (["status"], "hcpr_tune status: error: the following arguments are required: NAME|PATH; see "),
    ],
)
def test_a_misspelt_word_is_one_line_with_the_nearest_one(words, said, command):
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_dir_lists_what_there_is_and_all_of_it_can_be_had():
    assert dir(hcpr_tune) == sorted(hcpr_tune.__all__)
    assert {"Study", "tune", "load_model", "InputError"} <= set(dir(hcpr_tune))
    assert all(getattr(hcpr_tune, name) is not None for name in dir(hcpr_tune))


@pytest.fixture
def here(tmp_path):
    """A folder with three studies and a space, and the command on its own PATH."""
    for name in ("results/bear-1", "results/bear-2", "shared/wolf"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "study.toml").touch()
    (tmp_path / "mine.toml").touch()
    program = tmp_path / "bin" / "hcpr_tune"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hcpr_tune "$@"\n')
    program.chmod(0o755)
    return tmp_path


def completions(here: Path, line: str) -> list[str]:
    """What a real bash offers at the end of a line."""
    script = f"""
source <(hcpr_tune completion bash)
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_WORDS=({line}); COMP_CWORD=1
_python_argcomplete hcpr_tune
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    paths = os.pathsep.join([str(here / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=here,
        env={**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return sorted(line.strip() for line in done.stdout.splitlines() if line.strip())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hcpr_tune st", ["status", "stop"]),
        ("hcpr_tune tune --tri", ["--trials"]),
        ("hcpr_tune evaluate --attack ", ["autoattack", "margin", "pgd"]),
        ("hcpr_tune tune --space ci", ["cifar10", "cifar100", "cifar10_wrn"]),
        ("hcpr_tune tune --space mi", ["mine.toml"]),
        ("hcpr_tune status be", ["bear-1", "bear-2"]),
        ("hcpr_tune status --storage shared ", ["wolf"]),
        ("hcpr_tune tune --resume sha", ["shared/"]),
        ("hcpr_tune tune --set hcpr.sc", ["hcpr.scale="]),
        ("hcpr_tune tune --set model.head=co", ["cosine"]),
        ("hcpr_tune completion ", list(SHELLS)),
    ],
)
def test_a_shell_completes_commands_options_choices_and_names(line, offered, here):
    assert completions(here, line) == sorted(offered)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_tells_what_each_command_does(here):
    script = "source (hcpr_tune completion fish | psub); complete -C 'hcpr_tune sta'; complete -C 'hcpr_tune logs be'"
    paths = os.pathsep.join([str(here / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["fish", "-c", script],
        cwd=here,
        env={**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["status\tthe state of a search", "bear-1", "bear-2"]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_printed_is_code_of_that_shell(shell, command):
    done = command("completion", shell)
    assert done.returncode == 0
    assert "_ARGCOMPLETE" in done.stdout
    assert "hcpr_tune" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", done.stdout], check=True, timeout=20, capture_output=True)
