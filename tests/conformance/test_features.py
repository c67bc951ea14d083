"""docs/features.md: its lines give what they stand beside, and the names in its table are bnkit's."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textbook_tutorial

import bnkit

TEXT = (Path(__file__).parents[2] / "docs/features.md").read_text(encoding="utf-8")
TABLE, LINES = TEXT.split("## In one line")
LINES, _ = LINES.split("## What differs by choice")
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}  # both frameworks work in float32

Host = np.ndarray[Any, Any]
State = dict[str, Host]


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith(("|---", "| |", "| bnkit |")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


ROWS = [tuple(row) for row in rows(LINES)]
CODE = {(library.strip("* "), theirs): ours.strip("`") for library, theirs, ours in ROWS}


def of(library: str) -> list[tuple[str, str]]:
    return [(theirs.strip("`"), ours) for (name, theirs), ours in CODE.items() if name == library]


def batches(shape: tuple[int, ...]) -> list[Host]:
    return [np.random.default_rng((seed, *shape)).normal(0.5, 2, shape).astype(np.float32) for seed in range(4)]


def layer(code: str) -> Any:
    with bnkit.use_backend("numpy"):
        made = eval(code, {"bnkit": bnkit})
    for seed, array in enumerate(made.params.values()):
        array[...] = np.random.default_rng(seed).normal(1, 0.5, array.shape)
    return made


def follow(ours: Any, theirs: Callable[[Host, bool], Any], state: Callable[[], State], shape: tuple[int, ...]) -> None:
    """The layer's results over batches in training and one in inference, with its statistics after each."""
    for i, x in enumerate(batches(shape)):
        x, train = x.astype(ours.dtype), i < 3
        want = theirs(x, train)
        np.testing.assert_allclose(ours.forward(x, train=train)[0], want, **TOLERANCE)
        for name, expected in state().items():
            np.testing.assert_allclose(ours.state[name], expected, err_msg=f"{name} after batch {i}", **TOLERANCE)


