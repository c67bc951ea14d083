"""bnkit's batch norm on the cases of ONNX's own backend test suite, which come with the package onnx."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bnkit

onnx = pytest.importorskip("onnx", reason="onnx is not installed; it comes with the extra 'conformance'")

NODES = ["example", "epsilon", "example_training_mode", "epsilon_training_mode"]
CONVERTED = ["1d_3d_input_eval", "2d_eval", "2d_momentum_eval", "3d_eval", "3d_momentum_eval"]
Arrays = list[np.ndarray[Any, Any]]


def batch_normalization(node: Any, inputs: Arrays) -> Arrays:
    """ONNX's operator by bnkit: its momentum is the decay, its running variance is biased."""
    assert node.op_type == "BatchNormalization"
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    train = bool(given.pop("training_mode", 0))
    given.pop("is_test", None)  # of operator sets before 14, in whose eval cases it is 1
    options = {"eps": given.pop("epsilon", 1e-5), "decay": given.pop("momentum", 0.9)}
    assert not given, f"attributes that nothing here maps: {given}"
    x, scale, bias, mean, var = inputs
    y, _ = bnkit.batch_norm(x, scale, bias, mean, var, train=train, correction=0, **options)
    return [y, mean, var] if train else [y]


@pytest.fixture(scope="module")
def node_cases() -> dict[str, Any]:
    # importing a module of cases makes them; collecting all would draw those of every other operator
    importlib.import_module("onnx.backend.test.case.node.batch_normalization")
    return {c.name: c for c in onnx.backend.test.case.node._NodeTestCases if c.name.startswith("test_batchnorm")}


@pytest.fixture(scope="module")
def converted_cases() -> dict[str, Any]:
    loader = importlib.import_module("onnx.backend.test.loader")
    cases = loader.load_model_tests(kind="pytorch-converted")
    return {case.name: case for case in cases if "BatchNorm" in case.name}


def check(case: Any, node: Any, inputs: Arrays, expected: Arrays) -> None:
    got = batch_normalization(node, inputs)
    for name, a, b in zip(["y", "output_mean", "output_var"], got, expected, strict=False):
        assert a.dtype == b.dtype
        # the suite's own tolerances
        np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol, err_msg=f"{case.name} {name}")
    assert len(got) == len(expected)


def test_no_case_of_onnx_is_left_out(node_cases: dict[str, Any], converted_cases: dict[str, Any]) -> None:
    assert sorted(node_cases) == sorted(f"test_batchnorm_{name}" for name in NODES)
    assert sorted(converted_cases) == sorted(f"test_BatchNorm{name}" for name in CONVERTED)


@pytest.mark.parametrize("name", NODES)
def test_the_node_case_gives_its_outputs(node_cases: dict[str, Any], name: str) -> None:
    case = node_cases[f"test_batchnorm_{name}"]
    ((inputs, outputs),) = case.data_sets
    check(case, case.model.graph.node[0], [np.array(a) for a in inputs], list(outputs))


@pytest.mark.parametrize("name", CONVERTED)
def test_the_model_converted_from_pytorch_gives_its_outputs(converted_cases: dict[str, Any], name: str) -> None:
    case = converted_cases[f"test_BatchNorm{name}"]
    folder = Path(case.model_dir)
    graph = onnx.load(folder / "model.onnx").graph
    (node,) = graph.node

    def tensor(kind: str) -> np.ndarray[Any, Any]:
        return onnx.numpy_helper.to_array(onnx.load_tensor(folder / "test_data_set_0" / f"{kind}_0.pb"))

    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    x, *others = node.input
    assert x not in weights
    check(case, node, [tensor("input"), *(weights[i] for i in others)], [tensor("output")])
