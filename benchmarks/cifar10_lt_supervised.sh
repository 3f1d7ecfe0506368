#!/bin/bash
# Everything that learning from labels should show on CIFAR-10-LT and CIFAR-10, in order of importance, on one GPU:
#   bash benchmarks/cifar10_lt_supervised.sh runs/supervised 4
# The second argument is how many runs share the GPU. Killed, the same command goes on. Not run yet, for want of a GPU.
set -eu
root=$1
jobs=${2:-4}
export XLA_PYTHON_CLIENT_MEM_FRACTION
XLA_PYTHON_CLIENT_MEM_FRACTION=$(python -c "print(0.9 / $jobs)")
# shellcheck disable=SC1091
. "$(dirname "$0")/forward.sh"
failed=0
sweep() { # a failed cell stops no later sweep; Ctrl-C does
    config=$1 name=$2
    shift 2
    forward python launch/sweep.py --config="configs/$config" --root="$root/$name" --jobs="$jobs" \
        --record="results/$name.json" "$@" || { status=$?; [ $status -lt 128 ] || exit $status; failed=1; }
}

# CE, LDAM-DRW, LA first: to be within 1.5 points of 70.4 and 77.0. Evaluated every epoch, so that the best epoch on test,
# which the authors' programs print, stands beside the last (`selection` in the summaries).
sweep cifar10_lt_ldam_drw.py cifar10_lt --config.train.eval_every='epochs(1)'
sweep cifar10_lt_rotation_ssp.py cifar10_lt_ssp
sweep cifar10_lt_noise.py:twelve cifar10_p0
sweep cifar10_mixnn.py:light cifar10_mixnn
sweep cifar10_lt_semi.py cifar10_lt_semi
exit $failed
