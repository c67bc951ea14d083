"""Checks of the loss, the random numbers, and how arrays are taken, viewed and given back."""

from typing import Any

import numpy as np

from bnkit import reference
from bnkit.backend import Backend
from bnkit.testing.cases import TOLERANCE, Host, compare, dtypes, sum_tolerance, widen


def softmax_cross_entropy_is_that_of_the_reference(backend: Backend) -> None:
    """Labels or weights, each group's own or shared; large logits do not overflow."""
    rng = np.random.default_rng(5)
    for dtype in dtypes(backend):
        for shape in ((1, 2), (100, 10), (3, 7, 5), (2, 33, 1)):
            logits = (rng.normal(size=shape) * 30).astype(dtype)
            logits[..., 0, 0] = 1e4
            labels = rng.integers(0, shape[-1], shape[:-1])
            weights = rng.random(shape).astype("float64" if dtype == "float64" else "float32")
            for target in (labels, weights, labels[0], weights[0])[: 4 if len(shape) == 3 else 2]:
                got = backend.softmax_cross_entropy(backend.asarray(logits), backend.asarray(target))
                wide = target if target.dtype == labels.dtype else widen(target)
                want = reference.softmax_cross_entropy(np, widen(logits), wide)
                label = f"{dtype} logits {shape}, {target.dtype} target {target.shape}"
                compare(f"loss of {label}", backend, got[0], want[0], sum_tolerance(dtype))
                compare(f"gradient of {label}", backend, got[1], want[1], TOLERANCE[dtype.name])


def uniform_is_philox(backend: Backend) -> None:
    """Random123's known answer, and other keys by the reference: seeds, layers and steps beyond 32 bits."""
    # philox4x32-10 of counter 0 under key 0, from Random123's kat_vectors
    known = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], np.uint64)
    compare("uniform of key 0", backend, backend.uniform((0, 0, 0), (4,)), (known >> 8) * 2.0**-24, 0.0)
    for seed, layer, step in ((1, 2, 3), (2**64 - 1, 2**32 - 1, 2**64 - 1), (2**40 + 7, 5, 2**33 + 1)):
        blocks, low = np.arange(26, dtype=np.uint64), 0xFFFFFFFF
        want: Any = reference.uniform(np, blocks, (seed & low, seed >> 32), (layer, step & low, step >> 32))
        got = backend.uniform((seed, layer, step), (101,))
        compare(f"uniform of {(seed, layer, step)}", backend, got, want.ravel()[:101], 0.0)
        shaped = backend.to_numpy(backend.uniform((seed, layer, step), (5, 4, 3))).ravel()
        compare(
            f"uniform of {(seed, layer, step)} in a shape", backend, backend.asarray(shaped), want.ravel()[:60], 0.0
        )
    drawn = backend.to_numpy(backend.uniform((7, 0, 0), (10007,)))
    assert drawn.dtype == np.float32, f"uniform must be float32, got {drawn.dtype}"
    assert 0 <= drawn.min() <= drawn.max() < 1, "uniform must lie in [0, 1)"
    assert backend.uniform((7, 0, 0), (0, 3)).shape == (0, 3), "uniform of an empty shape"


def uniform_has_a_stream_of_its_own_for_each_seed(backend: Backend) -> None:
    """Entry r of the leading axis is what seed r alone gives."""
    drawn = backend.uniform(([3, 2**50, 0], 4, 5), (3, 7, 3))
    for r, seed in enumerate((3, 2**50, 0)):
        alone = backend.to_numpy(backend.uniform((seed, 4, 5), (7, 3)))
        compare(f"uniform of seed {seed}", backend, drawn[r, ...], widen(alone), 0.0)


def arrays_come_back_as_they_went(backend: Backend) -> None:
    """asarray and to_numpy keep bits, dtype and shape, of bool and integers too; asarray converts when asked."""
    rng = np.random.default_rng(0)
    for dtype in (*dtypes(backend), *map(np.dtype, ("bool", "int64", "uint64", "uint8"))):
        for shape in ((), (0, 3), (5, 7), (2, 3, 4)):
            a = (rng.normal(size=shape) * 50 % 200).astype(dtype)
            for view in (a, a.T):
                back = backend.to_numpy(backend.asarray(view))
                assert (back.dtype, back.shape) == (dtype, view.shape), f"{dtype} {shape} came back as {back.dtype}"
                assert back.tobytes() == view.tobytes(), f"{dtype} {shape} came back with other bits"
    wide = backend.asarray(np.arange(3), dtype=backend.xp.float64)
    assert backend.to_numpy(wide).dtype == np.float64, "asarray must convert to the dtype that it is given"


def the_view_has_groups_rows_channels_and_inner(backend: Backend) -> None:
    """For each legal axis, with every element in its channel."""
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
    cases: tuple[tuple[Any, Host], ...] = (
        (1, x.reshape(1, 2, 3, 20)),
        (-1, x.reshape(1, 24, 5, 1)),
        (0, x.reshape(1, 1, 2, 60)),
        ((1, 2, 3), x.reshape(1, 2, 60, 1)),
        ((0, 2), x.reshape(2, 3, 4, 5)),
        ((0, 1), x.reshape(1, 1, 6, 20)),
    )
    for axis, want in cases:
        view = backend.view(backend.asarray(x), axis)
        compare(f"view with axis {axis}", backend, view, widen(want), 0.0)


def overlap_is_seen_where_a_write_shows(backend: Backend) -> None:
    """An array overlaps itself and the views that share its memory, and no other."""
    a, b = (backend.asarray(np.random.default_rng(2).normal(size=8).astype(np.float32)) for _ in range(2))
    assert backend.overlap(a, a), "an array overlaps itself"
    assert not backend.overlap(a, b), "two arrays do not overlap"
    part = a[2:5]
    part[...] = part + 1
    if not np.array_equal(backend.to_numpy(a), backend.to_numpy(b)):
        assert backend.overlap(part, a), "a view overlaps the array that a write to it changes"
    assert backend.writeable(a), "a new array is writeable"
