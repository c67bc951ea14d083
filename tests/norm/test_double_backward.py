"""The gradients of batch norm's gradients, against central differences of `batch_norm_backward` in float64."""

import numpy as np
import pytest
from small_layers import draw, on

import bnkit
from bnkit import batch_norm, batch_norm_backward, batch_norm_double_backward
from bnkit.testing.gradients import numerical_gradient

# Central differences with h = 1e-4: h²/6 of a third derivative, which is of order 10 here, and 1e-16 |f| / h.
GRADIENT = {"rtol": 1e-6, "atol": 2e-6}
GIVEN = ("dx", "dgamma", "dbeta", "dresidual")

CASES = {
    "rows": ((7, 3), {}),
    "two rows": ((2, 3), {"eps": 0.5}),  # two that lie close would have derivatives of any size
    "images": ((3, 2, 4, 2), {}),
    "channels last": ((3, 2, 2, 3), {"axis": -1}),
    "replicas": ((2, 5, 3), {"axis": (0, 2)}),
    "each activation": ((5, 2, 3), {"axis": (1, 2)}),
    "a large eps": ((7, 3), {"eps": 1.0}),
    "relu": ((9, 3), {"activation": "relu"}),
    "residual": ((9, 3), {"residual": True}),
    "residual and relu": ((9, 3), {"residual": True, "activation": "relu"}),
    "mask": ((9, 3), {"mask": np.arange(27).reshape(9, 3) % 4 > 0}),
    "mask of rows": ((9, 3), {"mask": np.arange(9) % 3 > 0}),
    "mask, residual and relu": ((9, 3), {"mask": np.arange(9) % 3 > 0, "residual": True, "activation": "relu"}),
    "a mask that hides a channel": ((6, 3), {"mask": np.arange(18).reshape(6, 3) % 3 > 0}),
    "ghost batches": ((9, 3), {"ghost": 4}),
    "ghost batches, mask and relu": ((9, 2, 2), {"ghost": 4, "mask": np.arange(9) % 4 > 0, "activation": "relu"}),
    "inference": ((7, 3), {"train": False}),
    "inference with residual and relu": ((7, 3), {"train": False, "residual": True, "activation": "relu"}),
}


