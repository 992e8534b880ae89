"""`python -m voxfetch.cli`."""

import sys

from voxfetch.cli import main

sys.exit(main())
