"""`python -m laddercast`."""

import sys

from laddercast.cli import main

sys.exit(main())
