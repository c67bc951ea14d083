"""Recomputing running statistics over a whole dataset, which may be larger than memory."""

import copy
from collections.abc import Callable

import numpy as np

from bnkit.backend import Array, checks, owner
from bnkit.backend.messages import shown
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.layer import Arrays, Layer, leaves, replace
from bnkit.nn.mlp import MLP
from bnkit.nn.passes import Batches, Passes
from bnkit.nn.sequential import Sequential
from bnkit.norm import arguments
from bnkit.norm.moments import Moments
from bnkit.reference import quiet

Norms = dict[int, BatchNorm]  # by index among the leaves of a model


def update_statistics(
    model: MLP | Sequential | BatchNorm,
    batches: Batches,
    *,
    one_pass: bool = False,
    batch_size: int = 1024,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Set the running statistics of every BatchNorm of `model` to the statistics of the data, in place.

    The variance uses the layer's correction. state["count"] becomes the number of batches. Earlier statistics, decay,
    ghost, renorm and reduce have no effect: each rank gets the statistics of its data. Layers with track=False have no
    statistics, and frozen layers stay as they are. Batches merge exactly: without one_pass, their size changes only the
    rounding. The memory is that of one batch, plus O(channels).

    batches: an iterable of arrays, or of pairs (x, t) whose t is ignored, or a function that returns such an iterable.
        Or a dataset, which is read in batches of `batch_size` rows: a Dataset (its training part), (x, t), or one array
        that may be memory-mapped. x is as in the training of `model`.
    one_pass: False makes one pass for each BatchNorm, from first to last. The layers before it run in inference with
        their new statistics, so its input is exactly that of inference. A generator allows only one pass: pass a
        function that returns it. True makes one pass, in which each BatchNorm normalizes by the statistics of the
        batch, as in training. The result is approximate for all but the first BatchNorm, as in PyTorch's
        `swa_utils.update_bn`, which also omits the variance between batches. Dropout is off in both.
    on_progress: called with the number of batches read so far in all passes.

    Raises TypeError for another model and for batches that are no arrays, ValueError for no data, for fewer elements
    than the correction needs, and for other data in a later pass. After any error, also in the iterator of the data,
    the model is unchanged.

        >>> model, data = bnkit.MLP((64, 20, 10), seed=0), bnkit.data.load("synthetic")
        >>> bnkit.update_statistics(model, data)
    """
    checks.check_bool("one_pass", one_pass)
    checks.check_int("batch_size", batch_size)
    if on_progress is not None:
        checks.check_function("on_progress", on_progress, "of a number")
    if not isinstance(model, (MLP, Sequential, BatchNorm)):
        raise TypeError(f"model must be an MLP, a Sequential or a BatchNorm, got {shown(model)}; pass one of these")
    layers = leaves(model.network if isinstance(model, MLP) else model)
    tracked = _tracked(layers)
    if not tracked:
        return
    prepare = model.prepare_input if isinstance(model, MLP) else _unchanged
    passes = Passes(batches, prepare, next(iter(tracked.values())).axis, batch_size, on_progress)
    if not one_pass and len(tracked) > 1 and passes.single:
        raise ValueError(
            f"batches must be read {len(tracked)} times, once for each BatchNorm, got {type(batches).__name__}, which "
            f"can be read once; pass a function that makes it, or one_pass=True"
        )
    # Without in_place, so that the caller's data do not change.
    layers = [replace(layer, in_place=False) if isinstance(layer, BatchNorm) else layer for layer in layers]
    updated = (_by_one_pass if one_pass else _by_layers)(layers, tracked, passes)
    for i, norm in tracked.items():
        for name, array in updated[i].items():
            norm.state[name][...] = array


def _tracked(layers: list[Layer]) -> Norms:
    """The batch norms whose statistics training moves, each once and with writeable arrays."""
    tracked: Norms = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, BatchNorm):
            if layer.moves_statistics:
                tracked[i] = layer
        elif any("running_" in name for name in layer.state):
            raise TypeError(
                f"model must hold its BatchNorm in Sequential or MLP, got them in {type(layer).__name__}; update each "
                f"by itself"
            )
    if len({id(norm) for norm in tracked.values()}) < len(tracked):
        raise ValueError(
            "model must hold each BatchNorm once, got one twice, with inputs of different statistics; make two"
        )
    for norm in tracked.values():
        for name in ("running_mean", "running_var", "count"):
            array = norm.state[name]
            checks.check_writeable(name, array, owner(array, name))
    return tracked


def _unchanged(x: Array) -> Array:
    return x


def _by_layers(layers: list[Layer], tracked: Norms, passes: Passes) -> dict[int, Arrays]:
    """The new state of each layer, from a pass in which the layers before it have their new state."""
    updated: dict[int, Arrays] = {}
    layers = list(layers)
    for i, norm in tracked.items():
        before = Sequential(*layers[:i]) if i else None
        sums = _Sums(norm)
        for x in passes:
            sums.add(x if before is None else _forward(before, x, train=False))
        updated[i] = sums.state()
        layers[i] = replace(norm, in_place=False, state=updated[i])
    return updated


def _by_one_pass(layers: list[Layer], tracked: Norms, passes: Passes) -> dict[int, Arrays]:
    sums = {i: _Sums(norm) for i, norm in tracked.items()}
    # Copies that normalize by the statistics of the whole batch, even of one element. Nothing reads their state.
    options = {"in_place": False, "ghost": None, "renorm": None, "reduce": None, "correction": 0}
    trained = {i: replace(norm, state=copy.deepcopy(norm.state), **options) for i, norm in tracked.items()}
    for x in passes:
        for i, layer in enumerate(layers[: max(tracked) + 1]):
            if i in tracked:
                sums[i].add(x)
            x = _forward(trained.get(i, layer), x, train=i in tracked)
    return {i: s.state() for i, s in sums.items()}


@quiet
def _forward(layer: Layer, x: Array, *, train: bool) -> Array:
    return layer.forward(x, train=train)[0]


class _Sums:
    """The merged moments of the inputs of one BatchNorm, and the number of batches and of elements for each channel."""

    def __init__(self, layer: BatchNorm) -> None:
        self._layer = layer
        self._moments: Moments | None = None
        self._batches = self._elements = 0

    def add(self, x: Array) -> None:
        layer = self._layer
        backend = checks.common_backend(x=x, running_mean=layer.state["running_mean"])
        arguments.check_input(x, layer.axis, layer.features, layer.dtype)
        moments = Moments.of(x, axis=layer.axis)
        self._moments = moments if self._moments is None else self._moments.merge(moments)
        self._batches += 1
        _, rows, _, inner = backend.layout(x, layer.axis).shape
        self._elements += rows * inner

    @quiet
    def state(self) -> Arrays:
        """New arrays for the state of the layer, in its dtypes."""
        old, moments, correction = self._layer.state, self._moments, self._layer.correction
        if moments is None or self._elements <= correction:
            raise ValueError(
                f"batches must hold more than {correction} element a channel for running_var with "
                f"correction={correction}, got {self._elements}; pass more data, or correction=0"
            )
        xp = checks.common_backend(x=moments.mean).xp
        return {
            "running_mean": xp.astype(moments.mean, old["running_mean"].dtype),
            "running_var": xp.astype(moments.var(correction), old["running_var"].dtype),
            "count": np.asarray(self._batches, np.int64),
        }
