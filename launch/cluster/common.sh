# shellcheck shell=bash
# Sourced by head.sh, worker.sh and the Slurm scripts: the token, the ports, and one Ray node in the foreground.
# Whoever sources it has `set -euo pipefail`.

# Ports that other machines of the cluster must reach; open them between the machines and to nobody else.
GCS_PORT="${GCS_PORT:-6379}"                         # head: where the others join
NODE_MANAGER_PORT="${NODE_MANAGER_PORT:-6380}"       # all
OBJECT_MANAGER_PORT="${OBJECT_MANAGER_PORT:-6381}"   # all
RUNTIME_ENV_PORT="${RUNTIME_ENV_PORT:-6382}"         # all
AGENT_GRPC_PORT="${AGENT_GRPC_PORT:-6383}"           # all
AGENT_HTTP_PORT="${AGENT_HTTP_PORT:-52365}"          # all
METRICS_PORT="${METRICS_PORT:-6384}"                 # all, for a Prometheus; need not be open
WORKER_PORTS="${WORKER_PORTS:-20000-20999}"          # all: one for each process that trains
CLIENT_PORT="${CLIENT_PORT:-10001}"                  # head: Ray Client, which the search does not use; need not be open
# The dashboard listens on the head's loopback only: `ssh -L` leads there.
DASHBOARD_PORT="${DASHBOARD_PORT:-8265}"

# "fixed": the ports above. "any": Ray picks those of the nodes, for machines that several clusters share (Slurm).
PORTS="${PORTS:-fixed}"
# Trials exchange reports of a few hundred bytes; Ray would set aside 30 % of the memory.
OBJECT_STORE_BYTES="${OBJECT_STORE_BYTES:-268435456}"

export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"
# A node that is told to end would wait 30 s for its trials, which continue elsewhere from their last checkpoint anyway.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-5}"
# A detached search that is stopped through Ray (`ray job stop`) would have 3 s to write everything.
export RAY_JOB_STOP_WAIT_TIME_S="${RAY_JOB_STOP_WAIT_TIME_S:-20}"

scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

need_ray() {
    command -v ray >/dev/null || fail "there is no program 'ray' here; activate the environment first (. .venv/bin/activate)"
}

# Where the token lies, and that nobody else may read it. `make` creates it where there is none.
use_token() {
    [[ -z "${RAY_AUTH_TOKEN:-}" ]] || return 0
    local file="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
    if [[ -e "$file" ]] && [[ ! -f "$file" || ! -s "$file" ]]; then
        fail "the token file $file is empty, or no file; delete it, and the head makes one"
    fi
    if [[ ! -s "$file" ]]; then
        [[ "$1" == make ]] || fail "no token in $file; copy it from the head (it is a secret: scp, not a command line)"
        mkdir -p "$(dirname "$file")"
        # `ray get-auth-token --generate` would leave it readable for all. A link is made whole or not at all, and by one of
        # several that try at once.
        (
            umask 077
            draft="$(mktemp "$file.XXXXXX")"
            od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$draft"
            ln "$draft" "$file" 2>/dev/null || true
            rm -f "$draft"
        )
    fi
    # A token that Ray itself has made has the usual mode.
    chmod 600 "$file"
    export RAY_AUTH_TOKEN_PATH="$file"
}

# Whether something listens at HOST:PORT.
answers() {
    # shellcheck disable=SC2016 # the inner shell expands its own arguments
    timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "${1%:*}" "${1##*:}" 2>/dev/null
}

# Ends the processes by their ids: SIGTERM, and SIGKILL for what is left after 30 s.
end_processes() {
    local pid deadline=$((SECONDS + 30))
    for pid in "$@"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        while kill -0 "$pid" 2>/dev/null; do
            if ((SECONDS >= deadline)); then kill -KILL "$pid" 2>/dev/null || true; fi
            sleep 0.2
        done
    done
}

# Why Ray has failed, in one line, by its log: the last line that names an error, else the last one.
why_failed() {
    local line
    line="$(grep -aE '^([A-Za-z_]+\.)*[A-Za-z]+(Error|Exception|Timeout)\b' "$1" | tail -n 1)" || true
    [[ -n "$line" ]] || line="$(grep -a '[^[:space:]]' "$1" | tail -n 1)" || true
    # Without Ray's colours, and its own file and line.
    line="$(sed -E 's/\x1b\[[0-9;]*m//g; s/^[[:space:]0-9:,-]+[[:upper:]]+ [a-z_]+\.py:[0-9]+ -- //' <<<"$line")"
    printf '%.300s' "${line:-it has said nothing}"
}

