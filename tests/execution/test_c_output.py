"""What compiled code writes to stderr while Ray connects is dropped, and nothing else is."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

PROGRAM = """
import os, sys
from hcpr_tune.execution.connection.host import without_c_output

before = sys.stderr
os.write(2, b"C before\\n")
try:
    with without_c_output():
        os.write(2, b"C in the block\\n")
        print("Python in the block", file=sys.stderr)
        os.system("echo a process that it starts >&2")
        raise ConnectionError
except ConnectionError:
    pass
os.write(2, b"C after\\n")
print("Python after", file=sys.stderr)
assert sys.stderr is before
print("done")
"""


WITHOUT_STDERR = """
from hcpr_tune.execution.connection.host import without_c_output

with without_c_output():
    print("done")
"""


def run(program: str, redirection: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_only_compiled_code_is_silent_and_only_in_the_block():
    done = run(PROGRAM, "")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr.splitlines() == ["C before", "Python in the block", "C after", "Python after"]


def test_a_process_without_stderr_is_left_alone():
    done = run(WITHOUT_STDERR, "2>&-")
    assert (done.returncode, done.stdout) == (0, "done\n")
