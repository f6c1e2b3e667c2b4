"""The pods of a replica: where weights lie, what containers are told, what people may change."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tramontane.api.inferencedeployment import ModelSource
from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.mounts import Mounted, mounted
from tramontane.controllers.inferencedeployment.overlay import overlaid
from tramontane.controllers.inferencedeployment.pods import PodStamp
from tramontane.controllers.inferencedeployment.sources import adapters_of
from unit.inferencedeployment.builders import DIGEST, OTHER, a_deployment, a_revision

Raw = dict[str, Any]
OCI = f"registry.hall/claims@{DIGEST}"
JOB: Raw = {
    "spec": {
        "containers": [
            {
                "name": "trainer",
                "volumeMounts": [
                    {"name": "out", "mountPath": "/out", "subPath": "runs/7"},
                    {"name": "scratch", "mountPath": "/out/tmp"},
                    {"name": "odd", "mountPath": "/odd", "subPathExpr": "$(POD)"},
                ],
            }
        ],
        "volumes": [
            {"name": "out", "persistentVolumeClaim": {"claimName": "runs"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "odd", "hostPath": {"path": "/odd"}},
        ],
    }
}


def a_pod(seat: int = 0, status: Raw | None = None, **spec: Any) -> Raw:
    deployment = a_deployment(status, **spec)
    stamp = PodStamp.of(deployment, a_revision(deployment))
    assert stamp.problem == ""
    return stamp.pod("claims-0", seat, f"b{seat}")


def container(pod: Raw, name: str = "engine") -> Raw:
    both = (*pod["spec"]["initContainers"], *pod["spec"]["containers"])
    return next(one for one in both if one["name"] == name)


def env(pod: Raw, name: str = "engine") -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container(pod, name)["env"]}


def problem(**spec: Any) -> str:
    deployment = a_deployment(**spec)
    return PodStamp.of(deployment, a_revision(deployment)).problem


def a_template(name: str = "engine", **fields: Any) -> Raw:
    return {"spec": {"containers": [{"name": name, **fields}]}}


SOURCES: dict[str, tuple[Raw, Raw, str]] = {
    "pvc": (
        {"pvc": {"claim": "models", "path": "claims/v7"}},
        {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        "claims/v7",
    ),
    "pvc, whole": (
        {"pvc": {"claim": "models"}},
        {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        "",
    ),
    "hostPath": ({"hostPath": "/models/a/v7"}, {"hostPath": {"path": "/models/a"}}, "v7"),
    "hostPath below the root": ({"hostPath": "/models"}, {"hostPath": {"path": "/models"}}, ""),
    "hostPath, untidy": ({"hostPath": "/m//a/./v7/"}, {"hostPath": {"path": "/m/a"}}, "v7"),
    "oci": ({"oci": OCI}, {"image": {"reference": OCI, "pullPolicy": "IfNotPresent"}}, ""),
    "trainingJob": (
        {"trainingJob": {"name": "t", "path": "/out/final"}},
        {"persistentVolumeClaim": {"claimName": "runs"}},
        "final",
    ),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_is_a_volume_and_a_path_in_it(case: str) -> None:
    source, volume, path = SOURCES[case]
    place = mounted(ModelSource.model_validate(source), JOB)
    assert isinstance(place, Mounted)
    assert {key: value for key, value in place.volume.items() if key != "name"} == volume
    assert place.mount["readOnly"] is True
    assert place.mount["name"] == place.volume["name"]
    assert place.path == "/".join(filter(None, (place.mount["mountPath"], path)))


def test_a_job_s_subpath_stays() -> None:
    source = ModelSource.model_validate({"trainingJob": {"name": "t", "path": "/out/final"}})
    place = mounted(source, JOB)
    assert isinstance(place, Mounted)
    assert place.mount["subPath"] == "runs/7"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"pvc": {"claim": "m", "path": "../x"}}, "must not leave its volume"),
        ({"pvc": {"claim": "m", "path": "a/../../x"}}, "must not leave its volume"),
        ({"hostPath": "/"}, "must be a directory below the root"),
        ({"hostPath": "/models/../etc"}, "must be a directory below the root"),
        ({"trainingJob": {"name": "t", "path": "/out/../../etc"}}, "must not leave its volume"),
        ({"trainingJob": {"name": "t", "path": "/elsewhere"}}, "must lie in a volume of the job"),
        ({"trainingJob": {"name": "t", "path": "/out/tmp/x"}}, "outlives the job's pods"),
        ({"trainingJob": {"name": "t", "path": "/odd/x"}}, "subPathExpr"),
    ],
    ids=[
        "leaves the claim",
        "by and by",
        "the root",
        "climbs",
        "leaves the job's",
        "no volume",
        "ends with the pod",
        "differs per pod",
    ],
)
def test_a_source_that_cannot_be_mounted_says_why(source: Raw, text: str) -> None:
    place = mounted(ModelSource.model_validate(source), JOB)
    assert isinstance(place, str)
    assert text in place


def test_a_source_without_its_job_says_so() -> None:
    source = ModelSource.model_validate({"trainingJob": {"name": "t", "path": "/out/final"}})
    assert "no such job" in str(mounted(source, None))


def test_a_pod_is_a_rank_of_the_engine_under_the_agent() -> None:
    pod = a_pod()
    spec, engine = pod["spec"], container(pod)
    assert pod["metadata"]["name"] == "claims-0-0"
    assert (spec["nodeName"], spec["restartPolicy"]) == ("b0", "Never")
    assert spec["terminationGracePeriodSeconds"] == 600 + 3 + 30
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert engine["command"][:4] == ["python3", "/tramontane/agent/serving.py", "vllm", "serve"]
    assert engine["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    assert engine["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8901}
    assert engine["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 8901}
    assert container(pod, "weights")["command"] == ["python3", "/tramontane/agent/weights.py"]
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(set(names)) == len(names)
    for one in (engine, container(pod, "weights")):
        assert {mount["name"] for mount in one["volumeMounts"]} <= set(names)


def test_only_seat_0_has_a_turn_and_both_know_their_seat() -> None:
    head, other = a_pod(0), a_pod(1)
    assert head["metadata"]["labels"]["tramontane.dev/rotation"] == "out"
    assert "tramontane.dev/rotation" not in other["metadata"]["labels"]
    assert (env(head)["TRAMONTANE_SEAT"], env(other)["TRAMONTANE_SEAT"]) == ("0", "1")
    assert env(other)["TRAMONTANE_NODES"] == "2"
    assert "--headless" in container(other)["command"]
    assert env(head)["TRAMONTANE_STEPS_METRIC"] == "vllm:iteration_tokens_total_count"
    assert env(head)["TRAMONTANE_READY_VARIABLE"] == "VLLM_ENGINE_READY_TIMEOUT_S"


def test_a_variable_can_refer_to_those_before_it() -> None:
    names = list(env(a_pod(template=a_template(env=[{"name": "X", "value": "$(HF_HUB_OFFLINE)"}]))))
    assert names.index("TRAMONTANE_POD_IP") < names.index("VLLM_HOST_IP")
    assert names[-1] == "X"


def test_weights_are_verified_by_the_digest_that_was_given_or_recorded() -> None:
    recorded = {"revisions": [{"hash": a_revision().hash, "digest": DIGEST}]}
    for pod, digest in (
        (a_pod(), None),
        (a_pod(status=recorded), DIGEST),
        (a_pod(model={"digest": OTHER}), OTHER),
    ):
        asked = json.loads(env(pod, "weights")["TRAMONTANE_WEIGHTS"])
        assert asked["model"]["digest"] == digest
        assert asked["engine"] == "vllm"


def test_a_store_is_a_cache_into_which_only_the_init_container_writes() -> None:
    store = {"endpoint": "https://s3.hall", "bucket": "models", "prefix": "v7", "secret": "key"}
    pod = a_pod(model={"source": {"s3": store}})
    asked = json.loads(env(pod, "weights")["TRAMONTANE_WEIGHTS"])["model"]
    assert asked["s3"] == {"endpoint": "https://s3.hall", "bucket": "models", "prefix": "v7"}
    assert asked["path"].startswith("/tramontane/cache/")
    [writes] = [
        m for m in container(pod, "weights")["volumeMounts"] if m["name"] == "tramontane-cache"
    ]
    [reads] = [m for m in container(pod)["volumeMounts"] if m["name"] == "tramontane-cache"]
    assert "readOnly" not in writes
    assert reads["readOnly"] is True
    [cache] = [v for v in pod["spec"]["volumes"] if v["name"] == "tramontane-cache"]
    namespace = pod["metadata"]["namespace"]
    assert cache["hostPath"]["path"] == f"/var/lib/tramontane/models/{namespace}", (
        "no tenant's else"
    )
    assert "AWS_SECRET_ACCESS_KEY" in env(pod, "weights")
    assert "AWS_SECRET_ACCESS_KEY" not in env(pod)


def test_adapters_beside_the_model_need_no_volume_of_their_own() -> None:
    adapters = [
        {"name": "de", "source": {"hostPath": "/models/de"}},
        {"name": "fr", "source": {"hostPath": "/models/fr"}, "digest": DIGEST},
    ]
    pod = a_pod(model={"adapters": adapters})
    volumes = [v for v in pod["spec"]["volumes"] if v["name"].startswith("tramontane-model-")]
    assert len(volumes) == 1
    listed = json.loads(pod["metadata"]["annotations"]["tramontane.dev/adapters"])
    assert [one["name"] for one in listed] == ["de", "fr"]
    asked = json.loads(env(pod, "weights")["TRAMONTANE_WEIGHTS"])
    assert [one["path"] for one in asked["adapters"]] == [one["path"] for one in listed]
    assert asked["adapters"][1]["digest"] == DIGEST
    assert "--enable-lora" in container(pod)["command"]


def test_an_older_revision_has_only_the_adapters_that_it_can_see() -> None:
    old = a_deployment(model={"adapters": [{"name": "de", "source": {"hostPath": "/models/de"}}]})
    new = a_deployment(
        model={
            "adapters": [
                {"name": "de", "source": {"hostPath": "/models/de"}},
                {"name": "it", "source": {"hostPath": "/models/it"}},
                {"name": "es", "source": {"pvc": {"claim": "es"}}},
            ]
        }
    )
    assert list(adapters_of(new, a_revision(old))) == ["de", "it"]
    assert list(adapters_of(new, a_revision(new))) == ["de", "it", "es"]


def test_people_s_words_are_laid_over_ours() -> None:
    template = {
        "metadata": {"labels": {"team": "claims"}, "annotations": {"a": "b"}},
        "spec": {
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "initContainers": [{"name": "weights", "image": "registry.hall/python:3.12"}],
            "containers": [
                {
                    "name": "engine",
                    "env": [{"name": "HF_HUB_OFFLINE", "value": "0"}],
                    "resources": {"limits": {"memory": "512Gi"}},
                },
                {"name": "sidecar", "image": "registry.hall/tail:1"},
            ],
        },
    }
    pod = a_pod(template=template)
    assert pod["metadata"]["labels"]["team"] == "claims"
    assert pod["metadata"]["annotations"]["a"] == "b"
    assert pod["spec"]["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert container(pod, "weights")["image"] == "registry.hall/python:3.12"
    assert container(pod)["image"] == "registry.hall/vllm:0.32"
    assert env(pod)["HF_HUB_OFFLINE"] == "0"
    assert container(pod)["resources"]["limits"] == {"nvidia.com/gpu": "8", "memory": "512Gi"}
    assert container(pod, "sidecar")["image"] == "registry.hall/tail:1"


def test_words_arrive_as_they_are() -> None:
    """The kubelet replaces $(NAME) in commands and variables, and takes $$ for $."""
    name = 'cl\'ai\\ms $(HOSTNAME) $$ `id` "x" é'
    store = {"endpoint": "http://10.0.0.9", "bucket": "m", "prefix": "$(HOSTNAME)/$$/é"}
    pod = a_pod(model={"servedName": name, "source": {"s3": store}})
    words = [expanded(word) for word in container(pod)["command"]]
    assert words[words.index("--served-model-name") + 1] == name
    asked = json.loads(expanded(env(pod, "weights")["TRAMONTANE_WEIGHTS"]))
    assert asked["model"]["s3"]["prefix"] == "$(HOSTNAME)/$$/é"


def expanded(text: str) -> str:
    """Return what the kubelet makes of a text while it knows of HOSTNAME alone."""
    known = {"HOSTNAME": "claims-0-0"}

    def one(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else known.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", one, text)


def test_nothing_secret_is_an_argument() -> None:
    store = {"endpoint": "https://s3.hall", "bucket": "models", "secret": "key"}
    pod = a_pod(model={"source": {"s3": store}})
    for one in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        assert "AWS" not in json.dumps(one["command"])
    for variable in container(pod, "weights")["env"]:
        if variable["name"].startswith("AWS_"):
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "key"


def test_an_older_revision_keeps_its_own_key() -> None:
    store = {"endpoint": "https://s3.hall", "bucket": "models"}
    old = a_deployment(model={"source": {"s3": {**store, "secret": "old"}}})
    new = a_deployment(model={"source": {"s3": {**store, "secret": "new"}}})
    pod = PodStamp.of(new, a_revision(old)).pod("claims-0", 0, "b0")
    keys = {
        one["valueFrom"]["secretKeyRef"]["name"]
        for one in container(pod, "weights")["env"]
        if one["name"].startswith("AWS_")
    }
    assert keys == {"old"}


def test_more_than_the_kernel_takes_is_said_before_there_is_a_pod() -> None:
    store = {"endpoint": "https://s3.hall", "bucket": "m"}
    adapters: list[Raw] = [
        {"name": f"a{i}", "source": {"s3": {**store, "prefix": "\U0001f9ca" * 1024}}}
        for i in range(32)
    ]
    assert "must be told in" in problem(model={"adapters": adapters})
    for one in adapters:
        one["source"]["s3"]["prefix"] = "é" * 1024
    assert problem(model={"adapters": adapters}) == ""


def test_annotations_fit_whatever_adapters_are_called() -> None:
    source = {"pvc": {"claim": "m", "path": "\U0001f9ca" * 1024}}
    pod = a_pod(model={"adapters": [{"name": f"a{i:062}", "source": source} for i in range(30)]})
    sizes = (len(f"{k}{v}".encode()) for k, v in pod["metadata"]["annotations"].items())
    assert sum(sizes) < 256 * 1024


def test_a_line_break_in_a_name_is_refused() -> None:
    for name in ("a\n--trust-remote-code", "a\0b", "a\u2028b", "--trust-remote-code"):
        assert problem(model={"servedName": name}) != ""
    assert "one line" in problem(model={"source": {"pvc": {"claim": "m", "path": "v\n7"}}})


PROBLEMS: dict[str, tuple[Raw, str]] = {
    "a rank": (a_template(env=[{"name": "RANK", "value": "0"}]), "RANK must not be set"),
    "an address": (
        a_template(env=[{"name": "VLLM_HOST_IP", "value": "::1"}]),
        "VLLM_HOST_IP must not be set",
    ),
    "a word of ours": (
        a_template(env=[{"name": "TRAMONTANE_SEAT", "value": "0"}]),
        "TRAMONTANE_SEAT must not be set",
    ),
    "a command": (a_template(command=["vllm"]), "must have no command with engine vllm"),
    "GPUs": (a_template(resources={"limits": {"nvidia.com/gpu": 4}}), "must not ask for"),
    "a place": ({"spec": {"nodeName": "b0"}}, "nodeName must not be set"),
    "another life": ({"spec": {"restartPolicy": "Always"}}, "restartPolicy must be left out"),
    "too short an end": (
        {"spec": {"terminationGracePeriodSeconds": 30}},
        "terminationGracePeriodSeconds must be at least 633",
    ),
    "a way around the policy": ({"spec": {"hostNetwork": True}}, "hostNetwork must not be set"),
    "an annotation of ours": (
        {"metadata": {"annotations": {"tramontane.dev/out-since": "x"}}},
        "must not have tramontane.dev/out-since",
    ),
    "another verifier": (
        {"spec": {"initContainers": [{"name": "weights", "command": ["true"]}]}},
        "container weights must have no command",
    ),
    "other files of ours": (
        {
            "spec": {
                "initContainers": [
                    {"name": "weights", "volumeMounts": [{"name": "x", "mountPath": "/tramontane"}]}
                ]
            }
        },
        "/tramontane must be left to the rank agent",
    ),
    "no form, volumes": ({"spec": {"volumes": ["x"]}}, "template must be that of a pod"),
    "no form, labels": ({"metadata": {"labels": ["x"]}}, "template must be that of a pod"),
    "no form, ports": (a_template(ports=["x"]), "template must be that of a pod"),
    "a label of ours": (
        {"metadata": {"labels": {"tramontane.dev/rotation": "in"}}},
        "must not have tramontane.dev/rotation",
    ),
    "a volume of ours": (
        {"spec": {"volumes": [{"name": "tramontane-state", "emptyDir": {}}]}},
        "do not begin with tramontane-",
    ),
    "a folder of ours": (
        a_template(volumeMounts=[{"name": "x", "mountPath": "/tramontane/x"}]),
        "/tramontane must be left to the rank agent",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_must_not_be_laid_over_is_refused(case: str) -> None:
    template, text = PROBLEMS[case]
    spec = template.setdefault("spec", {})
    if case == "a folder of ours":
        spec["volumes"] = [{"name": "x", "emptyDir": {}}]
    assert text in problem(template=template)


def test_with_egress_open_the_blade_s_network_may_be_used() -> None:
    assert problem(template={"spec": {"hostNetwork": True}}, egress="Open") == ""


@pytest.mark.parametrize(
    "endpoint",
    ["https://", "https://h:99999", "https://h:x", "http://[::1", "https://me:pass@h"],
    ids=str,
)
def test_an_endpoint_that_is_none_is_said_and_its_password_is_not(endpoint: str) -> None:
    text = problem(model={"source": {"s3": {"endpoint": endpoint, "bucket": "m"}}})
    assert "s3.endpoint must be a URL with a host" in text
    assert "pass@" not in text


def test_a_custom_engine_without_a_name_is_refused() -> None:
    engine = {"name": "custom", "image": "registry.hall/own:1"}
    template = {"spec": {"containers": [{"command": ["/serve"]}]}}
    assert "name must be a DNS label" in problem(engine=engine, template=template)


def test_stores_with_different_secrets_are_refused() -> None:
    store = {"endpoint": "https://s3.hall", "bucket": "m"}
    model = {
        "source": {"s3": {**store, "secret": "one"}},
        "adapters": [{"name": "de", "source": {"s3": {**store, "prefix": "de", "secret": "two"}}}],
    }
    assert "must use one secret" in problem(model=model)


def test_a_custom_engine_runs_the_template_s_command_under_the_agent() -> None:
    engine = {"name": "custom", "image": "registry.hall/own:1"}
    template = a_template("own", command=["/serve"], args=["--port", "8000"])
    deployment = a_deployment(engine=engine, template=template)
    revision = replace(a_revision(deployment), layout=Layout(tensor=0))
    pod = PodStamp.of(deployment, revision).pod("claims-0", 0, "b0")
    own = container(pod, "own")
    assert own["command"] == ["python3", "/tramontane/agent/serving.py", "/serve", "--port", "8000"]
    assert "args" not in own
    assert "resources" not in own
    assert [one["name"] for one in pod["spec"]["containers"]] == ["own"]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"engine": {"image": "x", "version": "0.1"}}, "spec.engine.version must be one of"),
        ({"engine": {"name": "custom", "image": "x"}, "template": a_template()}, "command"),
        ({"model": {"source": {"pvc": {"claim": "m", "path": "../"}}}}, "model.source.pvc.path"),
    ],
    ids=["unknown version", "custom without a command", "bad source"],
)
def test_what_cannot_be_made_says_why(spec: Raw, text: str) -> None:
    assert text in problem(**spec)


@pytest.mark.parametrize(
    ("base", "over", "made"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"tolerations": [1]}, {"tolerations": [2]}, {"tolerations": [2]}),
        (
            {"env": [{"name": "A", "valueFrom": {}}, {"name": "B", "value": "1"}]},
            {"env": [{"name": "A", "value": "2"}, {"name": "C"}]},
            {"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "1"}, {"name": "C"}]},
        ),
        (
            {"containers": [{"name": "c", "image": "x"}]},
            {"containers": [{"name": "c", "tty": True}]},
            {"containers": [{"name": "c", "image": "x", "tty": True}]},
        ),
    ],
    ids=["object", "plain list", "env by name, as a whole", "container by name, field by field"],
)
def test_an_overlay_merges_as_the_table_says(base: Raw, over: Raw, made: Raw) -> None:
    assert overlaid(base, over) == made