@pytest.mark.parametrize(("theirs", "code"), of("PyTorch"))
def test_the_line_gives_pytorchs_module(theirs: str, code: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it comes with the extra 'conformance'")
    module, ours = eval(theirs, {"torch": torch}), layer(code)
    for name, mine in (("weight", "gamma"), ("bias", "beta")):
        if (parameter := getattr(module, name)) is not None:
            parameter.data[...] = torch.tensor(ours.params[mine])

    def call(x: Host, train: bool) -> Host:
        return module.train(train)(torch.tensor(x)).detach().numpy()

    def state() -> State:
        names = ("running_mean", "running_var") if module.track_running_stats else ()
        return {name: getattr(module, name).numpy() for name in names}

    follow(ours, call, state, (5, 3, 4, 4))
    assert bool(ours.state) is module.track_running_stats


@pytest.mark.parametrize(("theirs", "code"), of("Keras"))
def test_the_line_gives_keras_layer(keras: Any, theirs: str, code: str) -> None:
    torch = pytest.importorskip("torch")
    other, ours = eval(theirs, {"keras": keras}), layer(code)
    shape = (5, 4, 4, 3) if ours.axis == -1 else (5, 3, 4, 4)
    other.build(shape)
    for name, array in ours.params.items():
        getattr(other, name).assign(array)

    def call(x: Host, train: bool) -> Host:
        return other(torch.tensor(x), training=train).detach().numpy()

    def state() -> State:
        pairs = (("running_mean", other.moving_mean), ("running_var", other.moving_variance))
        return {name: variable.value.detach().numpy() for name, variable in pairs}

    follow(ours, call, state, shape)


def flax_moments(x: Host, over: tuple[int, ...]) -> tuple[Host, Host]:
    mean = x.mean(over)
    var = np.maximum(0, (x * x).mean(over) - mean**2)
    return mean, var


def chainer_moments(x: Host, over: tuple[int, ...]) -> tuple[Host, Host]:
    m = np.prod([x.shape[a] for a in over])
    return x.mean(over), x.var(over) * m / max(m - 1, 1)


# by the text of `theirs`: what is reduced, momentum and epsilon, and the moments that the running values take
FORMULAS: dict[str, Any] = {
    "flax.linen.BatchNorm()": ((5, 4, 4, 3), (0, 1, 2), 0.99, 1e-5, flax_moments),
    "chainer.links.BatchNormalization(3)": ((5, 3, 4, 4), (0, 2, 3), 0.9, 2e-5, chainer_moments),
    "chainer.links.BatchNormalization((3, 4, 4))": ((5, 3, 4, 4), (0,), 0.9, 2e-5, chainer_moments),
}


@pytest.mark.parametrize(("theirs", "code"), of("Flax") + of("Chainer"))
def test_the_line_gives_the_formula_of_flax_and_chainer(theirs: str, code: str) -> None:
    shape, over, momentum, eps, moments = FORMULAS[theirs]
    ours = layer(code)
    kept = tuple(1 if a in over else n for a, n in enumerate(shape))
    small = tuple(n for a, n in enumerate(shape) if a not in over)
    running = {"running_mean": np.zeros(small), "running_var": np.ones(small)}

    def call(x: Host, train: bool) -> Host:
        x = x.astype(np.float64)
        mean, var = running["running_mean"], running["running_var"]
        if train:
            new_mean, new_var = moments(x, over)
            running["running_mean"] = momentum * mean + (1 - momentum) * new_mean
            running["running_var"] = momentum * var + (1 - momentum) * new_var
            mean, var = x.mean(over), x.var(over)
        normalized = (x - mean.reshape(kept)) / np.sqrt(var.reshape(kept) + eps)
        return normalized * ours.params["gamma"].reshape(kept) + ours.params["beta"].reshape(kept)

    follow(ours, call, lambda: running, shape)


# the weight of the new value and what the variance divides by, of n; the lines name alpha and factor
FUNCTIONS: dict[str, tuple[str, float, int]] = {
    "BatchNormalization` with `training_mode=1": ("ONNX", 0.1, 0),
    "forward_training`, `use_scale`, `use_shift`, and the moving averages of its guide with α": ("oneDNN", 1 - 0.7, 0),
    "BatchNormalizationForwardTraining`, `SPATIAL": ("cuDNN", 0.35, 1),
    "BatchNormalizationForwardInference`, `SPATIAL": ("cuDNN", 0.0, 1),
}


@pytest.mark.parametrize(("theirs", "code"), of("ONNX") + of("oneDNN") + of("cuDNN"))
def test_the_line_gives_the_formula_of_onnx_onednn_and_cudnn(theirs: str, code: str) -> None:
    _, new, less = FUNCTIONS[theirs]
    eps = 1e-5 if "eps" not in code else 3e-3
    (x, *_), rng = batches((5, 3, 4, 4)), np.random.default_rng(0)
    gamma, beta, mean, var = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    wide, over, n, kept = x.astype(np.float64), (0, 2, 3), x.size // 3, (1, 3, 1, 1)
    batch_mean, batch_var = (wide.mean(over), wide.var(over)) if new else (mean, var)
    want = (wide - batch_mean.reshape(kept)) / np.sqrt(batch_var.reshape(kept) + eps)
    want = want * gamma.reshape(kept) + beta.reshape(kept)
    moved = new * batch_mean + (1 - new) * mean, new * batch_var * n / (n - less) + (1 - new) * var
    moved = moved if new else (mean.copy(), var.copy())
    names = {"x": x, "gamma": gamma, "beta": beta, "mean": mean, "var": var, "alpha": 0.7, "factor": 0.35, "eps": eps}
    y, _ = eval(code, {"bnkit": bnkit, **names})
    np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)  # float32, rounded once
    np.testing.assert_allclose((mean, var), moved, rtol=1e-6)


def test_the_line_gives_the_tutorials_class() -> None:
    ((theirs, code),) = of("Deep Learning from Scratch")
    gamma, beta = np.linspace(0.5, 2, 3), np.linspace(-1, 1, 3)
    other = eval(theirs, {**vars(textbook_tutorial), "gamma": gamma, "beta": beta})
    ours = eval(code, {"bnkit": bnkit, "gamma": gamma, "beta": beta})
    for i, x in enumerate(batches((6, 3))):
        x = x.astype(np.float64)
        # float64: a few roundings
        np.testing.assert_allclose(ours.forward(x, i < 3), other.forward(x, i < 3), rtol=1e-12, atol=1e-12)


def test_every_line_is_executed() -> None:
    libraries = {library for library, _ in CODE}
    assert len(CODE) == len(ROWS)
    assert libraries == {"PyTorch", "Keras", "Flax", "Chainer", "ONNX", "oneDNN", "cuDNN", "Deep Learning from Scratch"}


def names_in_the_table() -> list[str]:
    """Of the first column of the features, what is an option, a function, a class or a method."""
    found = []
    for row in rows(TABLE):
        for code in re.findall(r"`([^`]+)`", row[0]):
            name = re.match(r"(?:layer\.)?(\w+)", code)
            found += [name.group(1)] if name and not code.startswith("(") else []
    return sorted(set(found))


@pytest.mark.parametrize("name", names_in_the_table())
def test_the_name_in_the_table_is_bnkits(name: str) -> None:
    homes: list[Any] = [bnkit, bnkit.BatchNorm, bnkit.Moments]
    known = {*inspect.signature(bnkit.batch_norm).parameters, *inspect.signature(bnkit.BatchNorm).parameters}
    assert name in known or any(hasattr(home, name) for home in homes)


def test_a_row_has_as_many_cells_as_the_table_has_columns() -> None:
    assert {len(row) for row in rows(TABLE)} == {7}
