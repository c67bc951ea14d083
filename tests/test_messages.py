"""A message names the argument that is wrong, what it must be, what it was and the remedy."""

import re

import numpy as np
import pytest
from small_layers import KEY, draw, linear, on

import bnkit
from bnkit import BatchNorm, Dropout, Linear, Moments, ReLU, Sequential, Sigmoid, Tanh
from bnkit.testing.gradients import numerical_gradient


class Foreign:
    """As a tensor of another library: numpy.asarray takes it, and no backend owns it."""

    dtype = "float32"
    shape = (7, 5)
    ndim = 2

    def __getitem__(self, key):
        return self

    def __array__(self, *args, **options):
        return np.ones(self.shape, np.float32)


NO_ARRAYS = {
    "None": (None, r"got None; pass an array"),
    "a list": ([[1.0, 2.0]], r"got list; convert it by numpy\.asarray"),
    "a tuple": ((1.0, 2.0), r"got tuple; convert it by numpy\.asarray"),
    "a number": (1.5, r"got float; convert it by numpy\.asarray"),
    "a NumPy scalar": (np.float32(1), r"got numpy\.float32; convert it by numpy\.asarray"),
    "a string": ("abc", r"got str; pass an array"),
    "a tensor": (Foreign(), r"got \S*Foreign; convert it by bnkit\.get_backend\(\)\.asarray"),
    "a masked array": (np.ma.ones((7, 5)), r"got numpy\.ma\.MaskedArray; pass a\.data"),
}


def forwards(backend):
    return {
        "Linear": linear(backend),
        "Linear of replicas": linear(backend, replicas=2),
        "BatchNorm": BatchNorm(5, dtype="float64", backend=backend),
        "ReLU": ReLU(),
        "Sigmoid": Sigmoid(),
        "Tanh": Tanh(),
        "Dropout": Dropout(0.5),
        "Sequential": Sequential(ReLU(), linear(backend)),
    }


LAYERS = list(forwards(bnkit.get_backend("numpy")))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("wrong", NO_ARRAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_an_x_that_is_no_array_is_named_by_every_layer(backend, layer, wrong, train):
    value, said = NO_ARRAYS[wrong]
    with pytest.raises(TypeError, match=rf"^x must be an array of one of the backends \(.*\), {said}"):
        forwards(backend)[layer].forward(value, train=train, key=KEY)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex128])
@pytest.mark.parametrize("layer", LAYERS)
def test_an_x_of_another_dtype_is_named_by_every_layer(backend, layer, dtype):
    x = backend.asarray(np.ones((7, 5), dtype))
    said = f"x must be one of float16, bfloat16, float32, float64, got {np.dtype(dtype).name}; convert it"
    with pytest.raises(TypeError, match=f"^{said}"):
        forwards(backend)[layer].forward(x, train=True, key=KEY)


@pytest.mark.parametrize("wrong", NO_ARRAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_dy_that_is_no_array_is_named_by_every_layer(backend, layer, wrong):
    net, (value, said) = forwards(backend)[layer], NO_ARRAYS[wrong]
    _, cache = net.forward(on(backend, draw(7, 5)), train=True, key=KEY)
    for backward in (net.backward, getattr(net, "gradients", net.backward)):
        with pytest.raises(TypeError, match=rf"^dy must be an array of one of the backends \(.*\), {said}"):
            backward(value, cache)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_dy_of_another_shape_is_named_by_every_layer(backend, layer):
    net = forwards(backend)[layer]
    y, cache = net.forward(on(backend, draw(7, 5)), train=True, key=KEY)
    for wrong in (draw(7), draw(1, 5), draw(6, 5)):
        for backward in (net.backward, getattr(net, "gradients", net.backward)):
            with pytest.raises(
                ValueError, match=rf"^dy must have the shape of .*\({', '.join(map(str, y.shape))}\), got"
            ):
                backward(on(backend, wrong), cache)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_dy_of_integers_is_named_by_every_layer(backend, layer):
    net = forwards(backend)[layer]
    y, cache = net.forward(on(backend, draw(7, 5)), train=True, key=KEY)
    with pytest.raises(TypeError, match=r"^dy must .*got int64; convert it"):
        net.backward(backend.asarray(np.ones(y.shape, np.int64)), cache)


@pytest.mark.parametrize("wrong", [None, "abc", 1.5, {}, [], [[1.0]], (1, 2)], ids=repr)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "Dropout"])
def test_a_cache_that_no_forward_returned_is_named_by_every_layer(backend, layer, wrong):
    net = forwards(backend)[layer]
    y, _ = net.forward(on(backend, draw(7, 5)), train=True, key=KEY)
    for backward in (net.backward, getattr(net, "gradients", net.backward)):
        with pytest.raises(
            TypeError, match=r"^cache must be what (forward|batch_norm) returned.*; pass its second value"
        ):
            backward(y, wrong)


