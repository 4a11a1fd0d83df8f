"""`python -m unface.server --port 50051`: the server alone, without the rest of the command."""

from __future__ import annotations

import argparse
import sys

from unface.errors import InvalidOption
from unface.server.config import add_arguments, config_from_arguments


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m unface.server", description=__doc__)
    add_arguments(parser)
    try:
        return start(parser.parse_args())
    except InvalidOption as error:
        parser.error(str(error))


def start(arguments: argparse.Namespace) -> int:
    """Serve as the arguments of `add_arguments` say, or print the configuration.

    Returns the exit code; raises `InvalidOption` for a configuration that makes no sense.
    """
    config = config_from_arguments(arguments)
    if arguments.print_config:
        print(config.to_toml(), end="")
        return 0
    from unface.server.app import run

    return run(config)


if __name__ == "__main__":
    sys.exit(main())
