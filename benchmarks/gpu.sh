#!/bin/bash
# What only a GPU can show, in order of importance, on one of them; killed, the same command goes on.
#   bash benchmarks/gpu.sh runs/gpu results/gpu           two hours or so; the records appear one by one
#   bash benchmarks/gpu.sh runs/gpu_tiny runs/gpu_tiny tiny     the same commands on digits, for a CPU: minutes
# From the environment: CIFAR10 and CIFAR100, the data (default `tfds(cifar10)`, `tfds(cifar100)`); TORCH, an interpreter
# with torch and torchvision (default `python`); JOBS, how many runs share the GPU (default 3). Not run yet on a GPU.
set -eu
root=$1 out=$2 size=${3:-whole}
jobs=${JOBS:-3} torch=${TORCH:-python}
mkdir -p "$root" "$out"
# shellcheck disable=SC1091
. "$(dirname "$0")/forward.sh"
peer=(--pairs=5)
cifar100=(--config=configs/cifar100_lt_noise.py "--config.dataset=${CIFAR100:-tfds(cifar100)}")
labels=(--config=configs/cifar10_lt_ldam_drw.py "--config.dataset=${CIFAR10:-tfds(cifar10)}")
seeds=(--only=loss=CE --only=loss=LDAM-DRW --only=loss=LA)
evaluated="epochs(1)" long="epochs(5)"
if [ "$size" = tiny ]; then
    digits=("--config.dataset=digits()" "--config.longtail=exponential(ratio=10)" "--config.model=resnet8()")
    peer=(--pairs=1 --steps=4 --batch=8 --workers=1 --case=resnet32)
    cifar100=(--config=configs/cifar100_lt_noise.py "${digits[@]}" --config.precision=float32
        "--config.pretrain.augment=simclr_digits()" "--config.pretrain.length=steps(8)" --config.pretrain.batch_size=64
        "--config.finetune.augment=digits()" "--config.finetune.length=steps(8)" --config.finetune.batch_size=64)
    labels=(--config=configs/cifar10_lt_ldam_drw.py "${digits[@]}" "--config.train.augment=digits()"
        "--config.train.length=epochs(5)" --config.train.batch_size=64)
    seeds+=(--only=seed=0)
    jobs=1 evaluated="epochs(5)" long="epochs(60)"
fi
part() { # a record and the command that makes it; skipped where the record is there
    if [ ! -e "$out/$1" ]; then
        echo "== $1"
        "${@:2}"
    fi
}

# 1. Bare step and loop beside PyTorch.
part peer.json forward python benchmarks/gpu_peer.py "${peer[@]}" --python="$torch" --json="$out/peer.json"

# 2. CIFAR-100-LT with noise, both stages whole. Target: 10 minutes on an H100.
two_stages() {
    [ -e "$root/cifar100" ] || date +%s > "$root/cifar100_began"
    forward python main.py "${cifar100[@]}" --workdir="$root/cifar100" > >(tee "$root/cifar100.log")
    for stage in pretrain finetune; do
        cp "$root/cifar100/$stage/summary.json" "$out/cifar100_$stage.json"
    done
    echo "{\"seconds_from_first_start\": $(($(date +%s) - $(cat "$root/cifar100_began")))}" > "$out/cifar100.json"
}
part cifar100.json two_stages

# 3. LDAM-DRW, CE, LA: 200 epochs, three seeds side by side. Published: LDAM-DRW 77.0, CE 70.4.
export XLA_PYTHON_CLIENT_MEM_FRACTION
XLA_PYTHON_CLIENT_MEM_FRACTION=$(python -c "print(0.9 / $jobs)")
sweep() { # name, overrides
    forward python launch/sweep.py "${labels[@]}" "${seeds[@]}" --jobs="$jobs" --root="$root/$1" --record="$out/$1.json" \
        --config.train.eval_every="$evaluated" "${@:2}"
}
part cifar10_lt.json sweep cifar10_lt

# 4. Killed and gone on with, the same bits.
resume() {
    local flags="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true"
    rm -rf "$root/resume"
    forward env XLA_FLAGS="$flags" python benchmarks/resume.py "${labels[@]}" --root="$root/resume" --json="$out/resume.json" \
        "--config.train.length=$long" "--config.train.log_every=percent(10)" "--config.train.save_every=percent(10)"
}
part resume.json resume

# 5. bfloat16 at the end of training, beside the float32 of part 3.
part cifar10_lt_bfloat16.json sweep cifar10_lt_bfloat16 --config.precision=bfloat16