def test_dropout_names_a_cache_and_after_inference_a_dy(backend):
    dy = on(backend, draw(7, 5))
    with pytest.raises(TypeError, match=r"^cache must be what forward returned, got 'abc'"):
        Dropout(0.5).backward(dy, "abc")
    with pytest.raises(TypeError, match=r"^dy must be an array of one of the backends .*got list"):
        Dropout(0.5).backward([1.0], None)


@pytest.mark.parametrize("layer", LAYERS)
def test_an_array_of_another_backend_is_named_by_every_layer(layer):
    net, foreign = forwards(bnkit.get_backend("numpy"))[layer], bnkit.get_backend("strict")
    y, cache = net.forward(draw(7, 5), train=True, key=KEY)
    with pytest.raises(
        TypeError, match=r"^dy (and \w+ )?must be of (one backend|the backend of x).*got .*strict.*; move"
    ):
        net.backward(foreign.asarray(y), cache)


@pytest.mark.parametrize("key", ["abc", (1, 2), [1, 2, 3], {}, 7], ids=repr)
@pytest.mark.parametrize("layer", ["Dropout", "Sequential"])
def test_a_wrong_key_is_named(backend, layer, key):
    with pytest.raises(ValueError, match=r"^key must be .*\(seed, layer, step\), got " + re.escape(repr(key))):
        forwards(backend)[layer].forward(on(backend, draw(7, 5)), train=True, key=key)


@pytest.mark.parametrize("train", [None, 1, "yes"])
@pytest.mark.parametrize("layer", ["BatchNorm", "Dropout", "Sequential"])
def test_a_train_that_is_no_bool_is_named(backend, layer, train):
    with pytest.raises(TypeError, match=f"^train must be True or False, got {train!r}"):
        forwards(backend)[layer].forward(on(backend, draw(7, 5)), train=train, key=KEY)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"bias": np.ones(3)}, TypeError, r"bias must be True or False, got numpy\.ndarray of shape \(3,\)"),
        ({"layer": None}, TypeError, "layer must be an int, got None"),
        ({"layer": -1}, ValueError, "layer must be at least 0, got -1"),
        ({"seed": np.ones((2, 2), int), "replicas": 2}, TypeError, r"seed must be an int, got \[1, 1\]"),
        ({"seed": {}}, ValueError, "seed must be one value without replicas, got 0"),
        ({"init": np.ones((2, 2)), "replicas": 2}, TypeError, r"init must be a number, got \[1\.0, 1\.0\]"),
        ({"init": None}, TypeError, "init must be a number, got None"),
        ({"inputs": np.array(5.0)}, TypeError, r"inputs must be an int, got array\(5\.\)"),
        ({"dtype": np.ones(3)}, ValueError, "dtype must be one of float32, float64, got"),
    ],
)
def test_a_wrong_option_of_linear_is_named(options, error, said):
    with pytest.raises(error, match=f"^{said}"):
        Linear(**{"inputs": 5, "outputs": 3, "backend": "numpy", **options})


def test_a_class_in_place_of_a_layer_is_refused():
    with pytest.raises(
        TypeError, match=r"^layers must have forward and backward, got .*ReLU.*; make a layer of the class"
    ):
        Sequential(ReLU)


@pytest.mark.parametrize("option", ["train", "axis", "decay", "eps", "correction", "activation", "ghost", "reduce"])
def test_an_array_as_an_option_is_shown_by_its_shape(option):
    x = draw(7, 5)
    options = {"train": True, option: draw(200, 300)}
    with pytest.raises(
        (TypeError, ValueError), match=rf"^{option} must .*got numpy\.ndarray of shape \(200, 300\)"
    ) as caught:
        bnkit.batch_norm(x, None, None, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["axis", "ghost", "correction"])
def test_an_array_of_one_float_is_no_int(option):
    with pytest.raises(TypeError, match=rf"^{option} must be an int.*, got array\(1\.\)"):
        bnkit.batch_norm(draw(7, 5), None, None, train=True, **{option: np.array(1.0)})


def test_an_x_with_too_few_axes_is_told_of_them(backend):
    for shape in ((), (5,)):
        with pytest.raises(ValueError, match=rf"^axis must lie within the {len(shape)} axes of x, got 1; reshape x"):
            bnkit.batch_norm(backend.asarray(np.ones(shape)), None, None, train=True)


@pytest.mark.parametrize("wrong", NO_ARRAYS)
def test_a_gradient_that_is_no_array_is_named_by_both_backwards(backend, wrong):
    value, said = NO_ARRAYS[wrong]
    _, cache = bnkit.batch_norm(on(backend, draw(7, 5)), None, None, train=True)
    with pytest.raises(TypeError, match=rf"^dy must be an array of one of the backends \(.*\), {said}"):
        bnkit.batch_norm_backward(value, cache)
    with pytest.raises(TypeError, match=rf"^dy must be an array of one of the backends \(.*\), {said}"):
        bnkit.batch_norm_double_backward(None, None, None, value, cache)


