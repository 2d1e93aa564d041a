#!/usr/bin/env bash
# The head of a cluster of several machines, in the foreground: Ctrl-C ends it, and the cluster with it.
#
#     launch/cluster/head.sh
#
# Environment: NUM_CPUS and NUM_GPUS (what trials may use of this machine; default: all of it, NUM_CPUS=0 NUM_GPUS=0: nothing),
# NODE_IP (this machine's address, where it has several), and the ports of common.sh.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/cluster/common.sh
source "$here/common.sh"
[[ $# == 0 ]] || fail "takes no arguments, got $*; settings are environment variables, see the top of the file"

need_ray
use_token make
if answers "127.0.0.1:$GCS_PORT"; then
    fail "port $GCS_PORT of this machine is in use, perhaps by a head that runs already; end that, or set GCS_PORT"
fi

say_next_steps() {
    # Under Slurm the job goes on by itself.
    [[ "$PORTS" == fixed ]] || return 0
    local host="${NODE_IP:-$(hostname)}" token="${RAY_AUTH_TOKEN_PATH:-}"
    cat <<TEXT
token         ${token:-in RAY_AUTH_TOKEN}
open          TCP $GCS_PORT, $NODE_MANAGER_PORT to $AGENT_GRPC_PORT, $AGENT_HTTP_PORT, $WORKER_PORTS, between the machines of the cluster only
each worker   copy the token once, then join:
              ssh WORKER 'mkdir -p -m 700 .ray' && scp -p $(printf %q "${token:-TOKEN_FILE}") WORKER:.ray/auth_token
              launch/cluster/worker.sh $host:$GCS_PORT
search, here  hcpr_tune tune --space default --name NAME --continue --storage SHARED --address $host:$GCS_PORT --wait 600
nodes         launch/cluster/status.sh $host:$GCS_PORT
dashboard     ssh -L $DASHBOARD_PORT:127.0.0.1:$DASHBOARD_PORT $host, then http://127.0.0.1:$DASHBOARD_PORT; it asks for the token
log           $log
TEXT
}

[[ "$PORTS" != fixed ]] || echo "starting Ray's head, which takes about ten seconds ..." >&2
run_node say_next_steps --head --port="$GCS_PORT" --ray-client-server-port="$CLIENT_PORT" \
    --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD_PORT" --disable-usage-stats
