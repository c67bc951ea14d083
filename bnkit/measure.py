"""`bnkit.lab.benchmark.measure` by its public name."""

from bnkit.lab.benchmark.measure import *  # noqa: F403
from bnkit.lab.benchmark.measure import __all__ as __all__
