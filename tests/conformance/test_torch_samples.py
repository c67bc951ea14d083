"""bnkit against PyTorch on the CPU, over the samples by which PyTorch tests its own batch norm."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bnkit

torch = pytest.importorskip("torch", reason="PyTorch is not installed; it comes with the extra 'conformance'")
pytest.importorskip("expecttest", reason="PyTorch's samples need expecttest; it comes with the extra 'conformance'")

Host = np.ndarray[Any, Any]
# Both sum wider than half a dtype stores and round once, where theirs may fall to the other side; in float32 torch
# sums in float32.
TOLERANCE = {
    "float64": {"rtol": 1e-10, "atol": 1e-11},
    "float32": {"rtol": 2e-5, "atol": 2e-5},
    "float16": {"rtol": 2.0**-9, "atol": 2.0**-9},
    "bfloat16": {"rtol": 2.0**-6, "atol": 2.0**-6},
}
NO_CHANNELS = r"axis must lie within the 1 axes of x, got 1"


def host(tensor: Any) -> Host:
    """A copy, in NumPy's memory."""
    tensor = tensor.detach().clone()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def optional(tensor: Any) -> Host | None:
    """As bnkit takes the small arrays: float32 at least."""
    return None if tensor is None else host(tensor.double() if tensor.dtype == torch.float64 else tensor.float())


def as_torch_takes_it(a: Any) -> Any:
    """The same for torch, which takes float32 parameters beside half data too."""
    if a is None or a.dtype == torch.float64:
        return a
    return a.detach().float().requires_grad_(a.requires_grad)


def assert_close(dtype: str, what: str, pairs: dict[str, tuple[Any, Any]]) -> None:
    for name, (got, want) in pairs.items():
        if want is None:
            assert got is None, f"{what} {name}"
            continue
        widened = "float32" if got.dtype == np.float32 and dtype != "float32" and got.ndim == 1 else dtype
        tolerance = TOLERANCE[dtype if name.startswith("d") else widened]  # a sum takes what its terms lost
        wide = [np.asarray(a, np.float64) for a in (got, want)]
        np.testing.assert_allclose(*wide, err_msg=f"{what} {name}", **tolerance)


def samples(dtype: str) -> Iterator[Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    torch.manual_seed(0)
    (info,) = [op for op in op_db if op.name == "nn.functional.batch_norm" and op.variant_test_name == ""]
    return info.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_sample_of_functional_batch_norm_agrees(dtype: str) -> None:
    ran = refused = 0
    for sample in samples(dtype):
        options = {"training": False, "momentum": 0.1, "eps": 1e-5, **sample.kwargs}
        x, what = sample.input, f"{tuple(sample.input.shape)} {sample.kwargs}"
        mean, var, weight, bias = (as_torch_takes_it(a) for a in sample.args)
        small = [optional(a) for a in (weight, bias, mean, var)]
        ours = {"train": options["training"], "decay": 1 - options["momentum"], "eps": options["eps"]}
        if x.ndim == 1:  # torch lets the single (0,) pass; bnkit asks for an axis of channels
            with pytest.raises(ValueError, match=NO_CHANNELS):
                bnkit.batch_norm(host(x), *small, **ours)
            refused += 1
            continue
        y, cache = bnkit.batch_norm(host(x), *small, **ours)
        expected = torch.nn.functional.batch_norm(x, mean, var, weight, bias, **options)
        dy = torch.randn_like(expected)
        expected.backward(dy)
        grads = bnkit.batch_norm_backward(host(dy), cache)
        pairs = {"y": (y, host(expected)), "dx": (grads.dx, host(x.grad))}
        for name, got, leaf in (("dgamma", grads.dgamma, weight), ("dbeta", grads.dbeta, bias)):
            pairs[name] = (got, None if leaf is None else host(leaf.grad))
        for name, got, moved in (("running_mean", small[2], mean), ("running_var", small[3], var)):
            pairs[name] = (got, None if moved is None else host(moved))
        assert y.dtype == grads.dx.dtype == host(x).dtype
        assert_close(dtype, what, pairs)
        ran += 1
    assert (ran, refused) == (10, 2)  # as many as PyTorch 2.13 has; the two refused are of shape (0,)


# how many inputs PyTorch 2.13 has for each module
MODULES = {"nn.BatchNorm1d": 8, "nn.BatchNorm2d": 7, "nn.BatchNorm3d": 7}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_every_input_of_the_module_agrees_in_training_and_after_it(name: str, dtype: str) -> None:
    from torch.testing._internal.common_modules import module_db

    torch.manual_seed(0)
    (info,) = [m for m in module_db if m.name == name]
    kind = getattr(torch, dtype)
    inputs = info.module_inputs_func(info, "cpu", kind, requires_grad=True, training=True)
    for given in inputs:
        arguments, options = given.constructor_input.args, given.constructor_input.kwargs
        module = info.module_cls(*arguments, **options, dtype=kind)
        layer = bnkit.BatchNorm(
            module.num_features,
            decay=None if module.momentum is None else 1 - module.momentum,
            eps=module.eps,
            affine=module.affine,
            track=module.track_running_stats,
            backend="numpy",
            dtype=dtype,
        )
        (x,) = given.forward_input.args
        if module.affine:  # the default, ones and zeros, would hide what is multiplied by what
            leaves = {"gamma": module.weight, "beta": module.bias}
            for key, leaf in leaves.items():
                if leaf is not None:  # bias=False: a beta that stays 0, whose gradient is left out
                    torch.nn.init.normal_(leaf)
                    layer.params[key][...] = host(leaf)
        else:
            leaves = {}
        for step, train in enumerate([True, True, False]):
            module.train(train)
            module.zero_grad()
            x.grad = None
            batch = x * (step + 1) + step
            batch.retain_grad()
            expected = module(batch)
            dy = torch.randn_like(expected)
            expected.backward(dy)
            y, cache = layer.forward(host(batch), train=train)
            dx, grads = layer.backward(host(dy), cache)
            pairs = {"y": (y, host(expected)), "dx": (dx, host(batch.grad))}
            for key, leaf in leaves.items():
                if leaf is not None:
                    pairs[key] = (grads[key], host(leaf.grad))
            if module.track_running_stats:
                pairs |= {n: (layer.state[n], host(getattr(module, n))) for n in ("running_mean", "running_var")}
                # a batch of no elements counts for torch, and for bnkit does not
                seen = 0 if x.numel() == 0 else int(module.num_batches_tracked)
                assert int(layer.state["count"]) == seen
            else:
                assert layer.state == {}
            assert_close(dtype, f"{given.desc} step {step}", pairs)
    assert len(inputs) == MODULES[name]


def test_a_negative_eps_is_refused_as_the_module_refuses_it_and_0_is_taken() -> None:
    from torch.testing._internal.common_modules import module_db

    (info,) = [m for m in module_db if m.name == "nn.BatchNorm1d"]
    errors = info.module_error_inputs_func(info, "cpu", torch.float32, requires_grad=False, training=True)
    given = {e.module_error_input.constructor_input.kwargs["eps"]: e.module_error_input for e in errors}
    assert sorted(given) == [-1.0, 0.0]
    with pytest.raises(ValueError, match=r"eps must be .* got -1"):
        bnkit.BatchNorm(10, eps=-1.0)
    # torch refuses 0; here it is the formula without eps, and data that vary have a finite answer
    (x,) = given[0.0].forward_input.args
    y, _ = bnkit.BatchNorm(10, eps=0.0, backend="numpy").forward(host(x), train=True)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-6)  # the rounding of y
