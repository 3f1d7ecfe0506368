#!/bin/bash
# The published rows at their full length on one CPU core, in order of importance; days, so it resumes: SIGTERM
# and Ctrl-C save first, and the same command goes on.
#   nice taskset -c 1 bash benchmarks/cpu_rows.sh runs/rows
# From a clone that stays at one commit, so that every record names one. The data: `tfds(cifar10)`.
set -eu
root=$1
# shellcheck disable=SC1091
. "$(dirname "$0")/forward.sh"
sweep() {
    name=$1 config=$2
    shift 2
    forward python launch/sweep.py --config="configs/$config" --root="$root/$name" --record="results/$name.json" "$@"
}

# A learning curve of 40 points: to test after every epoch would take a quarter of the time.
every='epochs(5)'

rows() { # of one seed: LDAM-DRW, CE (published: 77.0, 70.4), LA; then rotation prediction and CE (73.5)
    local only=()
    for loss in LDAM-DRW CE LA; do # the record of each holds those before it, which are finished
        only+=("--only=loss=$loss")
        sweep "cifar10_lt_seed$1" cifar10_lt_ldam_drw.py --only=seed="$1" "${only[@]}" \
            --config.train.eval_every="$every"
    done
    sweep "cifar10_lt_ssp_seed$1" cifar10_lt_rotation_ssp.py --only=seed="$1" --only=init=SSP --only=loss=CE \
        --config.finetune.eval_every="$every"
}

rows 0
rows 1

# Long tail and noise, ratio 10, 40 %. The published rows of this setting (DaSC 89.0, SFA 86.8, TABASCO 85.5) have other
# networks and lengths: ResNet-32 here, 100 epochs of learning from labels, 200 of SimCLR.
noisy() {
    sweep "cifar10_lt_noise_$1" cifar10_lt_noise.py --only=ratio=10 --only=noise=0.4 --only=seed=0 "${@:2}" \
        --config.model='resnet32(width=16)' --config.precision=float32 --config.steps_per_call=1 \
        --config.pretrain.length='epochs(200)' --config.finetune.eval_every="$every"
}
noisy scratch --only=init=scratch --only=loss=CE --only=loss=LA+SL
noisy simclr --only=init=SSL --only=encoder=full --only=loss=LA+SL
