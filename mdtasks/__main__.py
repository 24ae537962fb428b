"""``python -m mdtasks``: the command line."""

import sys

from mdtasks.cli import main

sys.exit(main())
