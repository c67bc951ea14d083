"""update_statistics refuses what does not fit, and leaves the model as it was."""

import numpy as np
import pytest
from small_layers import draw, on
from small_mlp import batch, everything, make

from bnkit import BatchNorm, Linear, ReLU, Sequential, update_statistics


class Failure(Exception):
    pass


def cut(x: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(x, np.cumsum(sizes), axis=-2)


def fail_at(parts, last_pass: int):
    """Batches whose iterator raises in pass `last_pass`, after the first of them."""
    passes = []

    def batches():
        passes.append(1)
        yield parts[0]
        if len(passes) == last_pass:
            raise Failure
        yield from parts[1:]

    return batches


@pytest.mark.parametrize("last_pass", [1, 2])
def test_an_iterator_that_raises_leaves_the_model_as_it_was(backend, last_pass):
    model, (x, _) = make(backend), batch(9)
    before = everything(model)
    with pytest.raises(Failure):
        update_statistics(model, fail_at(cut(x, 4), last_pass))
    assert everything(model) == before


def test_a_progress_that_raises_leaves_the_model_as_it_was(backend):
    def stop(read):
        if read == 4:
            raise Failure

    model, (x, _) = make(backend), batch(9)
    before = everything(model)
    for one_pass in (False, True):
        with pytest.raises(Failure):
            update_statistics(model, cut(x, 2, 2, 2), one_pass=one_pass, on_progress=stop)
    assert everything(model) == before


WRONG = {
    "none": (lambda x: [], ValueError, "batches must hold data, .*got none"),
    "no rows": (lambda x: [x[:0]], ValueError, "got none"),
    "one row": (lambda x: [x[:1]], ValueError, "more than 1 element a channel .* correction=1, got 1"),
    "spent": (lambda x: (lambda it: lambda: it)(iter([x])), ValueError, "got 0 elements after a pass over 45"),
    "other data": (
        lambda x: (lambda left: lambda: [x[: left.pop()]])([4, 9]),
        ValueError,
        "got 20 elements .* over 45",
    ),
    "other width": (lambda x: [x, x[:, :2]], ValueError, r"x must be \(rows, 5\), got \(9, 2\)"),
    "integers": (lambda x: [x.astype(int)], TypeError, "x of batches must be one of float16"),
    "numbers": (lambda x: [1.0, 2.0], TypeError, "batches must hold arrays or pairs .*got 1.0"),
    "triples": (lambda x: [(x, x, x)], TypeError, "batches must hold arrays or pairs .*got tuple"),
    "a tuple": (lambda x: (x, x, x), TypeError, "must be a list unless .*got a tuple of 3"),
    "no iterable": (lambda x: 3, TypeError, "batches must be an iterable .*got 3"),
    "nothing returned": (lambda x: lambda: None, TypeError, r"batches\(\) must be an iterable"),
    "one dimension": (lambda x: x[0], ValueError, r"got shape \(5,\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_data_that_do_not_fit_are_refused_and_leave_the_model_as_it_was(backend, case):
    model, (x, _) = make(backend), batch(9)
    before = everything(model)
    give, error, match = WRONG[case]
    with pytest.raises(error, match=match):
        update_statistics(model, give(x))
    assert everything(model) == before


def test_a_layers_own_checks_hold(backend):
    layer = BatchNorm(3, backend=backend, dtype="float64")
    with pytest.raises(ValueError, match=r"x must have \(3,\) features at axis 1"):
        update_statistics(layer, [on(backend, draw(5, 4))])


def test_arrays_of_another_backend_are_refused():
    with pytest.raises(TypeError, match="one backend"):
        update_statistics(BatchNorm(3, backend="strict", dtype="float64"), [draw(5, 3)])


def test_a_layer_that_stands_twice_is_refused(backend):
    layer = BatchNorm(3, backend=backend, dtype="float64")
    with pytest.raises(ValueError, match="each BatchNorm once"):
        update_statistics(Sequential(layer, ReLU(), layer), [on(backend, draw(5, 3))])


class Hiding(ReLU):
    def __init__(self, inner):
        super().__init__()
        self.state = {"0.running_mean": inner.state["running_mean"]}


def test_running_statistics_out_of_reach_are_refused(backend):
    layer = BatchNorm(3, backend=backend, dtype="float64")
    with pytest.raises(TypeError, match="got them in Hiding"):
        update_statistics(Sequential(layer, Hiding(layer)), [on(backend, draw(5, 3))])


def test_read_only_statistics_are_refused():
    layer = BatchNorm(3, backend="numpy", dtype="float64")
    layer.state["running_var"].flags.writeable = False
    with pytest.raises(ValueError, match="running_var must be writeable"):
        update_statistics(layer, [draw(5, 3)])
    assert (layer.state["running_mean"] == 0).all()


def test_statistics_that_overlap_themselves_are_refused():
    layer = BatchNorm(3, backend="numpy", dtype="float64")
    layer.state["running_mean"] = np.lib.stride_tricks.as_strided(np.zeros(1), (3,), (0,))
    with pytest.raises(ValueError, match="running_mean must not overlap itself"):
        update_statistics(layer, [draw(5, 3)])
    assert (layer.state["running_var"] == 1).all()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"one_pass": 1}, TypeError, "one_pass must be True or False"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"on_progress": 3}, TypeError, "on_progress must be a function"),
    ],
)
def test_wrong_options_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        update_statistics(make("numpy"), [batch()[0]], **options)


def test_another_model_is_refused():
    with pytest.raises(TypeError, match="model must be an MLP, a Sequential or a BatchNorm, got Linear"):
        update_statistics(Linear(2, 3, backend="numpy"), [batch()[0]])
