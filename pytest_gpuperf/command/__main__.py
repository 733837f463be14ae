"""Run ``python -m pytest_gpuperf.command`` as ``gpuperf``."""

import sys

from pytest_gpuperf.command import main

if __name__ == "__main__":
    sys.exit(main())
