"""`python -m unface`: the command."""

import sys

from unface.command import main

sys.exit(main())
