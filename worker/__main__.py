"""`python -m unface.worker DESCRIPTOR`: a worker on an open socket; the server starts it."""

import sys

from unface.worker.process import run

if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
