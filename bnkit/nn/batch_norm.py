"""The layer `BatchNorm`: batch norm with its parameters, its running statistics and what of them is frozen."""

import functools
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend, Key, checks, dtype_name, get_backend, owner
from bnkit.backend.layout import is_int
from bnkit.backend.messages import shown
from bnkit.nn.activation import ReLU
from bnkit.nn.buffers import Buffers
from bnkit.nn.layer import Arrays, Layer, call_text, computes_as, replace, views
from bnkit.norm import arguments
from bnkit.norm.batch_norm import batch_norm, batch_norm_backward
from bnkit.norm.cache import BatchNormCache, any_elements
from bnkit.norm.synchronous import Reduce


class BatchNorm:
    """Batch normalization with its parameters and running statistics; see `bnkit.batch_norm` for the meaning.

    features: the size of `axis` of x, or a tuple of sizes.
    decay: the weight of the old running statistics, from 0 to 1. PyTorch's momentum is 1 - decay. None keeps their
        cumulative average, in which a batch counts even where its mask hides a channel.
    affine=False leaves gamma and beta out. track=False leaves the running statistics out, and then inference normalizes
    by the batch's statistics too.
    dtype: the dtype of x. Parameters and statistics are float64 for float64, else float32. statistics_dtype: the dtype
        of the running statistics, which may be "float64" for any x.
    renorm, in_place, reduce: as in the function. decay, renorm and reduce may be set anew between steps. A pickle takes
        reduce along, so it must be a function that pickle finds.
    reuse: the layer keeps the memory of y and dx, where these are NumPy's and of 4 MiB or more, and writes later ones
    there once nothing refers to the array any more: no name, view, memoryview or other library's tensor. A bare address
    does not count. It holds as much as was in use at one time. Ghost batches always get new arrays.
    state["count"] is the number of batches seen, an int64 NumPy array of shape () on every backend. A negative
    running_var is no error here: where it lies below -eps, inference returns NaN, as PyTorch does.
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        *,
        axis: int | tuple[int, ...] = 1,
        decay: float | None = 0.9,
        eps: float = 1e-5,
        correction: int = 1,
        affine: bool = True,
        track: bool = True,
        activation: str | None = None,
        ghost: int | None = None,
        reduce: Reduce | None = None,
        renorm: tuple[float, float] | None = None,
        in_place: bool = False,
        reuse: bool = False,
        backend: str | Backend | None = None,
        dtype: str = "float32",
        statistics_dtype: str | None = None,
    ) -> None:
        shape = tuple(features) if isinstance(features, (tuple, list)) else (features,)
        for n in shape:
            checks.check_int("features", n, least=0)
        arguments.check_decay(decay)
        arguments.check_options(
            True, 0.0 if decay is None else decay, eps, correction, activation, ghost, reduce, renorm, in_place
        )
        checks.check_bool("affine", affine)
        checks.check_bool("track", track)
        checks.check_bool("reuse", reuse)
        axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
        if not axes or not all(map(is_int, axes)):
            raise TypeError(f"axis must be an int or a tuple of ints, got {shown(axis)}")
        if len(shape) != len(axes):
            raise ValueError(f"features must have one size for each of axis {axis!r}, got {features!r}")
        if renorm is not None and not track:
            raise ValueError("renorm needs running statistics, got track=False; use track=True, or renorm=None")
        dtype = checks.dtype_argument(dtype, checks.FLOATS)
        kind = kind_of_statistics = checks.parameter_dtype(dtype)
        if statistics_dtype is not None:
            choices = ("float64",) if kind == "float64" else ("float32", "float64")
            kind_of_statistics = checks.dtype_argument(statistics_dtype, choices, "statistics_dtype")
        self.features, self.axis = shape, axis
        self.decay, self.eps, self.correction = decay, eps, correction
        self.activation, self.ghost, self.dtype = activation, ghost, dtype
        self.reduce, self.renorm, self.in_place = reduce, renorm, bool(in_place)
        self._buffers = Buffers() if reuse and ghost is None else None  # ghost batches join their results anyway
        backend = get_backend(backend)
        self.params: Arrays = {}
        self.frozen: Arrays = {}
        self.state: Arrays = {}
        self._keeps_statistics = False
        if affine:
            self.params = {
                "gamma": backend.asarray(np.ones(shape, kind)),
                "beta": backend.asarray(np.zeros(shape, kind)),
            }
        if track:
            self.state = {
                "running_mean": backend.asarray(np.zeros(shape, kind_of_statistics)),
                "running_var": backend.asarray(np.ones(shape, kind_of_statistics)),
                "count": np.zeros((), np.int64),
            }

    def __repr__(self) -> str:
        state = self.state.get("running_mean")
        options = {
            "axis": self.axis,
            "decay": self.decay,
            "eps": self.eps,
            "correction": self.correction,
            "affine": bool(self.params or self.frozen),
            "track": bool(self.state),
            "activation": self.activation,
            "ghost": self.ghost,
            "reduce": self.reduce,
            "renorm": self.renorm,
            "in_place": self.in_place,
            "reuse": self._buffers is not None,
            "dtype": self.dtype,
            "statistics_dtype": None if state is None else dtype_name(state),
        }
        if options["statistics_dtype"] == checks.parameter_dtype(self.dtype):
            options["statistics_dtype"] = None
        features = self.features[0] if len(self.features) == 1 else self.features
        return call_text(self, BatchNorm.__init__, [features], options)

    def forward(
        self,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        residual: Array | None = None,
        out: Array | None = None,
        key: Key | None = None,
    ) -> tuple[Array, BatchNormCache]:
        """y like x, and the cache for `backward`; in training the state moves.

        The cache refers to x, or to y with in_place=True, which must keep its values until the backward. Nothing checks
        this. To write to x earlier, pass x.copy().
        """
        return self._normalize(x, self.activation, train=train, mask=mask, residual=residual, out=out)

    def fuses(self, after: Layer) -> bool:
        """Whether `forward_fused` includes `after`: a ReLU, and no subclass of it that computes something else."""
        return self.activation is None and not self.in_place and computes_as(after, ReLU)

    def forward_fused(self, x: Array, *, train: bool, key: Key | None = None) -> tuple[Array, BatchNormCache]:
        """`forward` and the ReLU after it in one pass; `backward` of the cache is that of both."""
        return self._normalize(x, "relu", train=train)

    def _normalize(
        self,
        x: Array,
        activation: str | None,
        *,
        train: bool,
        mask: Array | None = None,
        residual: Array | None = None,
        out: Array | None = None,
    ) -> tuple[Array, BatchNormCache]:
        checks.check_bool("train", train)
        if not self._fits(x):
            owner(x, "x")
            arguments.check_input(x, self.axis, self.features, self.dtype)
        count: Any = self.state.get("count")
        decay = self.decay
        arguments.check_decay(decay)  # it may have been set anew, or come from an old pickle
        if decay is None:
            decay = 0.0 if count is None else float(count / (count + 1))
        if out is None and self._buffers is not None and not self.in_place:
            out = self._buffers.like(x)
        moves = train and not self._keeps_statistics
        parameters = self.params or self.frozen
        function: Any = batch_norm
        # Most layers have none of these, and a small batch feels each name in a call (bnkit bench --cases 100x100).
        if self.in_place or self.ghost is not None or self.reduce is not None or self.renorm is not None:
            rare: dict[str, Any] = {
                "ghost": self.ghost,
                "reduce": self.reduce,
                "renorm": self.renorm,
                "in_place": self.in_place,
            }
            function = functools.partial(batch_norm, **rare)
        y, cache = function(
            x,
            parameters.get("gamma"),
            parameters.get("beta"),
            self.state.get("running_mean"),
            self.state.get("running_var"),
            train=moves if self.state else True,
            axis=self.axis,
            decay=decay,
            eps=self.eps,
            correction=self.correction,
            mask=mask,
            residual=residual,
            activation=activation,
            out=out,
        )
        if moves and count is not None and (0 not in x.shape or (self.reduce is not None and any_elements(cache))):
            count[...] = count.item() + 1  # `+= 1` takes ten times as long
        return y, cache

    def _fits(self, x: Array) -> bool:
        """Whether one look tells that x is as the layer takes it; False says nothing."""
        axis = self.axis
        return (
            type(x) is np.ndarray
            and type(axis) is int
            and -x.ndim <= axis < x.ndim
            and x.shape[axis] == self.features[0]
            and dtype_name(x) == self.dtype
        )

    def backward(self, dy: Array, cache: BatchNormCache) -> Any:
        """(dx, {"gamma": …, "beta": …}), and after a forward with a residual (dx, grads, dresidual).

        They are wrong where x, or y with in_place=True, was written to since the forward.
        """
        buffers = self._buffers if isinstance(cache, BatchNormCache) else None
        out = None if buffers is None else buffers.like(cache.x)
        dx, dgamma, dbeta, dresidual = batch_norm_backward(dy, cache, out=out)
        grads = {"gamma": dgamma, "beta": dbeta} if self.params else {}
        return (dx, grads) if dresidual is None else (dx, grads, dresidual)

    def freeze(self, *, parameters: bool = True, statistics: bool = True) -> None:
        """Keep gamma and beta, the running statistics, or both as they are, until `unfreeze`.

        Frozen parameters stand in `frozen` and not in `params`, and backward returns no gradients of them, so an
        optimizer neither moves nor decays them. With frozen statistics training is as inference: it normalizes by the
        running ones, which with `count` stay. What is frozen is saved as if it were not, and a file does not tell.
        ValueError where there are no running statistics.
        """
        checks.check_bool("parameters", parameters)
        checks.check_bool("statistics", statistics)
        if statistics and not self.state:
            raise ValueError("statistics must be False for a layer with track=False, got True; it has none to freeze")
        if parameters and self.params:
            self.params, self.frozen = {}, self.params
        self._keeps_statistics = self._keeps_statistics or bool(statistics)

    def unfreeze(self, *, parameters: bool = True, statistics: bool = True) -> None:
        """The inverse of `freeze`."""
        checks.check_bool("parameters", parameters)
        checks.check_bool("statistics", statistics)
        if parameters and self.frozen:
            self.params, self.frozen = self.frozen, {}
        self._keeps_statistics = self._keeps_statistics and not statistics

    def part(self, replicas: slice) -> "BatchNorm":
        """The layer of some replicas, on the same memory; the one with the first replica counts the batches for all."""
        state = views({name: a for name, a in self.state.items() if name != "count"}, replicas)
        if "count" in self.state:
            state["count"] = self.state["count"] if replicas.start == 0 else np.array(self.state["count"])
        features = (replicas.stop - replicas.start, *self.features[1:])
        params, frozen = views(self.params, replicas), views(self.frozen, replicas)
        return replace(self, params=params, frozen=frozen, state=state, features=features)

    @property
    def moves_statistics(self) -> bool:
        """Whether training moves the running statistics: there are some, and they are not frozen."""
        return bool(self.state) and not self._keeps_statistics
