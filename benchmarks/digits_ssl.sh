#!/bin/bash
# Every self-supervised objective on long-tailed digits, and the relative gap of SimCLR beside supervised learning.
#   bash benchmarks/digits_ssl.sh runs/digits_ssl "0 1 2"
# BYOL and SimSiam train longer (400 epochs against 150), at a higher rate: contrastive objectives are faster. Settings were
# chosen on seed 100. Interrupted, the same command goes on.
set -eu
root=$1 seeds=$2
python=${PYTHON:-python}
mkdir -p "$root"

run() { # name, overrides
    "$python" main.py --config=configs/digits_ssl.py --workdir="$root/$1" "${@:2}" > "$root/$1.log"
}

share() { # from, to: the finished pre-training of another run of the same seed
    mkdir -p "$root/$2"
    ln -sfn "$(realpath "$root/$1/pretrain")" "$root/$2/pretrain"
}

long=("--config.pretrain.length=epochs(400)" "--config.pretrain.schedule=cosine(lr=0.2, warmup=0.05)")
for seed in $seeds; do
    s="--config.seed=$seed"
    run "gap$seed" "$s" "--config.stages=('pretrain', 'probe', 'supervised', 'probe_supervised')"
    run "gap_balanced$seed" "$s" "--config.stages=('pretrain', 'probe', 'supervised', 'probe_supervised')" \
        "--config.longtail=balanced(exponential(ratio=10))"
    run "moco$seed" "$s" "--config.pretrain.objective=moco(queue=512, momentum=0.97, hidden=128, size=64)"
    run "simsiam$seed" "$s" "${long[@]}" "--config.pretrain.objective=simsiam(size=128, hidden=64)"
    run "byol$seed" "$s" "${long[@]}" "--config.pretrain.objective=byol(momentum=0.97, hidden=128, size=64)"
    share "gap$seed" "rwsam$seed"
    run "rwsam$seed" "$s" "--config.stages=('pretrain', 'density', 'rwsam', 'probe_rwsam')"
    run "rotation$seed" "$s" "--config.pretrain.objective=rotation(every=True)" \
        "--config.pretrain.augment=compose(crop(pad=3), normalise((0.305,), (0.376,)))"
done
dirs() { # names: sets `dirs` to the directory of each with each seed
    dirs=()
    for name in "$@"; do
        for seed in $seeds; do dirs+=("$root/$name$seed"); done
    done
}
dirs gap gap_balanced
"$python" benchmarks/relative_gap.py "${dirs[@]}" --json="$root/relative_gap.json"
dirs gap moco simsiam byol rwsam rotation
"$python" benchmarks/ssl_table.py "${dirs[@]}" --json="$root/objectives.json"
