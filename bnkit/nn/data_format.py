"""The checks of a model's x and t, and their move to the model's backend."""

from typing import NamedTuple

import numpy as np

from bnkit.backend import Array, Backend, checks, dtype_name

CLASSIFIES = "MLP classifies, by softmax and cross-entropy, and has no regression loss"


class DataFormat(NamedTuple):
    """x is (rows, inputs) floats; t is (rows,) integer labels, or (rows, classes) weights.

    With replicas, x and t may have a leading axis of that length. Host NumPy arrays move to the backend, and x takes
    `dtype`. The values of t are checked on the host, and are not read on a device.
    """

    backend: Backend
    dtype: str
    inputs: int
    classes: int
    replicas: int | None

    def check_x(self, x: Array) -> Array:
        """x unchanged; TypeError or ValueError for a wrong backend, dtype or shape."""
        on_host = isinstance(x, np.ndarray) and self.backend.name != "numpy"
        if not on_host and (backend := checks.common_backend(x=x)) is not self.backend:
            raise TypeError(f"x must be a host NumPy array or on {self.backend.key}, got {backend.key}; move it")
        checks.check_data("x", x)
        lead = () if x.ndim < 3 or self.replicas is None else (self.replicas,)
        if x.ndim != 2 + len(lead) or x.shape[-1] != self.inputs or tuple(x.shape[:-2]) != lead:
            also = "" if self.replicas is None else f" or ({self.replicas}, rows, {self.inputs})"
            raise ValueError(f"x must be (rows, {self.inputs}){also}, got {tuple(x.shape)}; reshape it")
        return x

    def prepare_x(self, x: Array) -> Array:
        """x on the backend, in the model's dtype."""
        x = self.check_x(x)
        if isinstance(x, np.ndarray) and self.backend.name != "numpy":
            x = self.backend.asarray(x)
        return self.backend.xp.astype(x, getattr(self.backend.xp, self.dtype), copy=False)

    def prepare_t(self, t: Array, rows: int) -> Array:
        """t on the backend, for logits of `rows` rows."""
        if not hasattr(t, "shape"):
            raise TypeError(f"t must be an array, got {type(t).__name__}; convert it by numpy.asarray")
        if not isinstance(t, np.ndarray) and (backend := checks.one_backend(("t",), (t,))) is not self.backend:
            raise TypeError(f"t must be a host NumPy array or on {self.backend.key}, got {backend.key}; move it")
        kind = checks.kind_of(t)
        if kind == "other":
            raise TypeError(
                f"t must be integer labels or floats (rows, classes), got {dtype_name(t)}; use t.astype(int)"
            )
        self._check_shape(t, kind, rows)
        if not isinstance(t, np.ndarray):
            return t
        if kind == "float":
            _check_weights(t)
        elif not (t.min() >= 0 and t.max() < self.classes):
            raise ValueError(
                f"t must be labels from 0 to {self.classes - 1}, got {t.min()} to {t.max()}; renumber them"
            )
        return self.backend.asarray(t)

    def _check_shape(self, t: Array, kind: str, rows: int) -> None:
        shape, expected = tuple(t.shape), (rows,) if kind == "integer" else (rows, self.classes)
        if shape == expected or (self.replicas is not None and shape == (self.replicas, *expected)):
            return
        got = f"{dtype_name(t)} {shape}"
        if rows not in shape[:2]:
            got += f": x has {rows} rows, t has {shape[0] if shape else 'none'}"
        elif kind == "float":
            got += f"; {CLASSIFIES}"
        raise ValueError(f"t must be ({rows},) integer labels or ({rows}, {self.classes}) floats, got {got}")


def is_mapped(a: Array) -> bool:
    """Whether `a` is a memory map, which may be larger than memory."""
    return isinstance(a, np.memmap)


def _check_weights(t: np.ndarray) -> None:
    """ValueError unless the weights of the classes are finite and at least 0, and each row has one above 0."""
    wide = t if t.dtype.char in "fd" else t.astype(np.float64)
    if not (wide.min() >= 0 and wide.max() < np.inf):  # NaN fails both
        place = _first(~((wide >= 0) & (wide < np.inf)))
        got = f"got {wide[place]} at {list(place)}"
        raise ValueError(f"t must hold finite weights of at least 0, one a class, {got}: {CLASSIFIES}")
    empty = wide.max(axis=-1) == 0
    if empty.any():
        got = f"got a row of zeros at {list(_first(empty))}"
        raise ValueError(f"t must have a weight above 0 in each row, {got}; drop the row: {CLASSIFIES}")


def _first(flags: np.ndarray) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(i) for i in np.argwhere(flags)[0])
