import sys

from bnkit.cli import start

sys.exit(start())
