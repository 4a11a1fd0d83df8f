"""The Kubernetes files fit together, and fit a real server with the configuration in them."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from issuing import Authority, Issuer, key_set
from serving import ServerProcess, free_port, serving

import unface
from unface.server.config import PREFIX, ServerConfig, load_config

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
OVERLAYS = ("cpu", "gpu")
LABELS = {"app.kubernetes.io/name": "unface"}
TOML = (K8S / "base" / "unface.toml").read_text()

Document = dict[str, Any]


@lru_cache
def documents(folder: str) -> list[Document]:
    """Return all resources of a folder: of an overlay as applied, else as written."""
    if folder in OVERLAYS:
        kubectl = shutil.which("kubectl") or pytest.skip("there is no kubectl on this machine")
        built = subprocess.run(
            [kubectl, "kustomize", str(K8S / folder)], capture_output=True, text=True
        )
        assert built.returncode == 0, built.stderr
        return list(yaml.safe_load_all(built.stdout))
    listed = yaml.safe_load((K8S / folder / "kustomization.yaml").read_text())["resources"]
    return [d for name in listed for d in yaml.safe_load_all((K8S / folder / name).read_text())]


def only(folder: str, kind: str) -> Document:
    (found,) = (document for document in documents(folder) if document["kind"] == kind)
    return found


def pod(folder: str) -> Document:
    template: Document = only(folder, "Deployment")["spec"]["template"]["spec"]
    return template


def container(folder: str) -> Document:
    (found,) = pod(folder)["containers"]
    return dict(found)


everywhere = pytest.mark.parametrize("folder", ["base", *OVERLAYS])


@everywhere
def test_every_kind_is_there_once_and_in_the_version_that_serves(folder: str) -> None:
    kinds = {document["kind"]: document["apiVersion"] for document in documents(folder)}
    assert (
        kinds.items()
        >= {
            "Namespace": "v1",
            "Deployment": "apps/v1",
            "Service": "v1",
            "HorizontalPodAutoscaler": "autoscaling/v2",
            "PodDisruptionBudget": "policy/v1",
            "NetworkPolicy": "networking.k8s.io/v1",
        }.items()
    )


@everywhere
def test_all_selectors_choose_the_pods(folder: str) -> None:
    deployment = only(folder, "Deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == LABELS
    assert deployment["selector"]["matchLabels"] == LABELS
    assert only(folder, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABELS
    assert only(folder, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == LABELS
    (spread,) = pod(folder)["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABELS
    services = [d for d in documents(folder) if d["kind"] == "Service"]
    assert [service["spec"]["selector"] for service in services] == [LABELS, LABELS]
    assert [service["spec"].get("clusterIP") for service in services] == [None, "None"]
    scaled = only(folder, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", "unface")


@everywhere
def test_ports_are_called_by_names_that_exist(folder: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(folder)["ports"]}
    served = load_config(str(K8S / "base" / "unface.toml"))
    assert ports == {"grpc": served.port, "metrics": served.metrics_port}
    services = [d for d in documents(folder) if d["kind"] == "Service"]
    named = {port["targetPort"] for service in services for port in service["spec"]["ports"]}
    rules = only(folder, "NetworkPolicy")["spec"]["ingress"]
    named |= {port["port"] for rule in rules for port in rule["ports"]}
    named |= {probe["httpGet"]["port"] for probe in probes(folder).values()}
    assert named == ports.keys()


@everywhere
def test_a_pod_may_do_as_little_as_possible(folder: str) -> None:
    options, own = pod(folder), container(folder)
    assert options["automountServiceAccountToken"] is False
    assert options["enableServiceLinks"] is False
    assert options["securityContext"]["runAsNonRoot"] is True
    assert options["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= own["resources"]["limits"].keys()
    enforced = only(folder, "Namespace")["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"
    user = str(options["securityContext"]["runAsUser"])
    assert f"USER {user}:{user}" in (K8S.parents[1] / "Dockerfile").read_text()


@everywhere
def test_only_secrets_configuration_and_kernels_are_mounted(folder: str) -> None:
    volumes = {volume.pop("name"): volume for volume in map(dict, pod(folder)["volumes"])}
    mounts = {mount["name"]: mount for mount in container(folder)["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    assert {next(iter(volume)) for name, volume in volumes.items() if name != "kernels"} == {
        "configMap",
        "secret",
    }
    assert all(mount.get("readOnly") for name, mount in mounts.items() if name != "kernels")
    if folder == "gpu":
        dockerfile = (K8S.parents[1] / "Dockerfile.gpu").read_text()
        assert f"XDG_CACHE_HOME={mounts['kernels']['mountPath']} " in dockerfile
    paths = [mount["mountPath"] for mount in mounts.values()]
    files = [value for name, value in load_toml() if str(value).startswith("/")]
    assert len(files) == 3
    assert all(any(file.startswith(f"{path}/") for path in paths) for file in files)
    assert any(container(folder)["args"][2] == f"{path}/unface.toml" for path in paths)


@everywhere
def test_its_variables_are_options(folder: str) -> None:
    given = {entry["name"] for entry in container(folder)["env"]}
    assert given <= {PREFIX + name.upper() for name in ServerConfig.model_fields}
    assert PREFIX + "THREADS" in given
    cores = container(folder)["resources"]["limits"]["cpu"]
    assert re.fullmatch(r"[1-9]\d*", cores), "threads are whole"


@everywhere
def test_a_pod_is_given_the_time_to_finish(folder: str) -> None:
    served = load_config(str(K8S / "base" / "unface.toml"))
    assert served.drain_seconds > 0
    needed = served.drain_seconds + served.grace_seconds + 2
    assert pod(folder)["terminationGracePeriodSeconds"] >= needed


@everywhere
def test_nobody_is_called_and_only_some_may_call(folder: str) -> None:
    policy = only(folder, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])


def test_the_gpu_overlay_asks_for_a_card_of_each_pod() -> None:
    own = container("gpu")
    assert own["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": PREFIX + "DEVICE", "value": "gpu"} in own["env"]
    assert own["image"].partition(":")[0].endswith("unface-gpu")
    assert own["resources"]["limits"]["cpu"] == container("cpu")["resources"]["limits"]["cpu"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_is_the_one_that_was_checked(overlay: str) -> None:
    found = only(overlay, "ConfigMap")
    assert found["data"] == {"unface.toml": TOML}
    (named,) = (v["configMap"]["name"] for v in pod(overlay)["volumes"] if "configMap" in v)
    assert named == found["metadata"]["name"] != "unface"
    assert {d["metadata"].get("namespace", "unface") for d in documents(overlay)} == {"unface"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_components_fit_the_overlays(overlay: str, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl") or pytest.skip("there is no kubectl on this machine")
    shutil.copytree(K8S, tmp_path / "k8s")
    file = tmp_path / "k8s" / overlay / "kustomization.yaml"
    file.write_text(file.read_text().replace("# components:", "components:"))
    command = [kubectl, "kustomize", str(file.parent)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    found = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(built.stdout)}
    assert {("PodMonitor", "unface"), ("NetworkPolicy", "unface-tracing")} <= found.keys()
    template = found["Deployment", "unface"]["spec"]["template"]["spec"]
    given = {entry["name"]: entry.get("value") for entry in template["containers"][0]["env"]}
    assert PREFIX + "THREADS" in given
    collector = re.search(r":(\d+)$", given[PREFIX + "TRACE_ENDPOINT"] or "")
    assert collector
    egress = found["NetworkPolicy", "unface-tracing"]["spec"]["egress"]
    assert int(collector[1]) in [port["port"] for rule in egress for port in rule["ports"]]


def test_the_monitor_scrapes_what_the_alerts_ask_for() -> None:
    (monitor,) = documents("monitoring")
    assert monitor["spec"]["selector"]["matchLabels"] == LABELS
    assert LABELS[monitor["spec"]["jobLabel"]] == "unface"
    alerts = (K8S.parent / "prometheus" / "alerts.yml").read_text()
    assert 'job="unface"' in alerts


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("EdDSA")


@pytest.fixture(scope="module")
def pulled(
    tmp_path_factory: pytest.TempPathFactory, issuer: Issuer
) -> Iterator[tuple[ServerProcess, str, Path]]:
    """A server that runs with the ConfigMap; its probes' address and its authority."""
    folder = tmp_path_factory.mktemp("etc")
    for name in ("tls", "jwt"):
        (folder / name).mkdir()
    authority = Authority()
    pair = authority.issue()
    (folder / "tls/tls.crt").write_bytes(pair.certificate)
    (folder / "tls/tls.key").write_bytes(pair.key)
    (folder / "jwt/jwks.json").write_text(key_set(issuer))
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "unface.toml").write_text(TOML.replace("/etc/unface/", f"{folder}/"))
    port = free_port()
    flags = ("--metrics-port", str(port), "--drain-seconds", "0", "--threads", "2")
    with serving("--config", str(folder / "unface.toml"), *flags) as server:
        yield server, f"http://127.0.0.1:{port}", folder / "ca.pem"
        assert server.terminate() == 0


