import sys

from bnkit_command import main

sys.exit(main())
