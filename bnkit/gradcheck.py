"""`bnkit.testing.gradients` by its public name."""

from bnkit.testing.gradients import *  # noqa: F403
from bnkit.testing.gradients import __all__ as __all__
