"""`python -m callyard`: the command line, also where scripts are not on the PATH."""

import sys

from .cli import main

sys.exit(main())
