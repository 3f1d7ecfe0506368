#!/bin/bash
# CIFAR-10-LT at ratio 100, ResNet-18, on one GPU: SimCLR and MoCo (500 epochs), SimSiam (1000), rwSAM at the same epochs
# and at the same cost, and the balanced control of each. Two runs share the GPU. Interrupted, the same command goes on.
#   bash benchmarks/cifar10_lt_ssl.sh runs/cifar10_lt_ssl
set -u
trap 'exit 130' INT
root=$1
mkdir -p "$root"
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.45
balanced="--config.longtail=balanced(exponential(ratio=100, subset=conventional))"

run() { # name, config, overrides; one that a signal ended is the last of its shell
    local status=0
    python main.py --workdir="$root/$1" --config="configs/$2.py" "${@:3}" > "$root/$1.log" 2>&1 || status=$?
    [ $status -eq 0 ] || echo "failed: $root/$1.log"
    [ $status -lt 128 ] || exit $status
    return $status
}

together() { # waits for what runs in the background; a signal that ended one ends the script
    local job status
    for job in $(jobs -p); do
        status=0
        wait "$job" || status=$?
        [ $status -lt 128 ] || exit $status
    done
}

simsiam() { # rwSAM's runs start from the same SimSiam: one after the other
    long=("--config.pretrain.length=epochs(1000)")
    run "rwsam$1" cifar10_lt_rwsam "${long[@]}" "--config.rwsam.length=epochs(1000)" "${@:2}" || return
    mkdir -p "$root/rwsam_same_cost$1"
    ln -sfn "$(realpath "$root/rwsam$1/pretrain")" "$root/rwsam_same_cost$1/pretrain"
    run "rwsam_same_cost$1" cifar10_lt_rwsam "${long[@]}" "--config.rwsam.length=epochs(500)" "${@:2}"
}

run simclr cifar10_lt_simclr & run moco cifar10_lt_moco & together
simsiam "" & (run simclr_balanced cifar10_lt_simclr "$balanced"; run moco_balanced cifar10_lt_moco "$balanced") & together
simsiam _balanced "$balanced"
python benchmarks/ssl_table.py "$root"/{simclr,moco,rwsam,rwsam_same_cost} --json="$root/table.json"
for name in simclr moco rwsam rwsam_same_cost; do
    python benchmarks/relative_gap.py "$root/$name" "$root/${name}_balanced" --json="$root/gap_$name.json"
done
