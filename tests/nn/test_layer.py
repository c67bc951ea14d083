"""Layers of users and subclasses of bnkit's layers in `Sequential`, `fold` and `update_statistics`."""

import doctest

import numpy as np
import pytest
from small_layers import KEY, check_gradients, draw, linear, on

import bnkit
from bnkit import BatchNorm, Dropout, Linear, ReLU, Sequential, Tanh, fold, update_statistics
from bnkit.nn.layer import Layer, replace


class Scale:
    """y = scale * x; states nothing that is optional."""

    def __init__(self, backend, features):
        self.params, self.state = {"scale": on(backend, draw(features, seed=9))}, {}

    def forward(self, x, *, train, key=None):
        return x * self.params["scale"], x

    def backward(self, dy, cache):
        xp = bnkit.backend_of(dy).xp
        return dy * self.params["scale"], {"scale": xp.sum(dy * cache, axis=0)}


class Shifted(BatchNorm):
    """y + 1 in place of y, which a ReLU in the same pass would not see."""

    def forward(self, x, *, train, **options):
        y, cache = super().forward(x, train=train, **options)
        return y + 1, cache


class Leaky(ReLU):
    def forward(self, x, *, train, key=None):
        xp = bnkit.backend_of(x).xp
        return xp.maximum(x, 0.1 * x), x

    def backward(self, dy, cache):
        xp = bnkit.backend_of(dy).xp
        return xp.where(cache > 0, dy, 0.1 * dy), {}


class Doubled(Linear):
    """Twice a Linear, by a forward and a backward that leave `gradients` as it is."""

    def forward(self, x, *, train, key=None):
        y, cache = super().forward(x, train=train, key=key)
        return 2 * y, cache

    def backward(self, dy, cache):
        return super().backward(2 * dy, cache)


class Residual(Sequential):
    def forward(self, x, *, train, key=None):
        y, caches = super().forward(x, train=train, key=key)
        return x + y, caches

    def backward(self, dy, cache):
        dx, grads = super().backward(dy, cache)
        return dx + dy, grads


def norm(backend, of=BatchNorm, features=5, **options):
    return of(features, backend=backend, dtype="float64", **options)


def test_the_example_of_the_protocol_runs():
    example = doctest.DocTestFinder().find(Layer, "Layer", globs={})[0]
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert (runner.failures, runner.tries > 5) == (0, True)


def test_a_layer_of_the_users_own_trains_between_others(backend):
    net = Sequential(linear(backend), Scale(backend, 3), Tanh(), linear(backend, 3, 2), Scale(backend, 2))
    assert list(net.params) == ["0.weight", "0.bias", "1.scale", "3.weight", "3.bias", "4.scale"]
    check_gradients(backend, net, draw(7, 5))


@pytest.mark.parametrize("layers", [(Shifted, ReLU), (BatchNorm, Leaky), (Shifted, Leaky)])
def test_a_subclass_that_overrides_forward_is_computed_by_itself(backend, layers):
    first, second = norm(backend, layers[0]), layers[1]()
    x, dy = on(backend, draw(9, 5)), on(backend, draw(9, 5, seed=1))
    y, caches = Sequential(first, second).forward(x, train=True)
    dx, _ = Sequential(first, second).backward(dy, caches)
    hidden, first_cache = first.forward(x, train=True)
    expected, second_cache = second.forward(hidden, train=True)
    expected_dx, _ = first.backward(second.backward(dy, second_cache)[0], first_cache)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))
    np.testing.assert_array_equal(backend.to_numpy(dx), backend.to_numpy(expected_dx))


def test_a_subclass_that_overrides_neither_forward_nor_backward_is_fused(backend):
    class Narrow(BatchNorm):
        pass

    class Plain(ReLU):
        pass

    x = on(backend, draw(9, 5))
    y, caches = Sequential(norm(backend, Narrow), Plain()).forward(x, train=True)
    assert caches[1] is None
    assert repr(caches[0]).startswith("<BatchNormCache")
    expected, _ = norm(backend, activation="relu").forward(x, train=True)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))


def test_a_forward_that_is_set_on_a_layer_is_the_one_that_runs(backend):
    relu = ReLU()
    relu.forward = lambda x, *, train, key=None: (x, x)
    y, _ = Sequential(norm(backend), relu).forward(on(backend, draw(9, 5)), train=True)
    assert backend.to_numpy(y).min() < 0


def test_the_users_own_layer_may_compute_the_next_one_too(backend):
    class Fusing(Scale):
        def forward(self, x, *, train, key=None):
            return super().forward(x, train=train)

        def fuses(self, after):
            return type(after) is Tanh

        def forward_fused(self, x, *, train, key=None):
            return x, "both"

    x = on(backend, draw(4, 5))
    y, caches = Sequential(Fusing(backend, 5), Tanh()).forward(x, train=True)
    assert (y is x, caches) == (True, ["both", None])
    assert Sequential(Fusing(backend, 5), ReLU()).forward(x, train=True)[1][0] is x


def test_gradients_alone_are_those_of_an_overridden_backward(backend):
    net = Sequential(Doubled(5, 3, backend=backend, dtype="float64"), Tanh())
    y, caches = net.forward(on(backend, draw(7, 5)), train=True)
    alone, (_, full) = net.gradients(y, caches), net.backward(y, caches)
    for name, grad in full.items():
        np.testing.assert_array_equal(backend.to_numpy(alone[name]), backend.to_numpy(grad))


