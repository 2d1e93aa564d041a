# shellcheck shell=bash
# Sourced by search.sbatch and head.sbatch, which have set PROJECT: a head and workers as job steps, the search in the batch script,
# and what happens when Slurm wants the nodes back.
# shellcheck source=launch/cluster/common.sh
source "$PROJECT/launch/cluster/common.sh"

SPACE="${SPACE:-default}"              # a search space: a name in search_spaces/, or a path
NAME="${NAME:-search}"                 # the study; the job begins it, or continues it
STORAGE="${STORAGE:-$PROJECT/results}" # a folder that all nodes share, or s3://BUCKET/PATH
WAIT="${WAIT:-600}"                    # seconds to wait for the first worker
VENV="${VENV-$PROJECT/.venv}"          # a virtual environment that all nodes share; empty: what PATH has
# Several jobs may share a node, so each job has ports of its own, below those that Linux hands out by itself (32768 and up).
PORTS=any
GCS_PORT=$((20000 + SLURM_JOB_ID % 4000 * 3))
DASHBOARD_PORT=$((GCS_PORT + 1))
CLIENT_PORT=$((GCS_PORT + 2))
export PORTS GCS_PORT DASHBOARD_PORT CLIENT_PORT

# shellcheck disable=SC1091 # the environment of the user
[[ -z "$VENV" ]] || source "$VENV/bin/activate"
cd "$PROJECT" || fail "there is no folder $PROJECT"

nodes=()       # process ids of the job steps, the head first
driver=""      # process id of the search
address=""     # HOST:PORT of the head
interrupted=0  # 1 once Slurm has asked for the nodes
again=0        # 1 if the job goes back into the queue

# Ends the search and the nodes, workers before the head.
clean_up() {
    trap - EXIT
    # Empty while this job waits in the queue again, so that the workers wait too; gone at the end of the search.
    if [[ -n "${ADDRESS_FILE:-}" ]]; then
        if ((again)); then : >"$ADDRESS_FILE"; else rm -f "$ADDRESS_FILE"; fi
    fi
    [[ -z "$driver" ]] || end_processes "$driver"
    [[ ${#nodes[@]} == 0 ]] || end_processes "${nodes[@]:1}"
    [[ ${#nodes[@]} == 0 ]] || end_processes "${nodes[0]}"
}

# The end of the job with this exit code; back into the queue if Slurm has interrupted the search.
finish() {
    # 143: the signal came before the search could handle it. Without a signal, 130 means that somebody stopped the search. A job that
    # the user has cancelled gets the same signal, but Slurm does not call it running any more.
    if ((interrupted)) && (($1 == 130 || $1 == 143)) && scontrol show job "$SLURM_JOB_ID" | grep -q 'JobState=RUNNING'; then
        again=1
    fi
    clean_up
    if ((again)); then
        echo "interrupted; job $SLURM_JOB_ID goes back into the queue and continues the study $NAME from there"
        # Slurm ends what is left of the job, this script too.
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$1"
}

on_term() {
    ((!interrupted)) || return 0
    interrupted=1
    [[ -n "$driver" ]] || finish 130
    # The search writes everything and ends within 10 s; a second signal would cut that short.
    kill -TERM "$driver" 2>/dev/null || true
}
trap on_term TERM
trap clean_up EXIT

# A node of the cluster as a job step: HOST, then a script of launch/cluster with its arguments.
start_node() {
    local host="$1" script="$PROJECT/launch/cluster/$2"
    shift 2
    # A node that dies takes its own step along and nothing else; Slurm's steps do not inherit --cpus-per-task.
    srun --nodes=1 --ntasks=1 --nodelist="$host" \
        --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --no-kill bash "$script" "$@" &
    nodes+=($!)
}

# The head on HOST; returns when it answers.
start_head() {
    local deadline=$((SECONDS + 180))
    use_token make
    address="$1:$GCS_PORT"
    start_node "$1" head.sh
    until answers "$address"; do
        kill -0 "${nodes[0]}" 2>/dev/null || fail "the head ended while it started; its messages stand above"
        ((SECONDS < deadline)) || fail "the head does not answer at $address after 180 s"
        sleep 1
    done
    echo "head at $address; dashboard: ssh -L 8265:127.0.0.1:$DASHBOARD_PORT $1 (it asks for the token in ${RAY_AUTH_TOKEN_PATH:-RAY_AUTH_TOKEN})"
}

# The search until it ends, with more arguments for hcpr_tune, and the end of the job.
run_search() {
    local code=0
    hcpr_tune tune --space "$SPACE" --name "$NAME" --continue --storage "$STORAGE" --address "$address" --wait "$WAIT" "$@" &
    driver=$!
    # A trapped signal ends `wait` early: ask again until the search is gone.
    while kill -0 "$driver" 2>/dev/null; do wait "$driver" || true; done
    wait "$driver" || code=$?
    finish "$code"
}
