#!/bin/bash
# Everything that learning from labels should show on CIFAR-10-LT and CIFAR-10, in order of importance, on one GPU:
#   bash benchmarks/cifar10_lt_supervised.sh runs/supervised 4
# The second argument is how many runs share the GPU. Killed, the same command goes on. Not run yet, for want of a GPU.
set -eu
root=$1
jobs=${2:-4}
export XLA_PYTHON_CLIENT_MEM_FRACTION=$(python -c "print(0.9 / $jobs)")
sweep() { python launch/sweep.py --config="configs/$1" --root="$root/$2" --jobs="$jobs" --record="results/$2.json"; }

sweep cifar10_lt_ldam_drw.py cifar10_lt        # CE, LDAM-DRW, LA first: to be within 1.5 points of 70.4 and 77.0
sweep cifar10_lt_rotation_ssp.py cifar10_lt_ssp
sweep cifar10_lt_noise.py:twelve cifar10_p0
sweep cifar10_mixnn.py:light cifar10_mixnn
sweep cifar10_lt_semi.py cifar10_lt_semi
