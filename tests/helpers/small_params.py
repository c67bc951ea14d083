"""Two small parameters, their gradients, and the names of the optimizers that move them."""

import numpy as np

SHAPES = {"0.weight": (3, 4), "0.bias": (4,)}
ALL = ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW"]


def host_arrays(seed: int, lead: tuple[int, ...] = (), dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*lead, *shape)).astype(dtype) for name, shape in SHAPES.items()}


def on(backend, arrays: dict[str, np.ndarray]) -> dict:
    return {name: backend.asarray(a.copy()) for name, a in arrays.items()}


def bits(backend, arrays: dict) -> dict[str, bytes]:
    return {name: backend.to_numpy(a).tobytes() for name, a in arrays.items()}
