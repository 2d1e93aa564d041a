"""`python launch/verdict.py NAME` is `hcpr_tune verdict NAME`."""

import sys

from hcpr_tune.cli.main import main

sys.exit(main(["verdict", *sys.argv[1:]], to_the_end=True))
