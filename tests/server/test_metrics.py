"""What the server counts, read as Prometheus reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import prometheus_client
import pytest
from counted import full_metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from records import answered, refused

from unface.server.cards import Card
from unface.server.metrics import METHODS, PICTURE_METHODS, REASONS, SECONDS, Metrics
from unface.server.record import STEPS, Load, Record

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto" / "unface" / "v1" / "unface.proto"
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
ON_CPU = ("native", "fp32", "", "no driver")


def metrics(load: Load = Load(), serving: tuple[str, str, str, str] = ON_CPU) -> Metrics:  # noqa: B008
    return Metrics(lambda: load, lambda: serving, "1.2.3")


def samples(counted: Metrics) -> dict[str, float]:
    """Return what a scrape gives: `name{label="value",...}`, labels sorted -> value."""
    found = {}
    for family in text_string_to_metric_families(counted.text().decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{sample.labels[name]}"' for name in sorted(sample.labels))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def requests_of(counted: Metrics) -> dict[str, float]:
    return {
        name: value
        for name, value in samples(counted).items()
        if name.startswith("unface_requests_total") and value
    }


def test_requests_are_counted_by_method_code_and_reason() -> None:
    counted = metrics()
    late = answered(code="DEADLINE_EXCEEDED", reason="Expired")
    for record in (answered(), answered(), late, refused(method="Detect")):
        counted.observe(record)
    assert requests_of(counted) == {
        'unface_requests_total{code="OK",method="Detect",reason=""}': 2,
        'unface_requests_total{code="DEADLINE_EXCEEDED",method="Detect",reason="Expired"}': 1,
        'unface_requests_total{code="RESOURCE_EXHAUSTED",method="Detect",reason="Overloaded"}': 1,
    }


def test_steps_are_timed_in_seconds() -> None:
    counted = metrics()
    counted.observe(answered(steps_ms={"decode": 8.0, "mask": 60_000.0}))
    found = samples(counted)
    assert found['unface_step_seconds_sum{step="decode"}'] == pytest.approx(0.008)
    assert found['unface_step_seconds_bucket{le="0.01",step="decode"}'] == 1
    assert found['unface_step_seconds_bucket{le="0.007",step="decode"}'] == 0
    assert found['unface_step_seconds_bucket{le="60.0",step="mask"}'] == 1
    assert found['unface_step_seconds_count{step="detect"}'] == 0
    assert {step for step in STEPS if f'unface_step_seconds_count{{step="{step}"}}' in found} == {
        *STEPS
    }


def test_refusals_do_not_make_the_server_look_fast() -> None:
    counted = metrics()
    counted.observe(answered())
    counted.observe(refused(method="Detect"))
    counted.observe(refused(method="Detect", code="UNAUTHENTICATED", reason="Unauthenticated"))
    assert samples(counted)['unface_request_seconds_count{method="Detect"}'] == 1


def test_requests_that_came_too_late_are_timed_as_well() -> None:
    counted = metrics()
    counted.observe(answered(code="DEADLINE_EXCEEDED", reason="Expired", seconds=30.0))
    assert samples(counted)['unface_request_seconds_sum{method="Detect"}'] == 30


def test_faces_and_scores_are_those_of_pictures_that_were_answered() -> None:
    counted = metrics()
    counted.observe(answered(scores=(0.999, 0.97, 0.5), pixels=100))
    counted.observe(answered(scores=(), pixels=50, method="AnonymizeStream"))
    counted.observe(answered(method="GetServerInfo", scores=(), pixels=0))
    counted.observe(answered(code="INTERNAL", reason="Internal", scores=(), pixels=25))
    found = samples(counted)
    assert found["unface_picture_faces_count{}"] == 2
    assert found["unface_picture_faces_sum{}"] == 3
    assert found['unface_picture_faces_bucket{le="0.0"}'] == 1
    assert found["unface_face_score_count{}"] == 3
    assert found['unface_face_score_bucket{le="0.5"}'] == 1
    assert found['unface_face_score_bucket{le="0.97"}'] == 2
    assert found["unface_pixels_total{}"] == 150


def test_a_trial_is_told_by_arm() -> None:
    counted = metrics()
    counted.observe(answered(arm="a"))
    counted.observe(answered(arm="b", scores=(0.9,)))
    counted.observe(answered(arm="c"))
    counted.shadowed(agreed=5, only_a=1, only_b=2)
    counted.shadowed(agreed=1, only_a=0, only_b=0)
    found = samples(counted)
    assert found['unface_trial_faces_total{arm="a"}'] == 2
    assert found['unface_trial_faces_total{arm="b"}'] == 1
    assert found['unface_trial_request_seconds_count{arm="a"}'] == 1
    assert not any('arm="c"' in name for name in found)
    assert found['unface_trial_shadow_faces_total{found="both"}'] == 6
    assert found['unface_trial_shadow_faces_total{found="only_a"}'] == 1
    assert found['unface_trial_shadow_faces_total{found="only_b"}'] == 2


def test_batches_lost_workers_and_reloads_are_counted() -> None:
    counted = metrics()
    counted.batched(1)
    counted.batched(8)
    counted.worker_lost()
    counted.reloaded(passed=True)
    counted.reloaded(passed=False)
    counted.reloaded(passed=False)
    found = samples(counted)
    assert found["unface_batch_pictures_sum{}"] == 9
    assert found['unface_batch_pictures_bucket{le="1.0"}'] == 1
    assert found["unface_worker_losses_total{}"] == 1
    assert found['unface_reloads_total{result="passed"}'] == 1
    assert found['unface_reloads_total{result="failed"}'] == 2


def test_the_load_is_that_of_the_moment_of_the_scrape() -> None:
    loads = [Load(), Load(3, 4_000_000, 2, 1, 5, 0.75)]
    counted = Metrics(lambda: loads.pop(0), lambda: ON_CPU, "1.2.3")
    assert samples(counted)["unface_queue_requests{}"] == 0
    found = samples(counted)
    assert found["unface_queue_requests{}"] == 3
    assert found["unface_queue_pixels{}"] == 4_000_000
    assert found["unface_in_flight_requests{}"] == 2
    assert found["unface_streams{}"] == 1
    assert found["unface_workers{}"] == 5
    assert found["unface_queue_expected_wait_seconds{}"] == 0.75


def test_what_serves_is_told_also_after_it_changed() -> None:
    served = [("cuda", "fp16", "NVIDIA H200", ""), ("native", "int8", "", "the GPU failed")]
    counted = Metrics(Load, lambda: served[0], "1.2.3")
    found = samples(counted)
    on_gpu = 'backend="cuda",device="NVIDIA H200",precision="fp16",version="1.2.3"'
    assert found[f"unface_server_info{{{on_gpu}}}"] == 1
    assert found["unface_gpu_serving{}"] == 1
    del served[0]
    found = samples(counted)
    on_cpu = 'backend="native",device="",precision="int8",version="1.2.3"'
    assert [name for name in found if "server_info" in name] == [f"unface_server_info{{{on_cpu}}}"]
    assert found["unface_gpu_serving{}"] == 0


def test_gpus_are_told_and_what_one_does_not_say_is_left_out() -> None:
    cards = [Card(0, "H200", 0.25, 1 << 30, 140 << 30), Card(1, "Slice", None, 5, 10)]
    found = samples(Metrics(Load, lambda: ON_CPU, "1.2.3", cards=lambda: cards))
    assert found['unface_gpu_utilization_ratio{gpu="0",name="H200"}'] == 0.25
    assert found['unface_gpu_memory_used_bytes{gpu="0",name="H200"}'] == 1 << 30
    assert found['unface_gpu_memory_bytes{gpu="1",name="Slice"}'] == 10
    assert 'unface_gpu_utilization_ratio{gpu="1",name="Slice"}' not in found
    assert not any("gpu_memory" in name for name in samples(metrics()))


def test_the_end_of_the_certificate_is_told_where_there_is_one() -> None:
    name = "unface_tls_certificate_expiry_timestamp_seconds{}"
    ends = Metrics(Load, lambda: ON_CPU, "1.2.3", certificate_expires=lambda: 1.8e9)
    assert samples(ends)[name] == 1.8e9
    assert name not in samples(metrics())


def test_an_idle_server_already_has_the_series_that_rates_are_made_of() -> None:
    found = samples(metrics())
    for method in PICTURE_METHODS:
        assert found[f'unface_requests_total{{code="OK",method="{method}",reason=""}}'] == 0
    assert found["unface_worker_losses_total{}"] == 0
    assert found['unface_reloads_total{result="failed"}'] == 0


hostile = st.one_of(st.text(max_size=20), st.sampled_from(["Detect", "OK", "Overloaded", "a"]))


@given(st.lists(st.tuples(hostile, hostile, hostile, hostile, hostile), max_size=20))
@settings(max_examples=30, deadline=None)
def test_no_caller_can_make_series_of_its_own(words: list[tuple[str, str, str, str, str]]) -> None:
    counted = metrics()
    for method, code, reason, step, arm in words:
        counted.observe(Record("id", method, "c", code, reason, steps_ms={step: 1.0}, arm=arm))
    for name in requests_of(counted):
        method, code, reason = re.findall(r'(?:method|code|reason)="([^"]*)"', name)
        assert {method, code, reason} <= {"Detect", "OK", "Overloaded", "other", ""}, name
    assert sum(requests_of(counted).values()) == len(words)


def test_nothing_tells_who_called() -> None:
    counted = metrics()
    counted.observe(answered(client="alice@example.com", request_id="of-alice", arm="b"))
    assert b"alice" not in counted.text()


def test_every_reason_of_the_contract_is_counted_by_its_name() -> None:
    contract = set(re.findall(r"^//     (\w+) +[A-Z_]{6,} ", PROTO.read_text(), re.M))
    assert len(contract) >= 11
    assert contract <= REASONS
    assert {"Detect", "Anonymize", "Report", "GetServerInfo", "Reload"} <= METHODS


def test_the_buckets_reach_from_half_a_millisecond_to_a_minute_in_steps_of_half() -> None:
    assert SECONDS[0] == 0.0005
    assert SECONDS[-1] == 60
    assert all(1 < after / before < 1.6 for before, after in pairwise(SECONDS))


def test_two_servers_in_one_process_count_apart_and_leave_the_global_registry_alone() -> None:
    before = prometheus_client.generate_latest()
    first, second = metrics(), metrics()
    first.worker_lost()
    assert samples(second)["unface_worker_losses_total{}"] == 0
    assert b"unface" not in before
    assert b"unface" not in prometheus_client.generate_latest()


def test_a_scrape_beside_the_counting_loses_nothing() -> None:
    counted = metrics()

    def count() -> None:
        for _ in range(500):
            counted.observe(answered())

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counted.text()
    assert samples(counted)['unface_request_seconds_count{method="Detect"}'] == 1000


def test_names_follow_the_conventions_of_prometheus() -> None:
    promtool = shutil.which("promtool") or pytest.skip("there is no promtool on this machine")
    counted = full_metrics()
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=counted.text(), capture_output=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stderr == b""
    assert b"_created" not in counted.text()


def test_the_table_in_the_documentation_is_that_of_the_metrics() -> None:
    told = set(re.findall(r"^\| `(unface_\w+)` \| (\w+) \| (.*) \| (.+) \|$", MONITORING, re.M))
    assert told == {
        (
            family.name + "_total" * (family.type == "counter"),
            family.type,
            ", ".join(
                f"`{label}`"
                for label in sorted({n for s in family.samples for n in s.labels} - {"le"})
            ),
            family.documentation,
        )
        for family in text_string_to_metric_families(full_metrics().text().decode())
    }
