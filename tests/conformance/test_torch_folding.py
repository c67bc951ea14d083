"""bnkit's double backward, folding and re-estimated statistics against PyTorch's on the CPU, in float64."""

from typing import Any

import numpy as np
import pytest

import bnkit

torch = pytest.importorskip("torch", reason="PyTorch is not installed; it comes with the extra 'conformance'")

Host = np.ndarray[Any, Any]
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}  # both sum in float64, in other orders


def random(*shape: int, seed: int = 0) -> Host:
    return np.random.default_rng((seed, *shape)).normal(0.5, 1.5, shape)


def tensor(a: Host, *, gradient: bool = True) -> Any:
    return torch.tensor(a, requires_grad=gradient)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", [(100, 7), (2, 3), (4, 3, 5, 7)], ids=str)
def test_the_double_backward_is_torchs(shape: tuple[int, ...], train: bool, relu: bool) -> None:
    channels = shape[1]
    x, dy, ddx = (random(*shape, seed=s) for s in range(3))
    gamma, beta, ddgamma, ddbeta, mean = (random(channels, seed=s) for s in range(3, 8))
    var = random(channels, seed=8) ** 2 + 0.5
    theirs = [tensor(a) for a in (x, gamma, beta, dy)]
    running = [tensor(a.copy(), gradient=False) for a in (mean, var)]
    y = torch.nn.functional.batch_norm(theirs[0], *running, *theirs[1:3], training=train, eps=1e-5)
    y = torch.relu(y) if relu else y
    grads = torch.autograd.grad(y, theirs[:3], theirs[3], create_graph=True)
    dd = [tensor(a, gradient=False) for a in (ddx, ddgamma, ddbeta)]
    expected = torch.autograd.grad(grads, [theirs[3], *theirs[:2]], dd)
    _, cache = bnkit.batch_norm(x, gamma, beta, mean, var, train=train, activation="relu" if relu else None)
    got = bnkit.batch_norm_double_backward(ddx, ddgamma, ddbeta, dy, cache)
    for name, ours, want in zip(got._fields, got, expected, strict=True):
        # of a channel of two rows x_hat is ±1, and rstd up to 1 / sqrt(eps)
        size = max(1.0, float(abs(want).max()))
        np.testing.assert_allclose(ours / size, want.numpy() / size, err_msg=name, **TOLERANCE)


@pytest.mark.parametrize(("transposed", "groups"), [(False, 1), (False, 2), (True, 1)])
def test_folded_weights_are_those_of_torchs_fusion(transposed: bool, groups: int) -> None:
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    convolution, norm = kind(4, 6, 3, groups=groups).double().eval(), torch.nn.BatchNorm2d(6).double().eval()
    for seed, a in enumerate((norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)):
        a.copy_(torch.tensor(random(6, seed=seed)).abs() + 0.1)
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm, transpose=transposed)
    given = (convolution.weight, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    axes = {"output_axis": 1, "input_axis": 0} if transposed else {}
    weight, bias = bnkit.fold_weights(*(a.detach().numpy() for a in given), eps=norm.eps, **axes)
    np.testing.assert_allclose(weight, fused.weight.detach().numpy(), **TOLERANCE)
    np.testing.assert_allclose(bias, fused.bias.detach().numpy(), **TOLERANCE)


def test_one_pass_gives_the_means_of_torchs_update_bn() -> None:
    network = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)
    ).double()
    options: dict[str, Any] = {"backend": "numpy", "dtype": "float64"}
    ours = bnkit.Sequential(
        bnkit.Linear(5, 4, **options),
        bnkit.BatchNorm(4, **options),
        bnkit.ReLU(),
        bnkit.Linear(4, 3, **options),
        bnkit.BatchNorm(3, **options),
    )
    for i in (0, 3):
        ours.params[f"{i}.weight"][...] = network[i].weight.detach().numpy().T
        ours.params[f"{i}.bias"][...] = network[i].bias.detach().numpy()
    batches = [random(6, 5, seed=s) for s in range(4)]  # equal ones, whose cumulative average is the mean of all
    torch.optim.swa_utils.update_bn([torch.tensor(x) for x in batches], network)
    bnkit.update_statistics(ours, iter(batches), one_pass=True)
    for i in (1, 4):
        np.testing.assert_allclose(ours.state[f"{i}.running_mean"], network[i].running_mean.numpy(), **TOLERANCE)
        assert int(ours.state[f"{i}.count"]) == int(network[i].num_batches_tracked)
