"""What the gate said of the GPU's kernels is of these kernels and of the weights that ship."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from unface.engines import device
from unface.engines.shelf import read_shelf
from unface.errors import EngineError
from unface.gpu.source import kernels_hash

CERTIFICATE = json.loads((files("unface.gpu") / "certificate.json").read_text())


def test_the_kernels_are_those_that_passed_the_gate() -> None:
    """After a change: python -m benchmarks.gpu_gate --out gpu/certificate.json, and look at it."""
    assert CERTIFICATE["passed"]
    assert CERTIFICATE["kernels"] == kernels_hash()


def test_the_engines_that_ship_may_serve_on_a_gpu() -> None:
    device.check_certificate(read_shelf())


@pytest.mark.parametrize("change", [{"passed": False}, {"engines": {"pnet": "0" * 64}}])
def test_what_has_not_passed_is_refused(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "certificate.json").write_text(json.dumps({**CERTIFICATE, **change}))
    monkeypatch.setattr(device, "files", lambda package: tmp_path)
    with pytest.raises(EngineError, match="--allow-uncertified"):
        device.check_certificate(read_shelf())
