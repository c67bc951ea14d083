#!/usr/bin/env bash
# Do everything that needs a GPU, in less than 8 minutes: bash bench/gpu.sh [FOLDER]
#
# It runs the tests on CuPy's arrays, the kernels under compute-sanitizer, and the benchmark beside PyTorch, cuDNN and
# torch.compile. Each step has a time limit. FOLDER, build/gpu by default, gets gpu.json, with every row and the outcome
# of each step, and a log of each step. The machine needs CuPy 14, PyTorch, pytest and compute-sanitizer; bnkit runs
# from this folder. Without a network, the other packages come from build/wheels: pip download -d build/wheels
# --no-deps array-api-strict.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
folder=${1:-build/gpu}
mkdir -p "$folder" && rm -f "$folder"/*.json "$folder"/*.log
folder=$(cd "$folder" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:$PWD/backends:$folder/site PYTHONUNBUFFERED=1
export BNKIT_REQUIRE=cupy COLUMNS=200 NO_COLOR=1
PATH=$PATH:/usr/local/cuda/bin # the usual folder of compute-sanitizer

begun=$SECONDS
ended=()
step() { # NAME SECONDS COMMAND…; SIGINT at the time limit, so that a benchmark keeps its rows
    local name=$1 limit=$2 start=$SECONDS code=0 outcome
    shift 2
    printf '\n==== %s, up to %s s ====\n' "$name" "$limit"
    # A script in the background ignores SIGINT, and its commands would inherit that.
    timeout -k 5 -s INT "$limit" env --default-signal=INT "$@" >"$folder/$name.log" 2>&1 || code=$?
    case $code in
    0) outcome=passed ;;
    124 | 137) outcome="not done in $limit s" ;;
    *) outcome="failed with exit code $code" ;;
    esac
    tail -n 12 "$folder/$name.log"
    ended+=("$name=$outcome after $((SECONDS - start)) s")
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
    # shellcheck disable=SC2086 # one word a package
    step packages 15 "$python" -m pip install -q --target "$folder/site" --no-deps "${from[@]}" $missing || finish
fi

step device 20 "$python" -c '
import bnkit
print(bnkit.get_backend("cupy").details())' || finish
# First the tests that need a GPU most: in the others CuPy compiles its kernels as well. test_cupy_* needs no GPU.
first=(tests/testing/test_backend_checks.py tests/backends/cuda/test_on_cupy.py)
step kernels 40 "$python" -m pytest -q -p no:cacheprovider --maxfail=25 --durations=5 -k cupy "${first[@]}"
step tests 45 "$python" -m pytest -q -p no:cacheprovider --maxfail=25 --durations=5 -k cupy \
    --ignore-glob="tests/backends/cuda/test_cupy_*" "${first[@]/#/--ignore=}" tests

# Without CuPy's pool, whose blocks are adjacent and so hide an access out of bounds. Only bnkit's kernels.
sanitized=(--kernel-name kns=bnkit --error-exitcode 9 "$python" -m pytest -q -p no:cacheprovider -x)
sanitized+=(-p memory_without_pool -k "every_backend_passes and cupy" tests/testing/test_backend_checks.py)
export PYTHONPATH=$PYTHONPATH:$PWD/tests/helpers
# CuPy makes queries that the runtime may refuse; these API errors do not come from a kernel.
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
