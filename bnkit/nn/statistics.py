"""Running statistics computed anew over a whole dataset, which may be larger than memory."""

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

Norms = dict[int, BatchNorm]  # by their place among the leaves of a model


def update_statistics(
    model: MLP | Sequential | BatchNorm,
    batches: Batches,
    *,
    one_pass: bool = False,
    batch_size: int = 1024,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Set the running statistics of every BatchNorm of `model` to those of the data, in place.

    The variance is that of the layer's correction, state["count"] becomes the number of batches. Earlier statistics do
    not enter, and neither do decay, ghost, renorm and reduce: on ranks, the statistics are those of each rank's data.
    Layers with track=False have none, and frozen ones stay as they are. Batches merge exactly: except with one_pass,
    the size of the batches changes roundings alone. Memory is that of one batch, and O(channels).

    batches: arrays, or pairs (x, t) of which t is ignored, in an iterable or in one that a function returns at each
        call. Or a whole dataset, which is cut into batches of `batch_size` rows: a Dataset (its training part), (x, t),
        or one array, memory-mapped if it is large. x is what `model` takes in training.
    one_pass: False takes one pass a BatchNorm, first to last, each over the inference of the layers before it with
        their new statistics. This is exactly the input of inference, however large the batches. A generator allows one
        pass only: pass a function that makes it. True takes one pass, in which the layers after a BatchNorm see data
        normalized by their batch's statistics, as in training. This is approximate for all but the first BatchNorm,
        like PyTorch's `swa_utils.update_bn`, which also leaves out the variance between the batches. Dropout is off in
        both.
    on_progress: called with the number of batches read so far in all passes.

    Raises TypeError for another model and for batches that are no arrays, ValueError for no data, for fewer elements
    than the correction needs, and for other data in a later pass. After any error, also one of the iterator of the
    data, the model is as it was.

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
    # Copies, so that neither the model nor the data of the caller change.
    layers = [replace(layer, in_place=False) if isinstance(layer, BatchNorm) else layer for layer in layers]
    updated = (_by_one_pass if one_pass else _by_layers)(layers, tracked, passes)
    for i, norm in tracked.items():
        for name, array in updated[i].items():
            norm.state[name][...] = array


def _tracked(layers: list[Layer]) -> Norms:
    """The batch norms whose statistics training moves; their arrays can be written, and each layer is there once."""
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
            "model must hold each BatchNorm once, got one twice, whose inputs have different statistics; make two"
        )
    for norm in tracked.values():
        for name in ("running_mean", "running_var", "count"):
            array = norm.state[name]
            checks.check_writeable(name, array, owner(array, name))
    return tracked


def _unchanged(x: Array) -> Array:
    return x


def _by_layers(layers: list[Layer], tracked: Norms, passes: Passes) -> dict[int, Arrays]:
    """The new state of each layer, by a pass in which the layers before it have theirs already."""
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
    # These train, each by the statistics of the whole batch, of which one element is enough; nothing reads their state.
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
    """The moments of the inputs of one BatchNorm so far, and how many batches and elements a channel they were."""

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
