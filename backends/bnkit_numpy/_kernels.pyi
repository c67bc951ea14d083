from typing import Any

Array = Any

def version() -> str: ...
def cpu_level() -> str: ...
def kernel_level() -> str | None: ...
def set_threads(count: int) -> None: ...
def get_threads() -> int: ...
def train(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    y: Array,
    mean: Array,
    m2: Array,
    rstd: Array,
    decay: float,
    eps: float,
    correction: int,
    relu: bool,
) -> None: ...
def inference(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    var: Array,
    y: Array,
    eps: float,
    relu: bool,
) -> None: ...
def backward(
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
    train: bool,
    relu: bool,
) -> None: ...
