#!/usr/bin/env bash
# All that needs a GPU, in less than 8 minutes: bash bench/gpu.sh [FOLDER]
#
# The tests on CuPy's arrays, the kernels under compute-sanitizer, and the benchmark beside PyTorch, cuDNN and
# torch.compile, each step within a time of its own. FOLDER, build/gpu by default, gets gpu.json, with every row and how
# each step ended, and a log of each step. The machine needs CuPy 14, PyTorch, pytest and compute-sanitizer; bnkit runs
# from this folder. What else is missing comes from build/wheels, where there is no network: pip download -d build/wheels
# --no-deps array-api-strict.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
folder=${1:-build/gpu}
mkdir -p "$folder" && rm -f "$folder"/*.json "$folder"/*.log
folder=$(cd "$folder" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:$PWD/backends:$folder/site PYTHONUNBUFFERED=1
export BNKIT_REQUIRE=cupy COLUMNS=200 NO_COLOR=1
PATH=$PATH:/usr/local/cuda/bin # where compute-sanitizer is, if nowhere else

begun=$SECONDS
ended=()
step() { # NAME SECONDS COMMAND…; SIGINT at the end of its time, so that a benchmark keeps its rows
    local name=$1 limit=$2 start=$SECONDS code=0 said
    shift 2
    printf '\n==== %s, up to %s s ====\n' "$name" "$limit"
    # A script in the background has SIGINT ignored, and so would its commands.
    timeout -k 5 -s INT "$limit" env --default-signal=INT "$@" >"$folder/$name.log" 2>&1 || code=$?
    case $code in
    0) said=passed ;;
    124 | 137) said="not done in $limit s" ;;
    *) said="failed with exit code $code" ;;
    esac
    tail -n 12 "$folder/$name.log"
    ended+=("$name=$said after $((SECONDS - start)) s")
    [ "$code" -eq 0 ]
}

finish() {
    local failed=0 each
    "$python" bench/gpu_results.py "$folder" "${ended[@]}" || failed=1
    printf '\n==== Summary, %s s ====\n' "$((SECONDS - begun))"
    for each in "${ended[@]}"; do
        printf '%-14s %s\n' "${each%%=*}" "${each#*=}"
        case ${each#*=} in passed*) ;; *) failed=1 ;; esac
    done
    exit "$failed"
}

missing=$("$python" -c '
import importlib.util as u
names = {"array_api_strict": "array-api-strict", "hypothesis": "hypothesis", "sortedcontainers": "sortedcontainers",
         "threadpoolctl": "threadpoolctl", "typer": "typer", "rich": "rich", "ml_dtypes": "ml_dtypes"}
print(*(package for name, package in names.items() if u.find_spec(name) is None))')
if [ -n "$missing" ]; then
    from=()
    if [ -d build/wheels ]; then from=(--no-index --find-links build/wheels); fi
    # shellcheck disable=SC2086 # a word each
    step packages 15 "$python" -m pip install -q --target "$folder/site" --no-deps "${from[@]}" $missing || finish
fi

step device 20 "$python" -c '
import bnkit
print(bnkit.get_backend("cupy").details())' || finish
# First what no other machine shows, since CuPy compiles its own kernels for the other tests. test_cupy_* needs no GPU.
own=(tests/testing/test_backend_checks.py tests/backends/cuda/test_on_cupy.py)
step kernels 40 "$python" -m pytest -q -p no:cacheprovider --maxfail=25 --durations=5 -k cupy "${own[@]}"
step tests 45 "$python" -m pytest -q -p no:cacheprovider --maxfail=25 --durations=5 -k cupy \
    --ignore-glob="tests/backends/cuda/test_cupy_*" "${own[@]/#/--ignore=}" tests

# Blocks of CuPy's pool lie side by side, so what runs past one would not be seen: without the pool. Only bnkit's kernels.
sanitized=(--kernel-name kns=bnkit --error-exitcode 9 "$python" -m pytest -q -p no:cacheprovider -x)
sanitized+=(-p memory_without_pool -k "every_backend_passes and cupy" tests/testing/test_backend_checks.py)
export PYTHONPATH=$PYTHONPATH:$PWD/tests/helpers
# CuPy asks the runtime what it may not know, and an answer that is an error is none of a kernel.
step memcheck 45 compute-sanitizer --tool memcheck --report-api-errors no "${sanitized[@]}"
step racecheck 45 compute-sanitizer --tool racecheck "${sanitized[@]}"

measure() { # NAME SECONDS PEERS OPTION…
    local name=$1 limit=$2 peers=$3
    shift 3
    step "$name" "$limit" "$python" -m bnkit bench --backend cupy --against "$peers" --seconds 0.05 "$@" \
        --json "$folder/$name.json"
}
large="1024x4096,65536x256,3136x256,128x8192,64x56x56,56x56x64,256x14x14,14x14x256,512x7x7,7x7x512"
measure float32 80 torch,cudnn --ops train,backward,adam-step
measure half 40 torch,cudnn --ops train,backward --dtypes float16,bfloat16 --no-reference --cases "$large"
measure residual 40 torch,cudnn --ops inference,train-residual-relu,backward-residual-relu --no-reference --cases "$large"
measure compiled 55 torch-compile --ops train,train-residual-relu,backward --no-reference \
    --cases "1024x4096,65536x256,NCHW 32x64x56x56,NHWC 32x56x56x64,NCHW 64x256x14x14,NHWC 64x14x14x256"
finish
