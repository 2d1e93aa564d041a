"""`check_head.py HEAD:PORT`: whether this is the head of a cluster that takes the token here. One line if not."""

import sys

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.handshake import mode_of

try:
    mode_of(sys.argv[1])
except InputError as error:
    sys.exit(f"hcpr_tune: error: {error}")
