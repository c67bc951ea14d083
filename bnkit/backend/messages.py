"""How a wrong argument is shown in the message that refuses it."""

from typing import Any

_LONGEST = 100


def shown(value: Any) -> str:
    """`value` in one line: an array by its type and shape, a long or many-lined text by its type alone."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type_name(type(value))} of shape {tuple(shape)}"
    text = repr(value)
    return type_name(type(value)) if len(text) > _LONGEST or "\n" in text else text


def type_name(of: type) -> str:
    """ "list", "None" or "torch.Tensor"."""
    if of is type(None):
        return "None"
    return of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"
