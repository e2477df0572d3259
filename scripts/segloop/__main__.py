"""`python -m segloop` is the command `segloop`."""

import sys

from segloop.cli import main

sys.exit(main())
