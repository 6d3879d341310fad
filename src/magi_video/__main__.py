"""`python -m magi_video`: the same as `magi`."""

import sys

from magi_video.cli import main

if __name__ == "__main__":
    sys.exit(main())
