"""`bnkit.training.optimizers` by its public name."""

import sys

from bnkit.training import optimizers
from bnkit.training.optimizers import *  # noqa: F403, which type checkers read

sys.modules[__name__] = optimizers
