"""`bnkit.lab.benchmark.measure` by its public name."""

import sys

from bnkit.lab.benchmark import measure
from bnkit.lab.benchmark.measure import *  # noqa: F403, which type checkers read

sys.modules[__name__] = measure
