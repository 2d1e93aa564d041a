"""`python launch/train.py --recipe FILE` is `hcpr_tune train --recipe FILE`."""

import sys

from hcpr_tune.cli.main import main

sys.exit(main(["train", *sys.argv[1:]], to_the_end=True))
