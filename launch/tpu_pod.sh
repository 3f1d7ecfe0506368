#!/usr/bin/env bash
# Trains on a TPU slice: asks for it as a queued resource, waits, installs this commit on all workers, runs main.py on
# all of them, and deletes the resource at the end, after Ctrl-C too (the workers save first). Once it is pre-empted it
# is deleted and asked for again, and the same command goes on from the last checkpoint.
#
#   launch/tpu_pod.sh --name=NAME --zone=ZONE --type=v4-32 --runtime=tpu-ubuntu2204-base --share=10.0.0.2:/runs \
#       [--spot] [--keep] [--restarts=20] [--poll=30] [--dry_run] -- \
#       --config=configs/x.py --workdir=/mnt/share/x [--config.FIELD=VALUE ...]
#
# After `--` come main.py's own arguments; `--distributed=auto` is added.
#   --share     an NFS export (Filestore, say) that all workers mount at /mnt/share: the workdir must lie in it, for all
#               processes write one checkpoint, and what is on a worker's own disk is lost with the worker; TFDS sets
#               are looked for in its `tfds`, and what was compiled is kept in its `xla`
#   --spot      cheaper, and may be taken away at any time
#   --keep      leaves the resource there at the end; the same command finds it again
#   --restarts  pre-emptions and failures in all before it gives up
#   --poll      seconds between two looks at the state
#   --dry_run   prints the commands of one undisturbed run
# Exit status: that of the run (0 finished, 2 wrong input, which is not run again, 143 saved and stopped), 143 or 130
# where a signal found no run, 2 for wrong flags, else that of the gcloud command that failed.
set -euo pipefail

name='' zone='' type='' runtime='' share='' spot='' keep='' dry_run='' restarts=20 poll=30
grace=300 # seconds that a save may take after a signal
job='' alarm='' running='' stopping='' was_active='' tries=0 code=1

trap '' PIPE # who reads may be gone before all have saved, as `tee` on Ctrl-C
say() { echo "tpu_pod: $*" >&2 || true; }
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
call() { # gcloud, or in a dry run what it would be
    if [ -n "$dry_run" ]; then
        echo "gcloud$(quoted "$@")"
    else
        gcloud "$@"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
        --name=* | --zone=* | --type=* | --runtime=* | --share=* | --restarts=* | --poll=*)
            flag=${1%%=*}
            printf -v "${flag#--}" %s "${1#*=}"
            ;;
        --spot | --keep | --dry_run) printf -v "${1#--}" yes ;;
        -h | --help)
            sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
            exit
            ;;
        --)
            shift
            break
            ;;
        *) wrong "'$1' is no flag of tpu_pod.sh; those of main.py come after --" ;;
    esac
    shift
done
for flag in name zone type runtime share; do
    [ -n "${!flag}" ] || wrong "--$flag is needed (--help tells what for)"
done
[[ $restarts =~ ^[0-9]+$ ]] || wrong "--restarts is a number, not '$restarts'"
[[ $poll =~ ^[0-9]*\.?[0-9]+$ && $poll == *[1-9]* ]] || wrong "--poll is a number of seconds above 0, not '$poll'"
[[ " $*" == *' --workdir=/mnt/share/'* ]] ||
    wrong "give main.py a --workdir=/mnt/share/...: all workers write into one directory, and their own disks are lost"

cd "$(dirname "$0")/.."
commit=$(git rev-parse --short=12 HEAD) || wrong "no commit here: what runs is the commit of this checkout"
[ -z "$(git status --porcelain --untracked-files=no)" ] || say "note: what is not committed does not run"
here="--zone=$zone"
directory="lt_noisy-$commit"

create() {
    say "asking for $type as $name"
    call compute tpus queued-resources create "$name" "$here" --node-id="$name" --accelerator-type="$type" \
        --runtime-version="$runtime" ${spot:+--spot}
}
remove() {
    say "deleting $name"
    call compute tpus queued-resources delete "$name" "$here" --force --quiet
}
state() { # prints ACTIVE, SUSPENDED, ...; ABSENT where there is none, UNKNOWN where gcloud cannot tell
    local answer
    if answer=$(gcloud compute tpus queued-resources describe "$name" "$here" '--format=value(state.state)' 2>&1); then
        echo "${answer##*$'\n'}"
    elif [[ $answer == *NOT_FOUND* || $answer == *"not found"* ]]; then
        echo ABSENT
    else
        say "$answer"
        echo UNKNOWN
    fi
}
on_all() { call compute tpus tpu-vm ssh "$name" "$here" --worker=all --command="$1"; }

