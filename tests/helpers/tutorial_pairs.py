"""The tutorial's network twice from one seed, bnkit's and the textbook's, and how near the two must stay."""

import numpy as np
import textbook_tutorial as textbook
from numpy.testing import assert_allclose

from bnkit import tutorial

# Both sides compute in float64 and differ in the order of their operations: some hundred roundings of 1e-16 each.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}

OPTIMIZERS = {
    "SGD": {"lr": 0.1},
    "Momentum": {"lr": 0.05, "momentum": 0.8},
    "Nesterov": {"lr": 0.05, "momentum": 0.8},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.005, "decay_rate": 0.9},
    "Adam": {"lr": 0.01, "beta1": 0.8, "beta2": 0.95},
}

NETWORKS = {
    "plain": {},
    "batch norm": {"use_batchnorm": True},
    "sigmoid": {"activation": "sigmoid", "weight_init_std": "sigmoid"},
    "batch norm, sigmoid, weight decay": {
        "activation": "Sigmoid",
        "weight_init_std": "Xavier",
        "weight_decay_lambda": 0.1,
        "use_batchnorm": True,
    },
    "dropout": {"use_dropout": True, "dropout_ration": 0.3, "weight_init_std": "he"},
    "all of it": {"use_dropout": True, "use_batchnorm": True, "weight_decay_lambda": 0.02, "weight_init_std": 0.2},
}


def build_both(**options):
    """The two networks from one seed, and what the seed gives after them."""
    networks = []
    for module in (tutorial, textbook):
        np.random.seed(11)
        networks.append(module.MultiLayerNetExtend(6, [8, 7], 4, **options))
    return networks


def batch(random, rows=9):
    return random.normal(0, 1, (rows, 6)), random.integers(0, 4, rows)


def assert_same_entries(ours, expected, tolerance=CLOSE):
    assert set(ours) == set(expected)
    for key in expected:
        assert_allclose(ours[key], expected[key], err_msg=key, **tolerance)
