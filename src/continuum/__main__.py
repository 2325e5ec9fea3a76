"""``python -m continuum``: the command ``continuum``, where its script is not on the path."""

import sys

from continuum.cli import main

if __name__ == "__main__":
    sys.exit(main())
