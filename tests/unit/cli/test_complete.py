"""Completion: verbs without imports, names from the cluster, nothing but completions printed."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from tramontane.cli import complete
from tramontane.cli.main import COMPLETE_VAR, main
from unit.cli.desk import Desk

LONG_S = 30.0


@pytest.fixture
def hall(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("KUBECONFIG", str(desk.kubeconfig))
    desk.pool()
    for name in ("gpu-0001", "gpu-0002", "other"):
        desk.blade(name)
    desk.put("trainingjobs", "llama")
    desk.put("trainingjobs", "llama", "eu")
    desk.put("gangs", "llama")
    desk.server.objects["/api/v1/namespaces/ml"] = {"metadata": {"name": "ml"}}
    return desk


@pytest.mark.parametrize(
    ("kind", "incomplete", "expected"),
    [
        ("blades", "gpu-", ["gpu-0001", "gpu-0002"]),
        ("nodepools", "", ["paris-a"]),
        ("namespaces", "", ["ml"]),
        ("any", "tj/", ["tj/llama"]),
        ("any", "", ["blade/gpu-0001", "blade/gpu-0002", "blade/other", "gang/llama",
                     "np/paris-a", "tj/llama"]),
        ("gangs", "", ["gang/llama", "tj/llama"]),
        ("explained", "WaitingFor", ["WaitingForCapacity", "WaitingForPreempted",
                                     "WaitingForQuota", "WaitingForSpare"]),
        ("explained", "np/", ["np/paris-a"]),
        ("blades", "zzz", []),
    ],
)  # fmt: skip
def test_names(hall: Desk, kind: str, incomplete: str, expected: list[str]) -> None:
    found = complete.names(kind, {}, incomplete, LONG_S)
    assert [one.value for one in found] == expected
    assert not hall.writes()
    asked = [one for one in hall.server.headers if "Accept" in one]
    assert all("PartialObjectMetadataList" in one["Accept"] for one in asked)


def test_the_last_blade_of_a_large_hall_is_found(
    hall: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "_MOST", 2)
    pages = {None: (["gpu-1", "gpu-2", "gpu-3"], "more"), "more": (["gpu-90", "gpu-91"], None)}

    def page(request: web.Request) -> web.Response:
        names, continue_ = pages[request.query.get("continue")]
        items = [{"metadata": {"name": name}} for name in names]
        return web.json_response({"metadata": {"continue": continue_}, "items": items})

    hall.server.answers.extend([page, page])
    found = complete.names("blades", {}, "gpu-9", LONG_S)
    assert [one.value for one in found] == ["gpu-90", "gpu-91"]


def test_names_are_completed_without_our_models_of_objects(hall: Desk) -> None:
    code = (
        "import sys\n"
        "from tramontane.cli import complete\n"
        f"print([one.value for one in complete.names('any', {{}}, 'np/', {LONG_S})])\n"
        "print('pydantic' in sys.modules)\n"
    )
    environment = {**os.environ, "KUBECONFIG": str(hall.kubeconfig)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["['np/paris-a']", "False"]


def test_only_the_kind_that_is_begun_is_asked_for(hall: Desk) -> None:
    complete.names("any", {}, "np/", LONG_S)
    assert {path.split("?")[0] for _, path in hall.server.requests} == {
        "/apis/tramontane.dev/v1alpha1/nodepools"
    }


def test_the_namespace_before_it_counts(hall: Desk) -> None:
    complete.names("any", {"namespace": "eu"}, "tj/", LONG_S)
    assert hall.server.seen("GET", "/namespaces/eu/trainingjobs")


def test_a_machine_without_a_cluster_completes_verbs_and_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert complete.names("blades", {}, "", LONG_S) == []
    assert complete.names("explained", {}, "BladeF", LONG_S)


def test_a_cluster_that_does_not_answer_is_not_waited_for(hall: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        text = hall.kubeconfig.read_text()
        hall.kubeconfig.write_text(text.replace(hall.server.url, f"http://127.0.0.1:{port}"))
        started = time.monotonic()
        assert complete.names("blades", {}, "", 0.2) == []
        assert time.monotonic() - started < LONG_S / 3


@pytest.mark.parametrize("content", ["{", "[]", "a: b"])
def test_a_broken_kubeconfig_prints_nothing(
    hall: Desk, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    hall.kubeconfig.write_text(content)
    assert complete.names("blades", {}, "", LONG_S) == []
    assert capfd.readouterr().err == ""


def kubectl(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-tramontane", *words])
    complete.kubectl()


@pytest.mark.usefixtures("hall")
def test_kubectl_gets_lines_and_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl(monkeypatch, "fl")
    line, number = capsys.readouterr().out.splitlines()
    assert line.startswith("fleet\tShow pools")
    assert number == ":4"
    kubectl(monkeypatch, "pool", "")
    assert capsys.readouterr().out.splitlines() == [
        "list\tList pools with their counts.",
        "show\tShow all that is known of one pool.",
        ":4",
    ]
    kubectl(monkeypatch)
    assert "quarantine\t" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_us_back(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"{COMPLETE_VAR}={shell}_complete" in done.stdout
    assert "tramontane" in done.stdout


@pytest.mark.parametrize(
    ("words", "index", "expected"),
    [
        ("tramontane qua", "1", "plain,quarantine"),
        ("tramontane fleet --b", "2", "plain,--by"),
        ("tramontane breaker cl", "2", "plain,close"),
        ("tramontane fleet -o y", "3", "plain,yaml"),
    ],
    ids=["verb", "option", "verb of a group", "choice"],
)
def test_bash_completes(words: str, index: str, expected: str) -> None:
    code = "import sys\nsys.argv[0] = 'tramontane'\nfrom tramontane.cli.main import main\nmain()"
    asked = {COMPLETE_VAR: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": index}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [expected]