@pytest.mark.parametrize("name", ["ddx", "ddgamma", "ddbeta", "ddresidual"])
def test_a_second_gradient_that_is_no_array_is_named(backend, name):
    dy, small = on(backend, draw(7, 5)), on(backend, draw(5))
    _, cache = bnkit.batch_norm(dy, small, small, train=True, residual=dy)
    call = {"ddx": None, "ddgamma": None, "ddbeta": None, "dy": dy, "cache": cache} | {name: [1.0]}
    with pytest.raises(TypeError, match=rf"^{name} must be an array of one of the backends .*got list"):
        bnkit.batch_norm_double_backward(**call)


@pytest.mark.parametrize("name", ["count", "mean", "m2"])
def test_a_field_of_moments_that_is_no_array_is_named(backend, name):
    moments = Moments.of(on(backend, draw(7, 5)))
    for value in (None, [1.0]):
        with pytest.raises(TypeError, match=rf"^{name} of part 0 must be an array of one of the backends"):
            moments._replace(**{name: value}).var()
        with pytest.raises(TypeError, match=rf"^{name} of part 1 must be an array of one of the backends"):
            moments.merge(moments._replace(**{name: value}))


@pytest.mark.parametrize("name", ["weight", "bias", "gamma", "beta", "running_mean", "running_var"])
def test_an_array_of_fold_weights_that_is_none_of_a_backend_is_named(backend, name):
    call = {k: on(backend, draw(4) ** 2) for k in ("bias", "gamma", "beta", "running_mean", "running_var")}
    call |= {"weight": on(backend, draw(4, 3))} | {name: [1.0]}
    with pytest.raises(TypeError, match=rf"^{name} must be an array of one of the backends .*got list"):
        bnkit.fold_weights(**call)


@pytest.mark.parametrize("wrong", [Foreign(), np.ones((7, 5), int)], ids=["a tensor", "integers"])
def test_data_of_update_statistics_that_do_not_fit_are_named(wrong):
    layer = BatchNorm(5, backend="numpy")
    for batches in (wrong, [wrong], [(wrong, None)]):
        with pytest.raises(TypeError, match=r"^x of batches must be .*; convert it"):
            bnkit.update_statistics(layer, batches)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ({"f": 3.0}, TypeError, r"f must be a function without arguments, got 3\.0"),
        ({"array": [1.0]}, TypeError, "array must be an array of one of the backends .*got list"),
        ({"array": np.ones(3, int)}, TypeError, "array must be one of float16.*got int64; convert it"),
        ({"h": "1e-4"}, TypeError, "h must be a number, got '1e-4'"),
        ({"h": 0.0}, ValueError, r"h must be above 0, got 0\.0"),
        ({"h": -1e-4}, ValueError, r"h must be above 0, got -0\.0001"),
    ],
)
def test_a_wrong_argument_of_gradcheck_is_named(call, error, said):
    with pytest.raises(error, match=f"^{said}"):
        numerical_gradient(**{"f": lambda: 0.0, "array": draw(3), **call})


@pytest.mark.parametrize("name", [np.ones(3), None, 3, ["mnist"]], ids=repr)
def test_a_dataset_of_no_name_is_refused_by_name(name):
    with pytest.raises(ValueError, match=r"^name must be one of 'mnist', 'digits', 'synthetic', got "):
        bnkit.data.load(name)


@pytest.mark.parametrize("path", [None, 3, ["a"], np.ones(3)], ids=repr)
def test_a_path_that_is_none_is_named(path):
    with pytest.raises(TypeError, match=r"^path must be a str or a path, got .*; name a file"):
        bnkit.data.read_idx(path)
    if path is not None:
        with pytest.raises(TypeError, match=r"^path must be a str or a path, got "):
            bnkit.data.load("mnist", path=path)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (("a", 0, 0), "seed, got 'a'"),
        ((None, 0, 0), "seed, got None"),
        (([1, 2.5], 0, 0), r"seed, got 2\.5"),
        ((1, "b", 0), "layer, got 'b'"),
        ((1, 0, 1.0), r"step, got 1\.0"),
    ],
)
def test_a_part_of_a_key_that_is_no_int_is_named(backend, key, said):
    with pytest.raises(TypeError, match=f"^key must hold an int as its {said}"):
        Dropout(0.5).forward(on(backend, draw(2, 7)), train=True, key=key)


def test_a_ragged_list_is_named_by_the_tutorial():
    layer = bnkit.tutorial.BatchNormalization(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"^x must be an array of real numbers"):
        layer.forward([[1.0, 2.0], [3.0]])


def test_an_unknown_op_of_the_benchmark_is_named():
    with pytest.raises(ValueError, match=r"^op must be one of train, .*, got 'trian'"):
        bnkit.measure.bytes_moved("trian", bnkit.measure.Case((2, 3), 1), 4)
