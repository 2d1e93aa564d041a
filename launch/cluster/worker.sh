#!/usr/bin/env bash
# A machine that joins a cluster, in the foreground: Ctrl-C takes it out again, and its trials continue elsewhere.
#
#     launch/cluster/worker.sh HEAD:PORT
#
# Environment: as for head.sh. The token of the head must lie in ~/.ray/auth_token (or RAY_AUTH_TOKEN_PATH, or RAY_AUTH_TOKEN).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/cluster/common.sh
source "$here/common.sh"
[[ $# == 1 && "$1" == *:* ]] || fail "takes the address of the head, HOST:PORT, got ${*:-nothing}; head.sh prints it"

use_token find
answers "$1" || fail "nothing answers at $1; start head.sh first, and open its ports between the machines"
run_node --address="$1"
