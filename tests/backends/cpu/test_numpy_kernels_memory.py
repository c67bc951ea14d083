"""The memory of a training step beyond its results: a few bytes a channel, and a bit an element after a residual."""

import sys
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_memory import start_child, told_by

import bnkit
from bnkit_numpy import compiled_kernels

pytestmark = pytest.mark.skipif(compiled_kernels() is None, reason="installed without the compiled kernels")
Array = np.ndarray[Any, Any]
DTYPES = [np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
LAYOUTS = {
    "columns": ((5000, 100), 1),
    "NCHW": ((5, 100, 25, 40), 1),
    "NCHW, short runs": ((50, 100, 10, 10), 1),
    "NHWC": ((5, 25, 40, 100), -1),
}
A_CHANNEL = 512  # bytes: statistics, lines, sums and parameters, some for each of a few pieces
A_CALL = 40_000  # bytes of Python objects and of scratch memory, whatever the shape
options_of = pytest.mark.parametrize("options", ["plain", "relu", "residual", "residual and relu"])
of_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
in_every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def make(layout: str, dtype: Any, options: str) -> tuple[dict[str, Array], dict[str, Any]]:
    shape, axis = LAYOUTS[layout]
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32).astype(dtype) for name in ("x", "dy")}
    stored = np.float64 if dtype == np.float64 else np.float32
    small = [np.full(100, value, stored) for value in (1, 0, 0, 1)]
    arrays |= dict(zip(("gamma", "beta", "running_mean", "running_var"), small, strict=True))
    keywords: dict[str, Any] = {"train": True, "axis": axis, "activation": "relu" if "relu" in options else None}
    if "residual" in options:
        keywords["residual"] = arrays["dy"][::-1].copy()
    return arrays, keywords


def step(arrays: dict[str, Array], keywords: dict[str, Any], outs: list[Array] | None) -> tuple[Any, ...]:
    names = ("x", "gamma", "beta", "running_mean", "running_var")
    y, cache = bnkit.batch_norm(*(arrays[n] for n in names), **keywords, out=outs and outs[0])
    return y, cache, bnkit.batch_norm_backward(arrays["dy"], cache, out=outs and outs[1])


@options_of
@of_every_dtype
@in_every_layout
@pytest.mark.parametrize("given_out", [False, True], ids=["new results", "out"])
def test_numpy_allocates_no_more_than_the_results(layout: str, dtype: Any, options: str, given_out: bool) -> None:
    arrays, keywords = make(layout, dtype, options)
    x = arrays["x"]
    outs = [np.empty_like(x), np.empty_like(x)] if given_out else None
    step(arrays, keywords, outs)
    tracemalloc.start()
    try:
        step(arrays, keywords, outs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    results = (0 if given_out else 2) * x.nbytes
    if "residual" in options:
        results += x.nbytes  # dresidual
    if options == "residual and relu":
        results += x.size // 8 + x.shape[keywords["axis"]]  # the bits, perhaps in whole bytes a channel
    assert peak - results <= 100 * A_CHANNEL + A_CALL


# Native memory is seen by the resident size alone. The tensors are so large that a copy of one, in any dtype, or a bit
# for each element in a byte, is far beyond the threads' stacks and the allocator's slack.
RESIDENT = """
    import numpy as np
    import bnkit, test_numpy_kernels_memory as tests
    shape, axis = tests.LAYOUTS[LAYOUT]
    tests.LAYOUTS[LAYOUT] = (shape[0] * 32, *shape[1:]), axis
    arrays, keywords = tests.make(LAYOUT, tests.DTYPES[DTYPE], OPTIONS)

    def memory(kind):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(kind + ":"))

    outs = [np.full_like(arrays["x"], 1) for _ in range(2)]
    few = {k: a[:4] if a.ndim > 1 else a for k, a in arrays.items()}
    some = dict(keywords)
    if "residual" in some:
        some["residual"] = some["residual"][:4]
    tests.step(few, some, None)  # what a first call alone needs, threads among it
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM begins anew
    before = memory("VmRSS")
    tests.step(arrays, keywords, outs)
    print(memory("VmHWM") - before, arrays["x"].size, arrays["x"].itemsize)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@of_every_dtype
@pytest.mark.parametrize(("layout", "options"), [("columns", "plain"), ("NCHW", "residual and relu")])
def test_the_process_grows_by_no_more_than_the_results(layout: str, dtype: Any, options: str) -> None:
    script = RESIDENT.replace("LAYOUT]", f"{layout!r}]").replace("(LAYOUT,", f"({layout!r},")
    script = script.replace("DTYPES[DTYPE]", f"DTYPES[{DTYPES.index(dtype)}]").replace("OPTIONS)", f"{options!r})")
    grown, size, itemsize = map(int, told_by(start_child(script)).split())
    results = size * itemsize if "residual" in options else 0
    if options == "residual and relu":
        results += size // 8
    # A copy of the tensor is 32 MB in float16, and a byte an element 16 MB.
    assert grown - results <= 4_000_000
