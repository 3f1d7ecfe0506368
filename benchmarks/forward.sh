# shellcheck shell=bash
# Sourced by scripts that run for hours. `forward COMMAND ...` runs a command and waits for it. Ctrl-C, SIGTERM and a lost
# terminal reach it once, as SIGTERM, upon which it saves, and end the script: it has a group of its own, for the
# terminal's signals go to the whole group of the script.
forwarded=
hand_on() {
    trap '' TERM INT HUP
    if [ -n "$forwarded" ]; then
        kill -TERM -- "-$forwarded" || true
        wait "$forwarded" || true
    fi
    exit 143
}
trap hand_on TERM INT HUP
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
