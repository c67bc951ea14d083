"""Running statistics estimated anew over a whole dataset, which may be larger than memory."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from bnkit.backend import Array, checks, owner
from bnkit.backend.layout import make_layout
from bnkit.backend.messages import shown
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.layer import Layer
from bnkit.nn.mlp import MLP
from bnkit.nn.sequential import Sequential
from bnkit.norm import arguments
from bnkit.norm.moments import Moments
from bnkit.reference import quiet

Batches = Iterable[Any] | Callable[[], Iterable[Any]]


def update_statistics(
    model: MLP | Sequential | BatchNorm,
    batches: Batches,
    *,
    one_pass: bool = False,
    batch_size: int = 1024,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Set the running statistics of every BatchNorm of `model` to those of the data, in place.

    The variance is by the layer's correction, state["count"] the number of batches; what the statistics were before
    does not enter, nor do decay, ghost, renorm and reduce, so that on ranks they are those of each rank's data. A layer
    with track=False has none, and frozen ones stay as they are. Batches merge exactly: but with one_pass, how data are
    cut changes roundings alone. Memory is that of one batch and O(channels).

    batches: arrays, or pairs (x, t) of which t is ignored, in an iterable, or in one that a function returns at each
        call. Or the data whole, a Dataset (its training part), (x, t) or one array, memory-mapped if they are large,
        which are cut into `batch_size` rows. x is what `model` takes in training.
    one_pass: False takes one pass a BatchNorm, first to last, each over the inference of the layers before with their
        new statistics: exactly what inference will meet, however large the batches. A generator cannot be read more
        than once: give a function that makes it. True takes one pass, in which layers after a BatchNorm see data
        normalized by their batch's own statistics, as in training: approximate but for the first, like PyTorch's
        `swa_utils.update_bn`, which moreover leaves out the variance between the batches. Dropout is off in both.
    on_progress: called with the number of batches read so far in all passes.

    Raises ValueError for no data, too few for the correction, or other data in a later pass. Where anything raises, the
    data's own iterator included, the model is as it was.
    """
    checks.check_bool("one_pass", one_pass)
    checks.check_int("batch_size", batch_size)
    if on_progress is not None:
        checks.check_function("on_progress", on_progress, "of a number")
    prepare, network = _parts(model)
    layers = list(leaves(network))
    normalizing = [i for i, layer in enumerate(layers) if isinstance(layer, BatchNorm)]
    tracked = [i for i in normalizing if layers[i].moves_statistics]
    _check_layers(layers, tracked)
    if not tracked:
        return
    source = _Source(batches, prepare, layers[tracked[0]].axis, batch_size, on_progress)
    if not one_pass and len(tracked) > 1 and source.only_once:
        raise ValueError(
            f"batches must be read {len(tracked)} times, once for each BatchNorm, got {type(batches).__name__}, which "
            f"can be once; give a function that makes it, or one_pass=True"
        )
    for i in normalizing:  # the model's own layers stay as they are, and so do the caller's data
        layers[i] = copy.copy(layers[i])
        layers[i].in_place = False
    for i in tracked:  # in one pass these train, each batch by its own statistics alone
        layers[i].ghost = layers[i].renorm = layers[i].reduce = None
    updated = _by_one_pass(layers, tracked, source) if one_pass else _by_layers(layers, tracked, source)
    own = list(leaves(network))
    for i in tracked:
        for name, array in updated[i].items():
            own[i].state[name][...] = array


