#!/usr/bin/env bash
# The nodes of a cluster, and what is in use: `ray status`, with the token.
#
#     launch/cluster/status.sh [HEAD:PORT]
#
# Without an address: that of the head on this machine.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/cluster/common.sh
source "$here/common.sh"
[[ $# == 0 || ($# == 1 && "$1" == *:*) ]] || fail "takes the address of the head, HOST:PORT, or nothing, got $*"

address="${1:-${NODE_IP:-$(hostname)}:$GCS_PORT}"
need_ray
use_token find
check_head "$address"
exec ray status --address="$address"
