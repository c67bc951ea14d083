"""bnkit's batch norm, loss and optimizers against PyTorch's on the CPU."""

from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit import optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed; it comes with the extra 'conformance'")

Host = np.ndarray[Any, Any]
SHAPES = [(100, 7), (2, 3), (13, 5, 11), (4, 3, 5, 7), (8, 16, 14, 14)]
TOLERANCE = {
    "float64": {"rtol": 1e-10, "atol": 1e-11},  # both sum in float64, in other orders
    "float32": {"rtol": 2e-5, "atol": 2e-5},  # torch sums in float32, up to 1,568 elements
}


def random(*shape: int, dtype: str = "float64", seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape).astype(dtype)


def tensor(a: Host, *, gradient: bool = False) -> Any:
    return torch.tensor(a, requires_grad=gradient)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("decay", [0.9, 0.0, 2.2], ids=str)
def test_batch_norm_is_torchs_with_momentum_1_minus_decay(
    shape: tuple[int, ...], train: bool, dtype: str, decay: float
) -> None:
    channels = shape[1]
    x, dy = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    gamma, beta, mean = (random(channels, dtype=dtype, seed=s) for s in (2, 3, 4))
    var = random(channels, dtype=dtype, seed=5) ** 2 + np.asarray(0.5, dtype)
    theirs = [tensor(a, gradient=True) for a in (x, gamma, beta)]
    their_mean, their_var = tensor(mean), tensor(var)
    expected = torch.nn.functional.batch_norm(
        theirs[0], their_mean, their_var, theirs[1], theirs[2], training=train, momentum=1 - decay, eps=1e-5
    )
    expected.backward(tensor(dy))
    y, cache = bnkit.batch_norm(x, gamma, beta, mean, var, train=train, decay=decay)
    grads = bnkit.batch_norm_backward(dy, cache)
    pairs = [("y", y, expected.detach()), ("running_mean", mean, their_mean), ("running_var", var, their_var)]
    pairs += [(name, getattr(grads, name), t.grad) for name, t in zip(("dx", "dgamma", "dbeta"), theirs, strict=True)]
    for name, got, want in pairs:
        assert got.dtype == dtype
        scale = np.sqrt(x.size / channels) if name in ("dgamma", "dbeta") else 1  # sums, whose rounding walks
        tolerance = {k: v * scale for k, v in TOLERANCE[dtype].items()}
        np.testing.assert_allclose(got, want.numpy(), err_msg=name, **tolerance)


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_the_layer_is_torchs_module_over_several_batches(momentum: float | None) -> None:
    module = torch.nn.BatchNorm1d(5, momentum=momentum, dtype=torch.float64)
    decay = None if momentum is None else 1 - momentum
    layer = bnkit.BatchNorm(5, decay=decay, dtype="float64", backend="numpy")
    for seed in range(4):
        x = random(7, 5, seed=seed)
        y, _ = layer.forward(x, train=True)
        np.testing.assert_allclose(y, module(tensor(x)).detach().numpy(), **TOLERANCE["float64"])
        for name in ("running_mean", "running_var"):
            np.testing.assert_allclose(layer.state[name], getattr(module, name).numpy(), **TOLERANCE["float64"])
        assert int(layer.state["count"]) == int(module.num_batches_tracked)
    module.eval()
    y, _ = layer.forward(x, train=False)
    np.testing.assert_allclose(y, module(tensor(x)).detach().numpy(), **TOLERANCE["float64"])


def test_batch_norm_with_relu_is_torchs_with_relu_after_it() -> None:
    x, residual, dy, gamma, beta = (random(*s, seed=i) for i, s in enumerate([(9, 4, 5)] * 3 + [(4,)] * 2))
    theirs = [tensor(a, gradient=True) for a in (x, gamma, beta, residual)]
    before = torch.nn.functional.batch_norm(theirs[0], None, None, theirs[1], theirs[2], training=True)
    expected = torch.relu(before + theirs[3])
    expected.backward(tensor(dy))
    y, cache = bnkit.batch_norm(x, gamma, beta, train=True, residual=residual, activation="relu")
    np.testing.assert_allclose(y, expected.detach().numpy(), **TOLERANCE["float64"])
    for got, want in zip(bnkit.batch_norm_backward(dy, cache), theirs, strict=True):
        np.testing.assert_allclose(got, want.grad.numpy(), **TOLERANCE["float64"])


