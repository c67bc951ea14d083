"""`bnkit.testing.gradients` by its public name."""

import sys

from bnkit.testing import gradients
from bnkit.testing.gradients import *  # noqa: F403, which type checkers read

sys.modules[__name__] = gradients
