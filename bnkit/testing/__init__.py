"""The conformance suite of a backend: what its ops must give, whoever wrote them.

    for check in bnkit.testing.backend_checks():
        check(backend)

The oracle is `bnkit.reference` over NumPy, in float64, on the very values that were stored. Ops are called with the
4-D view `(groups, rows, channels, inner)`, a step with flat or shaped arrays. A check raises AssertionError.
"""

import inspect
from collections.abc import Callable

from bnkit.backend import Backend
from bnkit.testing import arrays, batch_norm, extremes, optimizer, products

__all__ = ["Check", "backend_checks"]

Check = Callable[[Backend], None]


def backend_checks() -> list[Check]:
    """Every check, as a function of the backend; its name is a sentence."""
    return [
        function
        for module in (batch_norm, extremes, arrays, products, optimizer)
        for _, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not function.__name__.startswith("_")
    ]


def __dir__() -> list[str]:
    return list(__all__)
