"""`hcpr_tune completion`: what makes a shell complete the command."""

from __future__ import annotations

import argparse
from typing import Any

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say

SHELLS = ("bash", "zsh", "fish")
INSTALL = """\
where it goes:
  bash  eval "$(hcpr_tune completion bash)"    in ~/.bashrc
  zsh   eval "$(hcpr_tune completion zsh)"     in ~/.zshrc, after compinit
  fish  hcpr_tune completion fish > ~/.config/fish/completions/hcpr_tune.fish
"""


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    completion = commands.add_parser(
        "completion",
        description="Print what makes a shell complete commands, options, choices and names.",
        epilog=INSTALL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """Print the shell's code: it asks the installed command at each key press, so that it never is out of date."""
    from argcomplete.shell_integration import shellcode

    say(shellcode(["hcpr_tune"], shell=options.shell).strip())
    return COMPLETED
