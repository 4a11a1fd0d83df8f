"""`python -m unface.server --port 50051`: the server alone, without the rest of the command."""

from __future__ import annotations

import argparse
import sys

from unface.errors import InvalidOption
from unface.server.app import run
from unface.server.config import add_arguments, config_from_arguments


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m unface.server", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    try:
        config = config_from_arguments(arguments)
    except InvalidOption as error:
        parser.error(str(error))
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
