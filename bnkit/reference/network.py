"""What a network needs beside batch norm: its products and its loss."""

from typing import Any

from bnkit.reference.array import Array, quiet


def matmul(xp: Any, a: Array, b: Array) -> Array:
    """a @ b, of a (rows, inner) and b (inner, columns); of replicas b has a leading axis, and a has it or is shared."""
    return xp.matmul(a, b)


@quiet
def softmax_cross_entropy(xp: Any, logits: Array, target: Array) -> tuple[Array, Array]:
    """The mean over rows of -log softmax(logits)[target], and its gradient.

    logits: (..., rows, classes); target: integer labels (..., rows), or weights (..., rows, classes), without the
    leading axes where they are shared. The loss is float64 of shape (...), the gradient has the logits' dtype.
    """
    z = xp.astype(logits, xp.float64, copy=False)
    if "int" in str(target.dtype):  # by name, since isdtype raises on bfloat16
        classes = xp.cumulative_sum(xp.ones_like(z[..., :1, :]), axis=-1) - 1
        target = xp.astype(target, xp.float64, copy=False)[..., None] == classes
    target = xp.astype(target, xp.float64)
    z = z - xp.max(z, axis=-1, keepdims=True)
    log_p = z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))
    rows = logits.shape[-2]
    loss = -xp.sum(xp.where(target == 0, xp.zeros_like(log_p), target * log_p), axis=(-2, -1)) / rows
    gradient = (xp.exp(log_p) * xp.sum(target, axis=-1, keepdims=True) - target) / rows
    return loss, xp.astype(gradient, logits.dtype)
