"""`python launch/evaluate.py --model DIR` is `hcpr_tune evaluate --model DIR`."""

import sys

from hcpr_tune.cli.main import main

sys.exit(main(["evaluate", *sys.argv[1:]], to_the_end=True))
