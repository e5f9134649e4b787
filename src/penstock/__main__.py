"""`python -m penstock`: the command line, also where scripts are not on the PATH."""

import sys

from penstock.cli import main

sys.exit(main())
