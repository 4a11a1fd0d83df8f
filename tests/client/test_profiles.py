"""Profiles and engines of one's own, through a real server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from serving import serving, started

import unface
from unface.mtcnn.options import PROFILES

Image = NDArray[np.uint8]
PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"


def test_fast_is_served_by_int8_and_the_others_by_what_the_server_has(
    client: unface.Client, astronaut: Image
) -> None:
    for profile, precision in (("fast", "int8"), ("accurate", "fp32"), ("privacy", "fp32")):
        faces = client.detect(astronaut, profile=profile)
        assert len(faces) == 1
        assert faces.precision == precision


def test_the_server_tells_what_each_profile_stands_for(client: unface.Client) -> None:
    assert client.info().profiles == PROFILES


def test_privacy_covers_more(client: unface.Client, astronaut: Image) -> None:
    def covered(**options: object) -> int:
        image = client.anonymize(astronaut, method="solid", color=(1, 2, 3), **options)  # type: ignore[call-overload]
        return int((image == (1, 2, 3)).all(axis=2).sum())

    assert covered(profile="privacy") > 1.2 * covered() > 0
    assert covered(profile="privacy", margin=0.1) < 1.1 * covered()


def test_a_server_serves_engines_of_ones_own(tmp_path: Path, astronaut: Image) -> None:
    shutil.copytree(PREBUILT, tmp_path / "mine")
    with serving("--engines", str(tmp_path / "mine"), "--precision", "int8") as server:
        with unface.Client(server.target) as client:
            assert client.detect(astronaut).precision == "int8"
            assert client.info().precision == "int8"
        assert server.terminate() == 0


def test_a_server_refuses_engines_without_a_certificate(tmp_path: Path) -> None:
    shutil.copytree(PREBUILT, tmp_path / "mine")
    manifest = json.loads((tmp_path / "mine" / "manifest.json").read_text())
    manifest["certificates"] = []
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps(manifest))
    arguments = ("-m", "unface.server", "--port", "0", "--engines", str(tmp_path / "mine"))
    with started(*arguments) as server:
        assert server.wait() == 1
        assert "have no certificate" in server.log
    with started(*arguments, "--allow-uncertified") as server:
        server.wait_until_announced()
        assert "UNCERTIFIED ENGINES IN USE" in server.log
        assert server.terminate() == 0