def test_a_layer_that_overwrites_its_input_needs_one_before_it_that_says_it_may():
    backend = bnkit.get_backend("numpy")
    scale = Scale(backend, 5)
    with pytest.raises(ValueError, match="a BatchNorm with in_place=True after Scale, whose backward needs"):
        Sequential(scale, norm(backend, in_place=True))
    with pytest.raises(ValueError, match="after Doubled"):
        Sequential(Doubled(5, 5), norm(backend, in_place=True))
    with pytest.raises(ValueError, match="a Residual with in_place=True after Tanh"):
        Sequential(Tanh(), Residual(Sequential(norm(backend, in_place=True))))
    scale.needs_output = False
    Sequential(scale, Sequential(norm(backend, in_place=True)))


def test_a_network_inside_another_may_override_forward(backend):
    inner = Residual(linear(backend, 5, 4), Tanh(), linear(backend, 4, 5, layer=1))
    net = Sequential(inner, linear(backend, 5, 2, layer=2))
    check_gradients(backend, net, draw(7, 5))
    y, caches = net.forward(on(backend, draw(7, 5)), train=True)
    alone, (_, full) = net.gradients(y, caches), net.backward(y, caches)
    assert all((backend.to_numpy(alone[k]) == backend.to_numpy(full[k])).all() for k in full)


def test_dropouts_after_an_overridden_network_draw_for_themselves(backend):
    x = on(backend, np.ones((40, 50)))
    _, caches = Sequential(Residual(Dropout(), Dropout()), Dropout()).forward(x, train=True, key=KEY)
    masks = [backend.to_numpy(mask).tobytes() for mask in (*caches[0], caches[1])]
    assert len(set(masks)) == 3


def test_statistics_are_not_taken_through_an_overridden_network(backend):
    net = Sequential(Residual(norm(backend)), linear(backend))
    with pytest.raises(TypeError, match="model must hold its BatchNorm in Sequential or MLP, got them in Residual"):
        update_statistics(net, [on(backend, draw(7, 5))])


def test_statistics_of_a_subclass_are_those_of_what_it_is_given(backend):
    x = draw(9, 5)
    net = Sequential(norm(backend, Shifted), norm(backend))
    update_statistics(net, [on(backend, x)])
    np.testing.assert_allclose(backend.to_numpy(net.state["0.running_mean"]), x.mean(0), rtol=1e-12)
    # The second one sees y + 1 of the first, whose mean is 0.
    np.testing.assert_allclose(backend.to_numpy(net.state["1.running_mean"]), np.ones(5), rtol=1e-12)


@pytest.mark.parametrize("between", [Leaky, lambda: type("Noise", (Dropout,), {"forward": Tanh.forward})()])
def test_fold_skips_no_layer_that_overrides_what_inference_would_skip(backend, between):
    with pytest.raises(ValueError, match=r"must be next to a Linear, got (Leaky|Noise) after it"):
        fold(Sequential(norm(backend), between(), linear(backend)))


def test_fold_skips_a_layer_of_the_users_own_that_inference_skips(backend):
    class Noise(Scale):
        identity_in_inference = True

        def forward(self, x, *, train, key=None):
            return x, None

    net = Sequential(norm(backend), Noise(backend, 5), linear(backend))
    x = on(backend, draw(7, 5))
    want, got = (backend.to_numpy(n.forward(x, train=False)[0]) for n in (net, fold(net)))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_fold_leaves_a_subclass_that_overrides_forward(backend):
    net = Sequential(linear(backend), norm(backend, Shifted, 3))
    x = on(backend, draw(7, 5))
    want, got = (backend.to_numpy(n.forward(x, train=False)[0]) for n in (net, fold(net)))
    np.testing.assert_array_equal(got, want)


def test_what_is_set_after_a_network_was_made_takes_effect_at_the_next_forward(backend):
    layer = norm(backend)
    net, x = Sequential(layer, ReLU()), on(backend, draw(9, 5))
    layer.freeze()
    _, caches = net.forward(x, train=True)
    assert (list(net.backward(x, caches)[1]), list(net.frozen)) == ([], ["0.gamma", "0.beta"])
    assert int(layer.state["count"]) == 0
    layer.unfreeze()
    layer.decay = 0.0
    net.forward(x, train=True)
    np.testing.assert_allclose(backend.to_numpy(layer.state["running_mean"]), draw(9, 5).mean(0), rtol=1e-12)


def test_whether_a_relu_is_fused_stays_as_the_network_was_made(backend):
    layer, x = norm(backend), on(backend, draw(9, 5))
    net = Sequential(layer, ReLU())
    layer.activation = "relu"
    assert net.forward(x, train=True)[1][1] is None
    layer.in_place = True
    with pytest.raises(ValueError, match="activation must be None with in_place=True"):
        net.forward(x, train=True)


def test_replace_changes_a_copy_and_names_an_unknown_attribute(backend):
    layer = norm(backend)
    other = replace(layer, decay=0.5)
    assert (layer.decay, other.decay, other.state is layer.state) == (0.9, 0.5, True)
    with pytest.raises(AttributeError, match="BatchNorm has no attribute momentum to replace"):
        replace(layer, momentum=0.1)
