"""A small MLP in float64, its batches, their loss row by row, and every bit that training may move."""

import numpy as np

from bnkit import MLP

SIZES = (5, 6, 4, 3)
ROWS = 9
# The same float64 sums, which a batched product or another library may order differently.
ROUNDING = {"rtol": 1e-12, "atol": 1e-13}

OPTIONS = {
    "plain": {"batch_norm": False},
    "default": {},
    "per option": {"batch_norm": {"decay": None, "eps": 1e-3, "correction": 0, "ghost": 4}},
    "not affine": {"batch_norm": {"affine": False}},
    "untracked": {"batch_norm": {"track": False}},
    "sigmoid": {"activation": "sigmoid"},
    "tanh without bias": {"activation": "tanh", "bias": False},
    "all": {"activation": "sigmoid", "weight_decay": 0.1, "dropout": 0.3, "batch_norm": {"ghost": 5}},
}


def make(backend, sizes=SIZES, **options) -> MLP:
    return MLP(sizes, backend=backend, **{"dtype": "float64", **options})


def batch(rows=ROWS, lead=(), seed=0, dtype="float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*lead, rows, SIZES[0])).astype(dtype), rng.integers(SIZES[-1], size=(*lead, rows))


def host(backend, arrays: dict) -> dict[str, np.ndarray]:
    return {k: np.array(v if isinstance(v, np.ndarray) else backend.to_numpy(v)) for k, v in arrays.items()}


def everything(model: MLP) -> dict[str, bytes]:
    """Every bit of a model that training may move."""
    return {k: a.tobytes() for k, a in host(model.backend, {**model.params, **model.state}).items()}


def stir(model: MLP, seed: int = 7) -> MLP:
    """The model with every parameter away from its starting value."""
    rng = np.random.default_rng(seed)
    for name, p in model.params.items():
        if not name.endswith("weight"):
            p[...] = model.backend.asarray(rng.normal(1, 0.3, size=tuple(p.shape)).astype(model.dtype))
    return model


def cross_entropy(logits: np.ndarray, t: np.ndarray) -> float:
    """Written out row by row: -Σ w log softmax, over the rows' number."""
    total = 0.0
    for z, label in zip(logits, t, strict=True):
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        total -= log_p[label] if np.ndim(label) == 0 else np.sum(label * log_p)
    return total / len(logits)