# Ends the script with one line if HEAD:PORT is no head, or one that does not take the token; Ray itself would try for a minute first.
check_head() {
    local python
    python="$(dirname "$(command -v ray)")/python3"
    [[ -x "$python" ]] || python=python3
    answers "$1" || fail "nothing answers at $1; start head.sh first, and open its ports between the machines"
    PYTHONPATH="$scripts/../..${PYTHONPATH:+:$PYTHONPATH}" "$python" "$scripts/check_head.py" "$1" || exit 2
}

# What the node in this folder offers, by the arguments of its raylet: `node:10.0.0.7,1.0,CPU,8,GPU,1,...`.
resources_in() {
    local arguments
    for arguments in /proc/[0-9]*/cmdline; do
        if grep -qa "raylet_socket_name=$1/" "$arguments" 2>/dev/null; then
            tr '\0' '\n' <"$arguments" 2>/dev/null | sed -n 's/^--static_resource_list=//p'
            return
        fi
    done
}

# `amount_of CPU RESOURCES`
amount_of() {
    tr ',' '\n' <<<"$2" | awk -v wanted="$1" 'name == wanted { amount = $0 } { name = $0 } END { printf "%g", amount }'
}

# One Ray node until it ends or this process is told to end: the name of a function to call once the node is up, then the arguments of
# `ray start`. Ray's own words go to a log, which is deleted with the node and kept, and named, where something went wrong.
run_node() {
    local on_up="$1" options=(--block --object-store-memory="$OBJECT_STORE_BYTES") node="" ending=0 up=0 code=0
    shift
    if [[ "$PORTS" == fixed ]]; then
        options+=(
            --node-manager-port="$NODE_MANAGER_PORT" --object-manager-port="$OBJECT_MANAGER_PORT"
            --runtime-env-agent-port="$RUNTIME_ENV_PORT" --dashboard-agent-grpc-port="$AGENT_GRPC_PORT"
            --dashboard-agent-listen-port="$AGENT_HTTP_PORT" --metrics-export-port="$METRICS_PORT"
            --min-worker-port="${WORKER_PORTS%-*}" --max-worker-port="${WORKER_PORTS#*-}"
        )
    else
        options+=(--dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0)
    fi
    # Ray looks for the address that reaches the head; a machine with several networks may have to be told.
    [[ -z "${NODE_IP:-}" ]] || options+=(--node-ip-address="$NODE_IP")
    [[ -z "${NUM_CPUS:-}" ]] || options+=(--num-cpus="$NUM_CPUS")
    [[ -z "${NUM_GPUS:-}" ]] || options+=(--num-gpus="$NUM_GPUS")
    # Ray opens its folder for temporary files to all users (0777) and runs code from it: so it lies in one of this user alone, with a
    # name that nobody can guess, short as the names of Unix sockets must be, and it ends with the node.
    private="$(mktemp -d "${TEMP_ROOT:-/tmp}/hcpr_tune-node-XXXXXXXX")" || fail "no folder for temporary files in ${TEMP_ROOT:-/tmp}"
    options+=(--temp-dir="$private/r")
    log="$private/ray.log"
    if [[ "$*" == *--head* ]]; then
        # For a Prometheus: a name that stays.
        (umask 077 && mkdir -p "$HOME/.hcpr_tune")
        ln -sfn "$private/r" "$HOME/.hcpr_tune/ray"
    fi
    # `ray stop` would end every Ray of this user on the machine; this ends what was started here.
    trap '((ending)) || { ending=$((SECONDS + 20)); [[ -z "$node" ]] || kill -TERM "$node" 2>/dev/null || true; }' TERM INT HUP
    # A process group of its own: a signal to this one's (Ctrl-C, Slurm) reaches Ray once and in order, and stragglers are found.
    setsid ray start "$@" "${options[@]}" >"$log" 2>&1 &
    node=$!
    while kill -0 "$node" 2>/dev/null; do
        # A Ray that is told to end while it starts may hang; its processes end with it.
        if ((ending && SECONDS >= ending)); then kill -KILL "$node" 2>/dev/null || true; fi
        if ((!up && !ending)) && grep -qaF "Ray runtime started" "$log"; then
            up=1
            "$on_up"
        fi
        sleep 0.5
    done
    wait "$node" || code=$?
    # An agent that was just starting may outlive its node.
    kill -KILL -- "-$node" 2>/dev/null || true
    # Being told to end is no failure.
    if ((ending)); then
        rm -rf "$private"
        return 0
    fi
    rm -rf "$private/r"
    if [[ -n "${head:-}" ]] && ! answers "$head"; then
        echo "$(basename "$0"): the head at $head does not answer any more; Ray's log: $log" >&2
    else
        echo "$(basename "$0"): Ray has ended (code $code): $(why_failed "$log"); its log: $log" >&2
    fi
    return "$((code ? code : 1))"
}
