#!/usr/bin/env bash
# What a review of the first 100 suspects is worth: a folder with wrong labels, trained on before and after, three seeds.
#
#     bash benchmarks/review_effect.sh WORKDIR [RECORD.json]
#
# WORKDIR holds efficientnet_lite0.pth (docs/pretrained.md); CIFAR-10 is prepared by TFDS. The decisions are those of one
# who knows the truth; test images have right labels. Minutes on two cores.
set -euo pipefail
repository="$(cd "$(dirname "$0")/.." && pwd)"
record="${2:+$(realpath -m "$2")}"
python="${PYTHON:-python}"
[[ $python != */* ]] || python=$(realpath -s "$python")
cd "$1"
folder=("$python" "$repository/benchmarks/messy_folder.py")
if [ ! -e messy.manifest ]; then # which comes last
  rm -rf messy
  "${folder[@]}" make messy --size=96 --tests=100
fi
runs=()
for seed in 0 1 2; do
  command=("$python" "$repository/main.py" --config="$repository/configs/own_images_pretrained.py"
    --config.dataset="folder(path='messy', size=128)" --config.stages="('features', 'finetune', 'folds')" --config.seed="$seed")
  "${command[@]}" --workdir="runs/before_$seed"
  "${folder[@]}" decide messy "runs/before_$seed" --first=100 --out="decisions_$seed.csv"
  if [ ! -e "runs/before_$seed/corrected/manifest.json" ]; then # which comes last
    rm -rf "runs/before_$seed/corrected"
    "$python" "$repository/main.py" apply "runs/before_$seed" "decisions_$seed.csv"
  fi
  "${command[@]}" --workdir="runs/after_$seed" --config.manifest="file(path='runs/before_$seed/corrected')"
  runs+=("runs/before_$seed" "runs/after_$seed")
done
"${folder[@]}" compare messy "${runs[@]}" ${record:+"--json=$record"}
