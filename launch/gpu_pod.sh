#!/usr/bin/env bash
# Trains on hosts that ssh reaches: starts main.py on each, shows their output with the host before it, and ends all of
# them when one fails. Ctrl-C and SIGTERM go to all, which save the same step. Processes that were lost or stopped from
# outside are started again, all of them, and go on from the last checkpoint.
#
#   launch/gpu_pod.sh --hosts=a,b|FILE [--gpus=8] [--port=12355] [--directory=DIR] [--python=python] \
#       [--restarts=3] [--grace=60] [--dry_run] -- \
#       --config=configs/x.py --workdir=/shared/x [--config.FIELD=VALUE ...]
#
# After `--` come main.py's own arguments; `--distributed=env` is added, and the environment that it reads; of the
# environment here TFDS_DATA_DIR, LT_NOISY_CACHE, JAX_COMPILATION_CACHE_DIR and XLA_FLAGS go with it.
#   --hosts      names with commas between them, or a file with one a line (# begins a comment); as ssh takes them
#   --gpus       processes on each host, with one GPU each; without it one process a host has them all
#   --port       of the first host, which all must reach there
#   --directory  the checkout on every host; by default where this one is
#   --python     the interpreter there, such as .venv/bin/python
#   --restarts   after a process was lost or stopped from outside (143, 75, 134, 137; 255, a lost connection)
#   --grace      seconds that the others have to end by themselves after one has failed
#   --dry_run    prints the commands
# The workdir has to be one directory that all hosts see. Exit status: 0 all finished, else that of the process that
# failed first, and 2 (wrong input) before all others; 2 for wrong flags too.
set -euo pipefail

hosts='' gpus='' port=12355 directory='' python=python restarts=3 grace=60 dry_run=''
stopping=''

trap '' PIPE # who reads may be gone before all have saved, as `tee` on Ctrl-C
say() { echo "gpu_pod: $*" >&2 || true; }
wrong() {
    echo "error: $*" >&2
    exit 2
}
quoted() { # a space and the argument, for each, as a shell takes it
    local argument
    for argument; do
        if [[ $argument =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
            printf ' %s' "$argument"
        else
            printf " '%s'" "${argument//\'/\'\\\'\'}"
        fi
    done
}

while [ $# -gt 0 ]; do
    case $1 in
        --hosts=* | --gpus=* | --port=* | --directory=* | --python=* | --restarts=* | --grace=*)
            flag=${1%%=*}
            printf -v "${flag#--}" %s "${1#*=}"
            ;;
        --dry_run) dry_run=yes ;;
        -h | --help)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
            exit
            ;;
        --)
            shift
            break
            ;;
        *) wrong "'$1' is no flag of gpu_pod.sh; those of main.py come after --" ;;
    esac
    shift
