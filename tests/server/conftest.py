from collections.abc import Iterator
from io import BytesIO

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from serving import ServerProcess, serving
from skimage.data import astronaut as nasa_astronaut

from unface.v1.unface_pb2_grpc import UnfaceStub


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """One server for all tests that leave it as it was."""
    with serving() as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.target, options) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> UnfaceStub:
    return UnfaceStub(channel)


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """Return uint8 `[512, 512, 3]` with one face, around (178, 64)-(265, 173)."""
    return np.asarray(nasa_astronaut())


@pytest.fixture(scope="session")
def door() -> Iterator[ServerProcess]:
    """One server that speaks HTTP too, for all tests that leave it as it was."""
    with serving("--http-port", "0", "--metrics-port", "0") as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


@pytest.fixture(scope="session")
def photo(astronaut: NDArray[np.uint8]) -> bytes:
    """Return a JPEG file with one face."""
    file = BytesIO()
    Image.fromarray(astronaut).save(file, "JPEG", quality=90)
    return file.getvalue()
