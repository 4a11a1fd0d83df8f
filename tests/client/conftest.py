from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from serving import ServerProcess, serving
from skimage.data import astronaut as nasa_astronaut

import unface


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with serving() as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def client(server: ServerProcess) -> Iterator[unface.Client]:
    with unface.Client(server.target) as client:
        yield client


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """Return uint8 `[512, 512, 3]` with one face, around (178, 64)-(265, 173)."""
    return np.asarray(nasa_astronaut())


@pytest.fixture(scope="session")
def face(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 `[200, 200, 3]`: the face alone."""
    return np.ascontiguousarray(astronaut[20:220, 120:320])
