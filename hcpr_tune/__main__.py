"""`python -m hcpr_tune` is the same as the command `hcpr_tune`."""

import sys

from hcpr_tune.cli.main import main

sys.exit(main())