done
[ -n "$hosts" ] || wrong "--hosts is needed: names with commas between them, or a file with one a line"
[[ $hosts != */* || -f $hosts ]] || wrong "--hosts: there is no file '$hosts'"
for flag in port restarts grace ${gpus:+gpus}; do
    [[ ${!flag} =~ ^[0-9]+$ ]] || wrong "--$flag is a number, not '${!flag}'"
done
[ "${gpus:-1}" -gt 0 ] || wrong "--gpus is at least 1"
if [ -f "$hosts" ]; then
    hosts=$(sed 's/#.*//' "$hosts")
fi
read -r -d '' -a hosts <<< "${hosts//,/ }" || true
[ ${#hosts[@]} -gt 0 ] || wrong "--hosts names none"
[ -n "$directory" ] || directory=$(cd "$(dirname "$0")/.." && pwd)

# Process i has host[i], label[i] and command[i]; its id lies in a file on its host, for ssh forwards no signal.
launch="$(date +%s).$$"
count=$((${#hosts[@]} * ${gpus:-1}))
remote=(ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=4)
forwarded=''
for name in TFDS_DATA_DIR LT_NOISY_CACHE JAX_COMPILATION_CACHE_DIR XLA_FLAGS; do
    [ -z "${!name:-}" ] || forwarded+=$(quoted "$name=${!name}")
done
host=() label=() command=() pids=()
for name in "${hosts[@]}"; do
    for ((gpu = 0; gpu < ${gpus:-1}; gpu++)); do
        i=${#host[@]}
        environment="JAX_COORDINATOR_ADDRESS=${hosts[0]#*@}:$port JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$i"
        environment+="${gpus:+ JAX_LOCAL_DEVICE_IDS=$gpu}$forwarded"
        host+=("$name")
        label+=("$name${gpus:+:$gpu}")
        command+=("cd$(quoted "$directory") && echo \$\$ > /tmp/lt_noisy.$launch.$i && \
exec env $environment$(quoted "$python") main.py$(quoted "$@") --distributed=env")
    done
done
if [ -n "$dry_run" ]; then
    for i in "${!host[@]}"; do echo "${remote[*]}$(quoted "${host[i]}" "${command[i]}")"; done
    exit
fi

labelled() {
    local line
    while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line" || true; done
}
pause() { # seconds; a signal ends it
    sleep "$1" &
    wait $! || true
}
start() { # each in a process group of its own, which the terminal's Ctrl-C does not reach
    set -m
    for i in "${!host[@]}"; do
        ("${remote[@]}" "${host[i]}" "${command[i]}" < /dev/null 2>&1 | labelled "${label[i]}") &
        pids[i]=$!
    done
    set +m
}
signal() { # a signal, processes: sends it to them, over a connection of its own for each
    local name=$1 i file waits=()
    shift
    set -m
    for i; do
        file=/tmp/lt_noisy.$launch.$i # not there while the connection is made
        "${remote[@]}" "${host[i]}" "for n in 1 2 3 4 5; do [ -s $file ] && break; sleep 1; done
kill -s $name \$(cat $file)$([ "$name" != KILL ] || echo "; rm $file")" < /dev/null 2> /dev/null &
        waits+=($!)
    done
    set +m
    for i in "${waits[@]}"; do wait "$i" || true; done
}
supervise() { # waits for all, and returns the status of the first failure; the others end with it
    local status=0 code deadline=''
    while [ ${#pids[@]} -gt 0 ]; do
        for i in "${!pids[@]}"; do
            kill -0 "${pids[i]}" 2> /dev/null && continue
            code=0
            wait "${pids[i]}" || code=$?
            unset "pids[i]"
            [ $code -eq 0 ] || [ -n "$stopping$deadline" ] || {
                say "${label[i]} ended with status $code, so the others end too"
                deadline=$((SECONDS + grace))
                signal TERM "${!pids[@]}"
            }
            if [ $status -eq 0 ] || [ $code -eq 2 ]; then status=$code; fi
        done
        if [ -n "$deadline" ] && [ $SECONDS -ge "$deadline" ]; then
            signal KILL "${!pids[@]}"
            deadline=$((SECONDS + grace))
        fi
        pause 0.2
    done
    return $status
}
interrupted() { # all save the same step; a second signal waits no longer
    if [ -n "$stopping" ]; then
        signal KILL "${!pids[@]}"
        exit 143
    fi
    stopping=yes
    say "all save and stop; once more to kill them"
    signal TERM "${!pids[@]}"
}
trap interrupted TERM INT

for ((tries = 0; ; tries++)); do
    start
    status=0
    supervise || status=$?
    [ -z "$stopping" ] || exit $status
    case $status in 143 | 75 | 134 | 137 | 255) ;; *) exit $status ;; esac
    if [ $tries -eq "$restarts" ]; then
        say "gave up with status $status: $restarts restarts"
        exit $status
    fi
    say "status $status: starting all again ($((tries + 1)) of $restarts)"
    signal KILL "${!host[@]}" # a process whose connection broke may live, and would hold the workdir
    [ -z "$stopping" ] || exit $status
done
