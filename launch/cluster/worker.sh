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

head="$1"
need_ray
use_token find
check_head "$head"

say_joined() {
    local found address
    found="$(resources_in "$private/r")"
    address="$(tr ',' '\n' <<<"$found" | sed -n 's/^node://p')"
    echo "joined        $head as ${address:-$(hostname)} with $(amount_of CPU "$found") CPUs and $(amount_of GPU "$found") GPUs"
    # Slurm ends its nodes by itself.
    [[ "$PORTS" != fixed ]] || echo "leave         Ctrl-C; its trials go on elsewhere"
    echo "log           $log"
}

run_node say_joined --address="$head"