RULES = {
    "SGD": (lambda: optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "Momentum": (lambda: optim.Momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
    "Nesterov": (lambda: optim.Nesterov(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True)),
    "AdaGrad": (lambda: optim.AdaGrad(0.1), lambda p: torch.optim.Adagrad(p, 0.1)),
    "RMSProp": (lambda: optim.RMSProp(0.1, alpha=0.95), lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.95)),
    "Adam": (lambda: optim.Adam(0.1, 0.85, 0.99), lambda p: torch.optim.Adam(p, 0.1, betas=(0.85, 0.99))),
    "AdamW": (lambda: optim.AdamW(0.1, weight_decay=0.2), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2)),
}
DEFAULTS = {
    "SGD": (optim.SGD, "SGD", {}),
    "Momentum": (optim.Momentum, "SGD", {"momentum": 0.9}),
    "Nesterov": (optim.Nesterov, "SGD", {"momentum": 0.9, "nesterov": True}),
    "AdaGrad": (optim.AdaGrad, "Adagrad", {}),
    "RMSProp": (optim.RMSProp, "RMSprop", {}),
    "Adam": (optim.Adam, "Adam", {}),
    "AdamW": (optim.AdamW, "AdamW", {}),
}


def follow(ours: Any, make: Any) -> None:
    """Six steps of both over the same gradients."""
    params = {"w": random(5, 3), "b": random(3)}
    theirs = {name: torch.nn.Parameter(tensor(a.copy())) for name, a in params.items()}
    rule = make(list(theirs.values()))
    for step in range(6):
        grads = {name: random(*a.shape, seed=10 + step) for name, a in params.items()}
        for name, parameter in theirs.items():
            parameter.grad = tensor(grads[name])
        rule.step()
        ours.update(params, grads)
        for name, parameter in theirs.items():
            # the same formula in float64, its products in another order
            np.testing.assert_allclose(params[name], parameter.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_takes_torchs_steps(name: str) -> None:
    ours, theirs = RULES[name]
    follow(ours(), theirs)


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_optimizer_has_torchs_defaults(name: str) -> None:
    ours, theirs, options = DEFAULTS[name]
    rule = ours()
    lr = {"SGD": 1e-3, "Adagrad": 1e-2, "RMSprop": 1e-2, "Adam": 1e-3, "AdamW": 1e-3}[theirs]
    follow(ours(lr=lr), lambda p: getattr(torch.optim, theirs)(p, **({"lr": lr} if theirs == "SGD" else {}), **options))
    if theirs != "SGD":  # torch's SGD has no default of long standing
        follow(rule, lambda p: getattr(torch.optim, theirs)(p, **options))


@pytest.mark.parametrize("kind", ["labels", "weights"])
def test_softmax_cross_entropy_is_torchs(kind: str) -> None:
    logits = random(13, 7) * 20
    rng = np.random.default_rng(3)
    target = rng.integers(0, 7, 13) if kind == "labels" else rng.dirichlet(np.ones(7), 13)
    theirs = tensor(logits, gradient=True)
    expected = torch.nn.functional.cross_entropy(theirs, tensor(target))
    expected.backward()
    loss, gradient = bnkit.get_backend("numpy").softmax_cross_entropy(logits, target)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
    # float64 on both sides; a gradient is at most 1 / 13
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_a_tensor_is_refused_by_name_and_passes_once_converted() -> None:
    x = torch.ones((7, 5), dtype=torch.float32)
    layers = [bnkit.BatchNorm(5, backend="numpy"), bnkit.Linear(5, 3, backend="numpy"), bnkit.ReLU()]
    for layer in layers:
        with pytest.raises(
            TypeError, match=r"^x must be .*got torch\.Tensor; convert it by bnkit\.get_backend\(\)\.asarray$"
        ):
            layer.forward(x, train=True)
        layer.forward(bnkit.get_backend("numpy").asarray(x), train=True)