def test_the_probes_ask_for_what_the_server_answers(
    pulled: tuple[ServerProcess, str, Path],
) -> None:
    assert probes("base").keys() == {"startupProbe", "readinessProbe", "livenessProbe"}
    for probe in probes("base").values():
        assert fetched(pulled[1] + probe["httpGet"]["path"]) == "ok\n"


def test_the_autoscaler_and_its_rule_ask_for_a_metric_of_the_server(
    pulled: tuple[ServerProcess, str, Path],
) -> None:
    metrics = only("base", "HorizontalPodAutoscaler")["spec"]["metrics"]
    (name,) = (m["pods"]["metric"]["name"] for m in metrics if m["type"] == "Pods")
    (monitor,) = documents("monitoring")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert re.search(rf"^{name} \S+$", fetched(pulled[1] + endpoint["path"]), re.M)
    rules = yaml.safe_load((K8S / "monitoring" / "adapter-rules.yaml").read_text())
    (rule,) = rules["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0] == name


def test_a_token_over_tls_is_served_and_nobody_else(
    pulled: tuple[ServerProcess, str, Path], issuer: Issuer
) -> None:
    server, _, roots = pulled
    target = "localhost:" + server.target.rpartition(":")[2]
    image = np.zeros((60, 80, 3), np.uint8)
    with unface.Client(target, tls=roots, token=issuer.token()) as client:
        assert len(client.detect(image)) == 0
    with (
        unface.Client(target, tls=roots) as stranger,
        pytest.raises(unface.errors.Unauthenticated),
    ):
        stranger.detect(image)


def probes(folder: str) -> dict[str, Document]:
    return {key: value for key, value in container(folder).items() if key.endswith("Probe")}


def load_toml() -> Iterator[tuple[str, Any]]:
    return iter(load_config(str(K8S / "base" / "unface.toml")))


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own server
        return str(answer.read().decode())