class _Source:
    """The batches' x, checked and on the model's backend, as often as they are asked for."""

    def __init__(
        self,
        batches: Any,
        prepare: Callable[[Array], Array],
        axis: int | tuple[int, ...],
        batch_size: int,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._prepare, self._on_progress, self._read = prepare, on_progress, 0
        self._batches = _cut(batches, axis, batch_size)
        if not callable(self._batches):
            _check_iterable("batches", self._batches)
        self.only_once = isinstance(self._batches, Iterator)
        self._sizes: set[int] = set()

    def __iter__(self) -> Iterator[Array]:
        size = 0
        batches = self._batches
        if callable(batches):
            _check_iterable("what batches returns", batches := batches())
        for batch in batches:
            x = batch[0] if isinstance(batch, (tuple, list)) and len(batch) == 2 else batch
            if isinstance(x, (tuple, list)) or not hasattr(x, "shape"):
                raise TypeError(f"batches must hold arrays or pairs (x, t), got {shown(batch)}")
            checks.check_array("x of batches", x)
            if 0 not in x.shape:
                size += int(np.prod(x.shape, dtype=np.int64))
                yield self._prepare(x)
            self._read += 1
            if self._on_progress is not None:
                self._on_progress(self._read)
        self._sizes.add(size)
        if size == 0 or len(self._sizes) > 1:
            found = f"{size} elements after a pass over {min(self._sizes - {size})}" if len(self._sizes) > 1 else "none"
            raise ValueError(
                f"batches must hold data, the same in every pass, got {found}; where a function gives them, it must "
                f"make a new iterator at each call"
            )


def _by_layers(layers: list[Any], tracked: list[int], source: _Source) -> dict[int, dict[str, Any]]:
    """Each layer's state by a pass of its own, in which the layers before have theirs already."""
    updated: dict[int, dict[str, Any]] = {}
    for i in tracked:
        before = Sequential(*layers[:i]) if i else None
        gathered = _Gathered(layers[i])
        for x in source:
            gathered.add(x if before is None else _forward(before, x, train=False))
        layers[i].state = updated[i] = gathered.state()
    return updated


def _by_one_pass(layers: list[Any], tracked: list[int], source: _Source) -> dict[int, dict[str, Any]]:
    gathered = {i: _Gathered(layers[i]) for i in tracked}
    for i in tracked:  # a training forward moves these, and nothing reads them; it is content with one element
        layer = layers[i]
        layer.state, layer.correction = copy.deepcopy(layer.state), 0
    for x in source:
        for i, layer in enumerate(layers[: tracked[-1] + 1]):
            if i in gathered:
                gathered[i].add(x)
            x = _forward(layer, x, train=i in gathered)
    return {i: gathered[i].state() for i in tracked}


@quiet
def _forward(layer: Layer, x: Array, *, train: bool) -> Array:
    return layer.forward(x, train=train)[0]


class _Gathered:
    """The moments of what one BatchNorm was given so far."""

    def __init__(self, layer: BatchNorm) -> None:
        self._layer, self._correction = layer, layer.correction
        self._moments: Moments | None = None
        self._batches, self._elements = 0, 0

    def add(self, x: Array) -> None:
        layer = self._layer
        backend = checks.common_backend(x=x, running_mean=layer.state["running_mean"])
        arguments.check_input(x, layer.axis, layer.features, layer.dtype)
        moments = Moments.of(x, axis=layer.axis)
        self._moments = moments if self._moments is None else self._moments.merge(moments)
        self._batches += 1
        shape = backend.layout(x, layer.axis).shape
        self._elements += shape[1] * shape[3]

    @quiet
    def state(self) -> dict[str, Any]:
        """As the layer's own, in new arrays."""
        old, moments = self._layer.state, self._moments
        if moments is None or self._elements <= self._correction:
            raise ValueError(
                f"batches must hold more than {self._correction} element a channel for running_var with correction="
                f"{self._correction}, got {self._elements}; give more data, or correction=0"
            )
        xp = checks.common_backend(x=moments.mean).xp
        return {
            "running_mean": xp.astype(moments.mean, old["running_mean"].dtype),
            "running_var": xp.astype(moments.var(self._correction), old["running_var"].dtype),
            "count": np.asarray(self._batches, np.int64),
        }


def _parts(model: Any) -> tuple[Callable[[Array], Array], Layer]:
    """What makes a batch fit the model, and its layers."""
    if isinstance(model, MLP):
        return model.prepare_input, model.network
    if not isinstance(model, (Sequential, BatchNorm)):
        raise TypeError(f"model must be an MLP, a Sequential or a BatchNorm, got {shown(model)}")
    return lambda x: x, model


def leaves(layer: Layer) -> Iterator[Any]:
    if isinstance(layer, Sequential):
        for inner in layer.layers:
            yield from leaves(inner)
    else:
        yield layer


def _check_layers(layers: list[Any], tracked: list[int]) -> None:
    """They can be written, each once, and none hides running statistics."""
    for layer in layers:
        if not isinstance(layer, BatchNorm) and any("running_" in name for name in layer.state):
            raise TypeError(f"model must hold its BatchNorm in Sequential or MLP, got them in {type(layer).__name__}")
    if len({id(layers[i]) for i in tracked}) < len(tracked):
        raise ValueError("model must hold each BatchNorm once, got one twice, whose inputs have other statistics")
    for i in tracked:
        for name in ("running_mean", "running_var", "count"):
            array = layers[i].state[name]
            checks.check_writeable(name, array, owner(array, name))


def _check_iterable(name: str, batches: Any) -> None:
    if not isinstance(batches, Iterable):
        raise TypeError(f"{name} must be an iterable of arrays or an array, got {shown(batches)}")


def _cut(batches: Any, axis: int | tuple[int, ...], batch_size: int) -> Any:
    """Whole data as a list-like of batches; anything else as it is. axis: that of the first BatchNorm."""
    if isinstance(batches, tuple):
        if len(batches) not in (2, 4) or not all(hasattr(a, "shape") for a in batches):
            raise TypeError(f"batches must be a list unless a Dataset or (x, t), got a tuple of {len(batches)}")
        batches = batches[0]
    if not hasattr(batches, "shape"):
        return batches
    if len(batches.shape) < 2:
        raise ValueError(f"batches must be an array with a batch axis and channels, got shape {tuple(batches.shape)}")
    try:
        rows = make_layout(tuple(batches.shape), axis, None).batch
    except ValueError:  # an input that replicas share has an axis less
        rows = 0
    return _Cut(batches, rows, batch_size)


class _Cut:
    """Rows of an array, so many at a time; a memory-mapped one is read piece by piece."""

    def __init__(self, whole: Array, axis: int, batch_size: int) -> None:
        self._whole, self._axis, self._batch_size = whole, axis, batch_size

    def __iter__(self) -> Iterator[Array]:
        for start in range(0, self._whole.shape[self._axis], self._batch_size):
            piece = slice(start, min(start + self._batch_size, self._whole.shape[self._axis]))
            yield self._whole[(slice(None),) * self._axis + (piece, ...)]
