"""`bnkit.lab.experiments` by its public name."""

import sys

from bnkit.lab import experiments
from bnkit.lab.experiments import *  # noqa: F403, which type checkers read

sys.modules[__name__] = experiments
