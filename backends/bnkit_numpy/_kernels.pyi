from collections.abc import Sequence
from typing import Any

from bnkit.reference import BatchNormBackward, BatchNormTrain, Moments

Array = Any
Optional = Array | None

def version() -> str: ...
def cpu_level() -> str: ...
def kernel_level() -> str | None: ...
def kernel_levels() -> list[str]: ...
def set_threads(count: int) -> None: ...
def get_threads() -> int: ...
def plain_views(
    x: Array,
    others: tuple[Optional, ...],
    parameters: tuple[Optional, ...],
    copies: int,
    view_shape: tuple[int, int, int, int],
    parameter_shape: tuple[int, ...],
) -> tuple[Optional, ...] | None: ...
def walked_rows(shape: tuple[int, int, int, int]) -> tuple[int, int]: ...
def train(
    x: Array,
    gamma: Optional,
    beta: Optional,
    running_mean: Optional,
    running_var: Optional,
    residual: Optional,
    out: Optional,
    decay: float,
    eps: float,
    correction: int,
    relu: bool,
) -> BatchNormTrain | None: ...
def inference(
    x: Array,
    gamma: Optional,
    beta: Optional,
    mean: Array,
    var: Array,
    residual: Optional,
    out: Optional,
    eps: float,
    relu: bool,
) -> tuple[Array, Optional] | None: ...
def moments(x: Array) -> Moments: ...
def gradient_sums(
    dy: Array,
    x: Array,
    gamma: Optional,
    beta: Optional,
    mean: Array,
    rstd: Array,
    active: Optional,
    relu: bool,
) -> tuple[Array, Array] | None: ...
def backward(
    dy: Array,
    x: Array,
    gamma: Optional,
    beta: Optional,
    mean: Array,
    rstd: Array,
    active: Optional,
    count: Optional,
    sum_dy: Optional,
    sum_dy_x_hat: Optional,
    out: Optional,
    train: bool,
    relu: bool,
    residual: bool,
) -> BatchNormBackward | None: ...
def softmax_cross_entropy(logits: Array, labels: Optional, weights: Optional, shared: bool) -> tuple[Array, Array]: ...
def optimizer_step(
    rule: str,
    p: Array,
    g: Array,
    memory: Sequence[Array],
    lr: Array | float,
    decays: Sequence[float],
    eps: float,
    weight_decay: float,
    step: float,
) -> bool: ...
def sparse_product(a: Array, b: Array) -> tuple[Array, list[int]] | None: ...
