# shellcheck shell=bash
# Sourced by scripts that run for hours. `forward COMMAND ...` runs a command and waits for it; Ctrl-C and SIGTERM reach it
# once, as SIGTERM, upon which it saves, and end the script. In a group of its own the terminal's Ctrl-C does not reach it.
forwarded=
trap 'trap "" TERM INT; [ -z "$forwarded" ] || { kill -TERM "$forwarded" || true; wait "$forwarded" || true; }; exit 143' TERM INT
forward() {
    local status=0
    set -m
    "$@" &
    forwarded=$!
    set +m
    wait "$forwarded" || status=$?
    forwarded=
    return $status
}