class Case:
    """One batch norm, its backward as a function of dy, x and gamma, and random gradients of what that returns."""

    def __init__(self, backend, name: str, *, affine: bool = True) -> None:
        shape, options = CASES[name]
        self.backend, self.options = backend, {"train": True, **options}
        axis = self.options.get("axis", 1)
        kept = tuple(shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
        self.x, self.dy = on(backend, draw(*shape)), on(backend, draw(*shape, seed=1))
        self.gamma = on(backend, draw(*kept, seed=2)) if affine else None
        self.beta = on(backend, draw(*kept, seed=3)) if affine else None
        if self.options.get("residual"):
            self.options["residual"] = on(backend, draw(*shape, seed=4))
        if "mask" in self.options:
            self.options["mask"] = on(backend, self.options["mask"])
        self.running = [on(backend, draw(*kept, seed=5)), on(backend, draw(*kept, seed=6) ** 2 + 0.3)]
        self.given = {f"d{n}": on(backend, draw(*shape, seed=7 + i)) for i, n in enumerate(("dx", "dresidual"))}
        self.given |= {f"d{n}": on(backend, draw(*kept, seed=9 + i)) for i, n in enumerate(("dgamma", "dbeta"))}
        if self.options.get("residual") is None:
            del self.given["ddresidual"]
        if not affine:
            del self.given["ddgamma"], self.given["ddbeta"]

    def forward(self):
        running = [] if self.options["train"] else self.running
        return batch_norm(self.x, self.gamma, self.beta, *running, **self.options)[1]

    def value(self):
        """The sum of what the backward returns, weighed by `given`."""
        grads = batch_norm_backward(self.dy, self.forward())
        xp = self.backend.xp
        return sum(xp.sum(self.given[f"d{n}"] * getattr(grads, n)) for n in GIVEN if f"d{n}" in self.given)

    def double(self, cache=None):
        dd = [self.given.get(n) for n in ("ddx", "ddgamma", "ddbeta")]
        cache = self.forward() if cache is None else cache
        return batch_norm_double_backward(*dd, self.dy, cache, ddresidual=self.given.get("ddresidual"))

    def check(self) -> None:
        for name, got in self.double()._asdict().items():
            array = getattr(self, name.removeprefix("d"))
            if array is None:
                assert got is None
                continue
            assert tuple(got.shape) == tuple(array.shape)
            want = numerical_gradient(self.value, array)
            np.testing.assert_allclose(self.backend.to_numpy(got), want, err_msg=name, **GRADIENT)


@pytest.mark.parametrize("name", CASES)
def test_the_gradients_are_those_of_central_differences(backend, name):
    Case(backend, name).check()


@pytest.mark.parametrize("name", ["rows", "residual and relu", "ghost batches", "inference"])
def test_without_gamma_and_beta_too(backend, name):
    Case(backend, name, affine=False).check()


@pytest.mark.parametrize("one", ["ddx", "ddgamma", "ddbeta", "ddresidual"])
def test_each_gradient_may_come_alone(backend, one):
    case = Case(backend, "residual and relu")
    case.given = {one: case.given[one]}
    case.check()


def test_no_gradient_gives_zeros(backend):
    case = Case(backend, "rows")
    case.given = {}
    for got in case.double():
        assert not backend.to_numpy(got).any()


def test_what_the_mask_hides_may_be_nan(backend):
    case, plain = Case(backend, "mask of rows"), Case(backend, "mask of rows")
    hidden = np.flatnonzero(~(np.arange(9) % 3 > 0))
    for i in hidden.tolist():
        plain.dy[i, :] = case.dy[i, :] = 0.0
        plain.given["ddx"][i, :] = case.given["ddx"][i, :] = 0.0
        case.x[i, :] = float("nan")
    shown = np.setdiff1d(np.arange(9), hidden)
    got, want = case.double(), plain.double()
    for a, b in ((got.ddy, want.ddy), (got.dx, want.dx)):
        np.testing.assert_array_equal(backend.to_numpy(a)[shown], backend.to_numpy(b)[shown])
    np.testing.assert_array_equal(backend.to_numpy(got.dgamma), backend.to_numpy(want.dgamma))


def test_a_channel_that_the_mask_hides_may_be_nan(backend):
    case, plain = (Case(backend, "a mask that hides a channel") for _ in range(2))
    case.x[:, 0] = float("nan")
    for got, want in zip(case.double(), plain.double(), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(want))


def test_a_cache_serves_many_times_and_arrays_are_left_untouched(backend):
    case = Case(backend, "residual and relu")
    cache = case.forward()
    arrays = {"x": case.x, "dy": case.dy, "gamma": case.gamma, **case.given}
    before = {name: backend.to_numpy(a).copy() for name, a in arrays.items()}
    first, second = case.double(cache), case.double(cache)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
    for name, a in arrays.items():
        np.testing.assert_array_equal(backend.to_numpy(a), before[name], err_msg=name)


def test_memory_that_is_not_in_c_order_gives_the_same():
    case, other = (Case(bnkit.get_backend("numpy"), "images") for _ in range(2))
    other.x, other.dy, ddx = (
        np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        for a in (other.x, other.dy, other.given["ddx"])
    )
    other.given["ddx"] = ddx[..., ::-1][..., ::-1]
    for a, b in zip(other.double(), case.double(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)  # the same sums in another order
    assert other.double().dx.strides == other.x.strides


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_narrow_arrays_are_computed_in_float64_and_rounded(dtype, activation):
    shape = (40, 3)
    x, dy, ddx = (draw(*shape, seed=i, dtype=dtype) for i in range(3))
    gamma, beta, ddgamma, ddbeta = (draw(3, seed=i, dtype="float32") for i in range(3, 7))
    results = []
    for kind, small in ((dtype, "float32"), ("float64", "float64")):
        big = [a.astype(kind) for a in (x, dy, ddx)]
        few = [a.astype(small) for a in (gamma, beta, ddgamma, ddbeta)]
        _, cache = batch_norm(big[0], few[0], few[1], train=True, activation=activation)
        results.append(batch_norm_double_backward(big[2], few[2], few[3], big[1], cache))
    for got, want, kind in zip(*results, (dtype, dtype, "float32"), strict=True):
        assert got.dtype == kind
        # One rounding of a result; the statistics are those of float32's kernels, to 1e-6.
        np.testing.assert_allclose(got, want, rtol=2 * np.finfo(kind).eps, atol=2e-5)


def wrong(**change):
    def call(case):
        given = {"ddx": None, "ddgamma": None, "ddbeta": None, "dy": case.dy, "cache": case.forward(), **change}
        return batch_norm_double_backward(**given)

    return call


WRONG = {
    "no cache": (
        wrong(cache=None),
        TypeError,
        "cache must be what batch_norm returned, got None; pass its second value",
    ),
    "no dy": (wrong(dy=None), TypeError, r"dy must be an array of one of the backends .*got None"),
    "dy": (wrong(dy=draw(7, 4)), ValueError, r"dy must have the shape of x, \(7, 3\), got \(7, 4\)"),
    "dtype": (wrong(ddx=draw(7, 3, dtype="float32")), TypeError, "ddx must have the dtype of x, float64"),
    "ddgamma": (wrong(ddgamma=draw(4)), ValueError, r"ddgamma must have shape \(3,\), got \(4,\)"),
    "ddresidual": (wrong(ddresidual=draw(7, 3)), ValueError, "ddresidual must be None where .* no residual"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    call, error, match = WRONG[name]
    with pytest.raises(error, match=match):
        call(Case(bnkit.get_backend("numpy"), "rows"))


def test_a_gradient_of_what_was_not_given_is_refused(backend):
    with pytest.raises(ValueError, match="ddbeta must be None where batch_norm was given no beta"):
        wrong(ddbeta=on(backend, draw(3)))(Case(backend, "rows", affine=False))


def test_mixed_backends_are_refused():
    case = Case(bnkit.get_backend("strict"), "rows")
    for change in ({"dy": draw(7, 3)}, {"ddx": draw(7, 3)}):
        with pytest.raises(TypeError, match="backend"):
            wrong(**change)(case)


def test_statistics_shared_between_ranks_are_refused(backend):
    case = Case(backend, "rows")
    case.options["reduce"] = lambda a: a
    with pytest.raises(NotImplementedError, match=r"does not know reduce; the formula .* bnkit\.norm\.double_backward"):
        case.double()


def test_a_forward_over_its_own_input_is_refused():
    case = Case(bnkit.get_backend("numpy"), "inference")
    _, cache = batch_norm(case.x, case.gamma, case.beta, *case.running, train=False, out=case.x)
    with pytest.raises(ValueError, match="cache must refer to x as it was"):
        case.double(cache)


@pytest.mark.parametrize("with_residual", [False, True])
def test_a_value_that_float16_rounds_to_0_lets_nothing_through(with_residual: bool) -> None:
    x, beta = np.zeros((3, 2), np.float16), np.array([2.0**-26, 2.0**-24], np.float32)
    residual = np.zeros_like(x) if with_residual else None
    y, cache = bnkit.batch_norm(x, None, beta, train=True, residual=residual, activation="relu")
    np.testing.assert_array_equal(y > 0, np.broadcast_to([False, True], x.shape))
    ddbeta = np.ones(2, np.float32)
    grads = bnkit.batch_norm_double_backward(None, None, ddbeta, np.ones_like(x), cache)
    np.testing.assert_array_equal(grads.ddy, np.broadcast_to([0, 1], x.shape))