# The image's Python may be older than this package takes: uv brings one of its own.
prepare="set -e
mountpoint -q /mnt/share || {
    sudo apt-get -qq -o DPkg::Lock::Timeout=300 update
    sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y nfs-common
    sudo mkdir -p /mnt/share
    sudo mount -t nfs$(quoted "$share") /mnt/share
}
[ -e $directory/installed ] || {
    rm -rf $directory
    git -c advice.detachedHead=false clone -q lt_noisy.bundle $directory
    cd $directory
    python3 -m pip install -q --user uv
    python3 -m uv venv -q --python 3.12 .venv
    python3 -m uv pip install -q --python .venv/bin/python -e '.[tpu]'
    touch installed
}"
install() {
    local code=0 folder
    say "installing $commit on all workers"
    folder=$(mktemp -d)
    git bundle create -q "$folder/lt_noisy.bundle" HEAD &&
        call compute tpus tpu-vm scp "$folder/lt_noisy.bundle" "$name:" "$here" --worker=all &&
        on_all "$prepare" || code=$?
    rm -r "$folder"
    return $code
}

# gcloud starts the command anew where its connection broke, and the process before may live: wait for that.
command="cd $directory && exec 9> ~/lt_noisy.lock && flock 9 && echo \$\$ > ~/lt_noisy.pid && \
export TFDS_DATA_DIR=/mnt/share/tfds JAX_COMPILATION_CACHE_DIR=/mnt/share/xla && \
exec .venv/bin/python main.py$(quoted "$@") --distributed=auto"

if [ -n "$dry_run" ]; then
    create
    install
    on_all "$command"
    [ -n "$keep" ] || remove
    exit
fi

pause() { # seconds; a signal ends it
    sleep "$1" &
    wait $! || true
}
again() { # counts one more failure
    tries=$((tries + 1))
    [ "$tries" -le "$restarts" ] || {
        say "gave up: $restarts restarts"
        exit "$code"
    }
}
ready() { # returns once the resource is there
    local now last='' removed=''
    while :; do
        now=$(state)
        [ "$now" = "$last" ] || say "$name is $now"
        last=$now
        case $now in
            ACTIVE) was_active=yes && return ;;
            ABSENT) create || exit ;;
            UNKNOWN) again && pause "$poll" ;;
            SUSPENDED | FAILED)
                [ -n "$was_active" ] || [ "$now" = SUSPENDED ] || {
                    say "it was never there; gcloud compute tpus queued-resources describe $name $here tells why"
                    exit 1
                }
                [ -z "$removed" ] || again # the first is counted with the run that it ended
                removed=yes
                remove || exit
                ;;
            *) pause "$poll" ;; # CREATING, ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, SUSPENDING, DELETING
        esac
    done
}
attend() { # runs a command in a process group of its own, which the terminal's Ctrl-C does not reach
    local code=0
    set -m
    "$@" < /dev/null &
    job=$!
    set +m
    while kill -0 "$job" 2> /dev/null; do # a signal ends a wait, not the command
        code=0
        wait "$job" || code=$?
    done
    kill -TERM -- "-$job" 2> /dev/null || true # what it left behind
    job=''
    return $code
}
watch() { # ends the connection to workers that are gone, which may hang otherwise
    while sleep "$poll"; do
        case $(state) in SUSPENDED | FAILED) kill -TERM -- "-$1" ;; esac
    done
}
connected() {
    local group=$BASHPID
    watch "$group" 2> /dev/null &
    on_all "$command"
}
run() { # its status is gcloud's: that of the first worker, in their order, that failed
    local code=0
    running=yes
    attend connected || code=$?
    running=''
    return $code
}

interrupted() { # all workers save, then the resource goes; a second signal, or a save without end, waits no longer
    code=$1
    if [ -n "$stopping" ] || [ -z "$running" ]; then
        exit "$code"
    fi
    stopping=yes
    say "the workers save and stop; once more to leave at once"
    set -m
    on_all "kill -TERM \$(cat ~/lt_noisy.pid)" < /dev/null &
    (sleep "$grace" && kill -TERM $$) &
    alarm=$!
    set +m
}
leave() {
    trap '' INT TERM
    for group in $job $alarm; do kill -TERM -- "-$group" 2> /dev/null || true; done
    if [ -n "$keep" ]; then
        say "$name is kept, and costs; to delete it: gcloud compute tpus queued-resources delete $name $here --force"
    elif [ "$(state)" != ABSENT ]; then
        remove || say "NOT DELETED, and it may cost: gcloud compute tpus queued-resources delete $name $here --force"
    fi
}
trap leave EXIT
trap 'interrupted 143' TERM
trap 'interrupted 130' INT

while :; do
    ready
    if attend install; then
        code=0
        run || code=$?
        case $code in 0 | 2) exit $code ;; esac
        [ -z "$stopping" ] || exit $code
        say "the run ended with status $code"
    else
        code=$?
        [ "$(state)" != ACTIVE ] || exit $code # not a pre-emption: what cannot be installed cannot the next time
    fi
    again
    pause "$poll" # the state is behind what happened
done
