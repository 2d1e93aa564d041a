"""`python launch/tune.py --space default` is `hcpr_tune tune --space default`."""

import sys

from hcpr_tune.cli.main import main

sys.exit(main(["tune", *sys.argv[1:]], to_the_end=True))
