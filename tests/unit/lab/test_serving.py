"""What the demo of serving and the tests of real nodes stand on, as far as it needs no nodes."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web

from tramontane.api.inferencedeployment import InferenceDeployment, ModelSource
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.inferencedeployment.mounts import Mounted, mounted
from tramontane.lab import demo_serve
from tramontane.lab.paths import LabError
from tramontane.lab.serving import model
from tramontane.lab.serving.deployment import deployment, install_engine, spec_of
from tramontane.lab.serving.job import training_job
from tramontane.lab.serving.model import write_model
from tramontane.lab.serving.promises import (
    ROLLBACK,
    Candidate,
    Measured,
    broken,
    digest_of,
    rows,
    serving,
)
from tramontane.lab.serving.streams import Streams, addresses, wait_s

SLOW = Candidate("ft1", "aaaa", "sha256:1", "Rejected")
GOOD = Candidate("ft2", "bbbb", "sha256:2", "Accepted")


def revision(candidate: Candidate, **more: Any) -> dict[str, Any]:
    return {
        "hash": candidate.revision,
        "trainingJob": candidate.job,
        "digest": candidate.digest,
        "verdict": candidate.verdict,
        **more,
    }


def measured(**more: Any) -> Measured:
    return Measured(**{"seconds": {ROLLBACK: 60.0}, "candidates": [SLOW, GOOD], **more})


@pytest.mark.parametrize(
    ("found", "revisions", "wrong"),
    [
        pytest.param(measured(), [revision(SLOW), revision(GOOD)], [], id="all-held"),
        pytest.param(
            measured(cut_by_death={"ClientError": 7}),
            [revision(SLOW), revision(GOOD)],
            [],
            id="cut-by-the-blade-that-died",
        ),
        pytest.param(
            measured(cut_while_planned={"cut short": 1}),
            [revision(SLOW), revision(GOOD)],
            ["0 must be cut (got 1 cut short)"],
            id="cut-by-what-was-planned",
        ),
        pytest.param(
            measured(lost={"status 503": 2}),
            [revision(SLOW), revision(GOOD)],
            ["0 must be lost (got 2 status 503)"],
            id="lost",
        ),
        pytest.param(
            measured(seconds={ROLLBACK: 130.0}),
            [revision(SLOW), revision(GOOD)],
            ["must be rolled back within 120 s (got 130 s)"],
            id="late",
        ),
        pytest.param(
            measured(seconds={}),
            [revision(SLOW), revision(GOOD)],
            ["must be rolled back within 120 s (got never)"],
            id="never",
        ),
        pytest.param(
            measured(),
            [revision(SLOW), revision(GOOD, digest="sha256:3")],
            ["bbbb must be ('Accepted', 'ft2', 'sha256:2') (got ('Accepted', 'ft2', 'sha256:3'))"],
            id="another-digest",
        ),
        pytest.param(
            measured(),
            [revision(GOOD)],
            ["aaaa must be ('Rejected', 'ft1', 'sha256:1') (got (None, None, None))"],
            id="forgotten",
        ),
    ],
)
def test_broken_promises_are_named(
    found: Measured, revisions: list[dict[str, Any]], wrong: list[str]
) -> None:
    assert [text for _, text in broken(found, {"revisions": revisions})] == wrong


def test_the_table_counts_what_was_planned_apart_from_what_was_not() -> None:
    found = measured(
        streamed=7904, cut_while_planned={}, cut_by_death={"a": 9, "b": 6}, lost={}, slowest_s=12.04
    )
    values = {what: (value, budget) for what, value, budget in rows(found)}
    assert values["requests streamed to their end"] == ("7,904", "")
    assert values["streams cut by rollouts, rollback and move"] == ("0", "0")
    assert values["streams cut by the blade without power, asked again"] == ("15", "")
    assert values["requests lost"] == ("0", "0")
    assert values[ROLLBACK] == ("60.0 s", "120 s")


@pytest.mark.parametrize(
    ("states", "asked", "count"),
    [
        pytest.param([("Serving", "a"), ("Serving", "a")], "a", 2, id="all"),
        pytest.param([("Serving", "a"), ("Serving", "b")], "", 2, id="any-revision"),
        pytest.param([("Serving", "a"), ("Serving", "b")], "a", 0, id="another-revision"),
        pytest.param([("Serving", "a"), ("Draining", "a")], "", 0, id="one-still-drains"),
        pytest.param([], "", 0, id="none"),
    ],
)
def test_who_serves(states: list[tuple[str, str]], asked: str, count: int) -> None:
    replicas = [{"state": state, "revision": revision} for state, revision in states]
    assert len(serving({"replicas": replicas}, asked)) == count


def test_a_rank_trains_and_leaves_a_whole_model(tmp_path: Path) -> None:
    path = tmp_path / "job" / "final"
    path.parent.mkdir()
    body = training_job("ft1", "paris-a", path, tmp_path, seed=3, ttft=0.15)
    TrainingJob.model_validate(body)
    [container] = body["spec"]["template"]["spec"]["containers"]
    command = [sys.executable, *container["command"][1:], "--steps", "2", "--step-s", "0"]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)
    ]
    assert said[0].splitlines() == [
        "step 1 loss 4.5000",
        "step 2 loss 3.0000",
        "saved checkpoint step=2",
    ]
    assert "there already" in said[1]
    assert json.loads((path / "fake-vllm.json").read_text()) == {"ttft": 0.15}
    assert [one.name for one in path.parent.iterdir()] == ["final"]
    assert digest_of(path) == digest_of(write_model(tmp_path / "same", 3, ttft=0.15))
    assert digest_of(path) != digest_of(write_model(tmp_path / "other", 4, ttft=0.15))


def test_what_a_job_writes_is_mounted_read_only_where_it_is_served(tmp_path: Path) -> None:
    path = tmp_path / "ft1" / "final"
    job = training_job("ft1", "paris-a", path, tmp_path)
    source = ModelSource.model_validate({"trainingJob": {"name": "ft1", "path": str(path)}})
    place = mounted(source, job["spec"]["template"])
    assert isinstance(place, Mounted)
    assert place.volume["hostPath"]["path"] == str(tmp_path)
    assert place.mount["readOnly"]
    assert place.path == f"{place.mount['mountPath']}/ft1/final"


def test_the_deployment_is_one_that_the_api_takes(tmp_path: Path) -> None:
    engine = install_engine(tmp_path / "engine")
    assert install_engine(engine) == engine  # once is enough
    spec = spec_of("paris-a", engine, tmp_path / "v1", replicas=2, model={"servedName": "c"})
    found = InferenceDeployment.model_validate(deployment("claims", spec))
    assert found.spec.capacity.min_replicas == 2
    assert found.spec.model.served_name == "c"
    asked = subprocess.run(
        [sys.executable, engine / "bin" / "vllm", "serve"], capture_output=True, check=False
    )
    assert b"the following arguments are required: model_tag" in asked.stderr


def test_the_config_is_that_of_the_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "v1")
    assert json.loads((folder / "config.json").read_text()) == model.CONFIG
    assert not (folder / "fake-vllm.json").exists()


def test_the_demo_says_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_serve, "lacking", lambda: ("root", "containerd"))
    with pytest.raises(LabError, match="it lacks root, containerd"):
        demo_serve.check_machine()
    monkeypatch.setattr(demo_serve, "lacking", tuple)
    demo_serve.check_machine()


def endpoints(*ready: tuple[str, bool | None], service: str = "claims") -> dict[str, Any]:
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "ports": [{"port": 8000}],
        "endpoints": [
            {"addresses": [address], "conditions": {} if is_ready is None else {"ready": is_ready}}
            for address, is_ready in ready
        ],
    }


def test_only_ready_endpoints_of_the_service_are_chosen() -> None:
    slices = [
        endpoints(("10.0.0.1", True), ("10.0.0.2", False), ("10.0.0.3", None)),
        endpoints(("10.0.0.4", True), service="other"),
        {"metadata": {}},
    ]
    assert addresses(slices, "claims") == ["10.0.0.1:8000", "10.0.0.3:8000"]


def test_waits_double_to_a_limit() -> None:
    assert [wait_s(tries) for tries in range(6)] == [0.5, 1, 2, 4, 8, 8]


@pytest.mark.parametrize(
    ("retries", "failures", "counted"),
    [
        pytest.param(0, 0, (1, {}, {}), id="well"),
        pytest.param(0, 1, (0, {}, {"status 503": 1}), id="no-second-try"),
        pytest.param(2, 2, (1, {"status 503": 2}, {}), id="asked-again"),
        pytest.param(1, 2, (0, {"status 503": 1}, {"status 503": 1}), id="given-up"),
    ],
)
async def test_a_cut_request_is_asked_again(
    retries: int,
    failures: int,
    counted: tuple[int, dict[str, int], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tramontane.lab.serving.streams.wait_s", lambda _: 0.0)
    left = failures

    async def answer(_: web.Request) -> web.Response:
        nonlocal left
        left -= 1
        if left >= 0:
            return web.Response(status=503)
        return web.Response(text='data: {"a": 1}\n\n' * 9 + "data: [DONE]\n\n")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        found = endpoints(("127.0.0.1", True))
        found["ports"] = [{"port": port}]
        client: Any = None
        streams = Streams(client, "claims", "claims", retries=retries)
        slices: Any = SimpleNamespace(cache={"default/claims-x": found})
        streams._slices = slices
        async with ClientSession() as session:
            await streams._ask(session)
    finally:
        await runner.cleanup()
    assert (streams.done, dict(streams.cut), dict(streams.dropped)) == counted
