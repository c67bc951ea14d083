"""Checks of matrix products."""

import numpy as np

from bnkit import reference
from bnkit.backend import Array, Backend
from bnkit.testing.cases import Host, compare, sum_tolerance, widen

# replicas (0: no such axis), rows, inner and columns; two as a first layer has them, where zeros may be left out
SHAPES = ((0, 3, 4, 5), (0, 100, 784, 50), (2, 60, 400, 100), (3, 7, 1, 2))
ZEROS = (0.0, 0.8, 1.0)  # the share of a's elements


def products_are_those_of_the_reference(backend: Backend) -> None:
    """Of dense and of sparse matrices, by rows or transposed, with one for all replicas or one for each."""
    for label, a, b in _cases():
        want = reference.matmul(np, widen(a), widen(b))
        for how, left in _both_ways(backend, a):
            got = backend.matmul(left, backend.asarray(b))
            assert got.dtype == left.dtype, f"the product of {label} must be {left.dtype}, got {got.dtype}"
            compare(f"product of {label}, {how}", backend, got, want, sum_tolerance(b.dtype, b.shape[-2]))


def zeros_in_a_product_hide_neither_infinity_nor_nan(backend: Backend) -> None:
    """Times 0 both are NaN, in every row; the other columns and replicas stay what they are."""
    for label, a, b in _cases():
        for bad in (np.inf, np.nan):
            spoiled = b.copy()
            spoiled[..., -1, 1] = bad
            with np.errstate(invalid="ignore"):
                want = reference.matmul(np, widen(a), widen(spoiled))
                for how, left in _both_ways(backend, a):
                    got = backend.matmul(left, backend.asarray(spoiled))
                    tolerance = sum_tolerance(b.dtype, b.shape[-2])
                    compare(f"product of {label}, {how}, with {bad}", backend, got, want, tolerance)


def _both_ways(backend: Backend, a: Host) -> list[tuple[str, Array]]:
    """`a` on the backend, with its rows or its columns contiguous."""
    columns = backend.asarray(np.ascontiguousarray(np.swapaxes(a, -1, -2)))
    return [("by rows", backend.asarray(a)), ("by columns", backend.xp.matrix_transpose(columns))]


def _cases() -> list[tuple[str, Host, Host]]:
    """b is scaled so that the sums are of the size of 1."""
    rng, found = np.random.default_rng(9), []
    for replicas, rows, inner, columns in SHAPES:
        lead = (replicas,) if replicas else ()
        b = rng.normal(size=(*lead, inner, columns)) / np.sqrt(inner)
        for zeros in ZEROS:
            for own in dict.fromkeys(((), lead)):
                a = rng.normal(size=(*own, rows, inner)) * (rng.random((*own, rows, inner)) >= zeros)
                for dtype in ("float32", "float64"):
                    label = f"{dtype} {a.shape} with {zeros:.0%} zeros and {b.shape}"
                    found.append((label, a.astype(dtype), b.astype(dtype)))
    return found
