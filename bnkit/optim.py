"""`bnkit.training.optimizers` by its public name."""

from bnkit.training.optimizers import *  # noqa: F403
from bnkit.training.optimizers import __all__ as __all__
