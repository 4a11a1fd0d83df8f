"""The quality loop of a real server: reports over the wire, and trials of what it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from corpus import saved
from scenes import astronaut
from serving import serving

from unface.quality.comparison import compare_trials
from unface.quality.places import Place
from unface.quality.store import Store, crop_context
from unface.quality.trials import arm_of
from unface.sealing import unseal
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub

KEY = bytes(range(32))
SECONDS = 30


def photo() -> pb.Image:
    return pb.Image(encoded=saved(astronaut(), "JPEG"))


@contextmanager
def client(*flags: object) -> Iterator[UnfaceStub]:
    """A client of a server that runs with the flags, until it has ended."""
    with serving("--device", "cpu", *map(str, flags)) as server:
        with grpc.insecure_channel(server.target) as channel:
            yield UnfaceStub(channel)
        assert server.terminate() == 0, server.log


def test_a_report_is_refused_where_the_operator_keeps_none() -> None:
    with client() as unface, pytest.raises(grpc.RpcError) as caught:
        unface.Report(pb.ReportRequest(missed=[pb.Box(x2=5, y2=5)]), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "quality_file" in caught.value.details()


def test_an_answer_is_reported_and_its_crop_is_kept_encrypted(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    key_file.chmod(0o600)
    db = tmp_path / "quality.db"
    flags = ("--quality-file", db, "--quality-crops", "--quality-key-file", key_file)
    with client(*flags) as unface:
        answer = unface.Detect(pb.DetectRequest(image=photo()), timeout=SECONDS)
        request = pb.ReportRequest(
            request_id=answer.request_id,
            profile=answer.profile,
            image=photo(),
            false_faces=[answer.faces[0].box],
        )
        reported = unface.Report(request, timeout=SECONDS)
        request.false_faces[0].x2 = 9999
        with pytest.raises(grpc.RpcError) as caught:
            unface.Report(request, timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reported.crops_kept
    box = answer.faces[0].box
    with Store(db) as store:
        (report,) = store.reports()
        (crop,) = store.crops(report.id)
    assert report.id == reported.report_id
    assert (report.request_id, report.profile) == (answer.request_id, "accurate")
    assert report.places == (Place("false", box.x1, box.y1, box.x2, box.y2),)
    assert unseal(crop.sealed, KEY, crop_context(report.id, 0)).startswith(b"\x89PNG")


def test_a_trial_answers_its_share_by_request_id_and_is_counted(tmp_path: Path) -> None:
    db = tmp_path / "quality.db"
    ids = [f"request-{number}" for number in range(12)]
    with client("--quality-file", db, "--trial-profile", "fast", "--trial-share", 0.5) as unface:
        for id in ids:
            answer = unface.Detect(
                pb.DetectRequest(image=photo()),
                metadata=[("unface-request-id", id)],
                timeout=SECONDS,
            )
            assert answer.profile == ("fast" if arm_of(id, 0.5) == "b" else "accurate")
        named = pb.DetectRequest(image=photo(), detect_options=pb.DetectOptions(profile="accurate"))
        assert unface.Detect(named, timeout=SECONDS).profile == "accurate"
    with Store(db) as store:
        (comparison,) = compare_trials(store)
    wanted = sum(arm_of(id, 0.5) == "b" for id in ids)
    assert comparison.answers == {"a": len(ids) - wanted, "b": wanted}
    assert comparison.profiles == {"a": ["accurate"], "b": ["fast"]}


def test_a_shadow_answers_nobody_and_its_agreement_is_counted(tmp_path: Path) -> None:
    db = tmp_path / "quality.db"
    flags = ("--quality-file", db, "--trial-profile", "fast", "--trial-share", 1)
    with client(*flags, "--trial-shadow") as unface:
        for _ in range(6):
            answer = unface.Detect(pb.DetectRequest(image=photo()), timeout=SECONDS)
            assert answer.profile == "accurate"
    with Store(db) as store:
        ((_, outcomes, pairs),) = store.trials()
    assert sum(outcome.answers for outcome in outcomes) == 6
    compared = sum(p.pictures for p in pairs)
    assert 1 <= compared <= 6  # only what there was time for
    assert sum(p.matched for p in pairs) == compared
