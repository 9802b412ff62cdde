#!/usr/bin/env bash
# What a GPU has to show, meant for less than 8 minutes on a machine with one: each network's outputs, loss and gradient against the CPU's, its speed against the
# U-Net's, its planned against its measured memory, and two folds of ACDC trained, with their Dice. Figures as JSON and Markdown into a folder.
#
#     benchmarks/gpu.sh FOLDER                  # or OUT=FOLDER; raw datasets in ../shared/data/raw, or UTSEG_RAW; without ACDC_native there, a phantom
#     DEVICE=cpu benchmarks/gpu.sh FOLDER       # a dry run without a GPU: the same script, small networks, a phantom
#
# The checkout is enough: where utseg is not installed it is put below FOLDER, next to the torch that is there, if one is. Other packages that
# such a machine lacks, and cannot fetch, may lie in PYTHONPATH.
set -euo pipefail
out=${1:-${OUT:?give a folder for the figures, benchmarks/gpu.sh FOLDER}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
failed=0
export PYTHONPATH=$PWD:$out/site${PYTHONPATH:+:$PYTHONPATH}
# The code is found by PYTHONPATH, but networks, planners and trainers only by what an installation says of them.
if ! "$python" -c "import importlib.metadata as m; m.version('utseg')" 2>/dev/null; then
    if "$python" -c "import torch" 2>/dev/null; then
        "$python" -m pip install --quiet --no-deps --no-build-isolation --target "$out/site" .
    else
        "$python" -m venv "$out/venv"
        python=$out/venv/bin/python
        "$python" -m pip install --quiet .
    fi
fi
utseg() { "$python" -c "from utseg.commands.$1 import main; raise SystemExit(main())" "${@:2}"; }

"$python" benchmarks/gpu.py parity speed --device "$device" --out "$out" || failed=1

export UTSEG_HOME=$out/home
export UTSEG_RAW=${UTSEG_RAW:-$PWD/../shared/data/raw}
dataset=ACDC_native planner=auto length=(--max-time "${TRAIN_TIME:-80s}") phantom=(--subjects 15 --size small)
if [ "$device" = cpu ]; then
    planner=cpu length=(--epochs 1 --set iterations_per_epoch=2 network.base_channels=4) phantom=(--subjects 5 --size tiny --slices 4)
fi
if [ "$device" = cpu ] || [ ! -d "$UTSEG_RAW/$dataset" ]; then
    echo "trained on a phantom, whose Dice says nothing about hearts; real scans are looked for in $UTSEG_RAW/$dataset on a GPU"
    dataset=Phantom
    export UTSEG_RAW=$UTSEG_HOME/raw
    [ -d "$UTSEG_RAW/$dataset" ] || utseg make_phantom "$UTSEG_RAW/$dataset" --frames 2 --quiet "${phantom[@]}"
fi
utseg plan_and_preprocess -d "$dataset" -pl "$planner" --quiet
for fold in fold0 fold1; do
    utseg train 2d "$fold" -d "$dataset" --device "$device" --overwrite "${length[@]}"
done
"$python" benchmarks/gpu.py folds --runs "$UTSEG_HOME/results/$dataset/${planner}_2d/UTNet" --device "$device" --out "$out"
if [ "$device" != cpu ]; then
    timeout 120 "$python" benchmarks/gpu.py compiled --device "$device" --out "$out" || failed=1
fi
cat "$out/gpu.md"
exit "$failed"
