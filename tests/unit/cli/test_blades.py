"""`tramontane blade`, from the command line to the request."""

import json
from pathlib import Path

import pytest

from tramontane.api.clock import parse
from tramontane.cli import session
from tramontane.cli.options import Cluster
from unit.cli.desk import BLADES, Desk, example


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_list_shows_one_line_per_blade(desk: Desk) -> None:
    desk.blade("gpu-0002", "Quarantined", verdict={"severity": "Fatal", "action": "Reset"},
               reason="HardwareFault")  # fmt: skip
    desk.blade("gpu-0001")
    desk.blade("new", None)
    assert rows(desk.says("blade", "list")) == [
        ["NAME", "POOL", "STATE", "SINCE", "VERDICT", "ACTION", "REASON"],
        ["gpu-0001", "paris-a", "Healthy", "None", "None"],
        ["gpu-0002", "paris-a", "Quarantined", "Fatal", "Reset", "HardwareFault"],
        ["new", "paris-a", "None", "None"],
    ]


def test_list_of_one_pool_is_the_servers_work(desk: Desk) -> None:
    desk.blade("gpu-0001")
    desk.blade("gpu-0002", pool="berlin")
    found = rows(desk.says("blade", "list", "--pool", "berlin"))
    assert [row[0] for row in found] == ["NAME", "gpu-0002"]
    assert desk.server.seen("GET", "labelSelector=")


def test_list_by_state_whatever_its_case(desk: Desk) -> None:
    desk.blade("gpu-0001")
    desk.blade("gpu-0002", "RMA")
    desk.blade("gpu-0003", "Lost")
    found = rows(desk.says("blade", "list", "--state", "rma", "--state", "LOST"))
    assert [row[0] for row in found] == ["NAME", "gpu-0002", "gpu-0003"]


def test_list_wide_shows_what_is_wrong(desk: Desk) -> None:
    raw = example("blade")
    desk.server.put(BLADES, "gpu-0017", spec=raw["spec"], status=raw["status"])
    head, row = desk.says("blade", "list", "-o", "wide").splitlines()
    for heading, cell in (
        ("FAULTS", "xid-79"), ("DRIVER", "580.95.05"), ("LEMON", "0.12"),
        ("MESSAGE", "GPU 3: xid-79, reset needed"),
    ):  # fmt: skip
        assert row[head.index(heading) :].startswith(cell)
    # The hold of the example is over: a later release has ended it.
    assert row[head.index("HELD BY") : head.index("MESSAGE")].isspace()


def test_list_as_json_is_a_list_that_kubectl_would_print(desk: Desk) -> None:
    desk.blade("gpu-0001", pool="paris-a")["metadata"]["managedFields"] = [{"manager": "x"}]
    found = json.loads(desk.says("blade", "list", "-o", "json"))
    assert (found["apiVersion"], found["kind"]) == ("v1", "List")
    assert [one["metadata"]["name"] for one in found["items"]] == ["gpu-0001"]
    assert "managedFields" not in found["items"][0]["metadata"]
    assert json.loads(desk.says("blade", "list", "--state", "Lost", "-o", "json"))["items"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["blade", "show", "gpu-001"],
            'Blade gpu-001: must exist (got none of that name); did you mean "gpu-0001"?',
            id="a name nearby",
        ),
        pytest.param(
            ["blade", "show", "zzz"],
            "(got none of that name); `tramontane blade list` shows all 2",
            id="no name nearby",
        ),
        pytest.param(
            ["blade", "list", "--pool", "pariss"], 'did you mean "paris-a"?', id="pool of a list"
        ),
        pytest.param(["pool", "show", "paris"], "NodePool paris: must exist (got none", id="pool"),
        pytest.param(
            ["breaker", "close", "paris"], 'did you mean "paris-a"?', id="pool of a breaker"
        ),
        pytest.param(
            ["blade", "hold", "gpu-0001", "gpu-0003", "--reason", "fan"],
            "Blade gpu-0003: must exist",
            id="one of two to hold: neither is",
        ),
        pytest.param(
            ["blade", "list", "--state", "sick"], "must be one of Delivered, Qualifying", id="state"
        ),
        pytest.param(["blade", "hold", "gpu-0001"], "Missing option '--reason'", id="no reason"),
        pytest.param(
            ["blade", "hold", "gpu-0001", "--reason", " "], "must have 1 to 1024", id="empty reason"
        ),
        pytest.param(
            ["blade", "release", "gpu-0001", "--reason", "x" * 1025],
            "must have 1 to 1024 characters (got 1025)",
            id="long reason",
        ),
        pytest.param(
            ["blade", "hold", "gpu-0001", "--reason", "x", "--by", "y" * 254],
            "'--by': must have at most 253 characters (got 254)",
            id="long name",
        ),
    ],
)
def test_says_what_is_wrong_and_writes_nothing(desk: Desk, arguments: list[str], says: str) -> None:
    desk.pool()
    desk.blade("gpu-0001")
    desk.blade("gpu-0002")
    assert says in desk.refuses(*arguments)


def test_an_empty_cluster_is_called_one(desk: Desk) -> None:
    assert "there is no Blade in this cluster" in desk.refuses("blade", "show", "gpu-0001")
    assert desk.says("blade", "list") == "no blades found\n"
    assert desk.says("pool", "list") == "no pools found\n"


def test_no_server_is_no_traceback(desk: Desk) -> None:
    text = desk.kubeconfig.read_text().replace(desk.server.url, "http://127.0.0.1:1")
    desk.kubeconfig.write_text(text)
    assert "127.0.0.1:1" in desk.refuses("blade", "list")


def test_show_tells_everything(desk: Desk) -> None:
    raw = example("blade")
    desk.server.put(BLADES, "gpu-0017", spec=raw["spec"], status=raw["status"])
    said = desk.says("blade", "show", "gpu-0017")
    for part in (
        "HardwareFault: GPU 3: xid-79, reset needed",
        "Fatal, action Reset",
        "2026-11-24T15:02:07Z by anna: fan replaced (ended)",
        "2026-11-24T16:02:07Z by anna: new fan",
        "step burnIn for ",
        "incidents 3, quarantines 1, failed jobs 2, lemon score 0.12",
        "version 0.1.0, driver 580.95.05, 1 GPUs, 41 checks",
        "nvlink-state",
        "NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.",
        "341.5 GB/s",
        "Healthy to Quarantined",
        "research/llama",
        "reset, back in 14m",
    ):
        assert part in said
    assert json.loads(desk.says("blade", "show", "gpu-0017", "-o", "json"))["spec"] == raw["spec"]


def test_show_of_a_blade_that_nobody_has_seen(desk: Desk) -> None:
    desk.server.put(BLADES, "gpu-0001", spec={"pool": "paris-a"})
    assert desk.says("blade", "show", "gpu-0001").splitlines() == [
        "Blade: gpu-0001",
        "Pool:  paris-a",
        "State: not seen yet",
        "Agent: has not reported yet",
    ]


def test_hold_is_written_with_who_and_when(desk: Desk) -> None:
    desk.blade("gpu-0001")
    desk.blade("gpu-0002")
    said = desk.says(
        "quarantine", "gpu-0001", "gpu-0002", "--reason", "fan", "--by", "anna", "--yes"
    )
    for name in ("gpu-0001", "gpu-0002"):
        assert f"Blade {name}: held by anna: fan" in said
        spec = desk.get(BLADES, name)["spec"]
        assert spec["pool"] == "paris-a"
        assert (spec["hold"]["reason"], spec["hold"]["by"]) == ("fan", "anna")
        parse(spec["hold"]["at"])
    assert "Undo: tramontane release gpu-0001 gpu-0002 --reason" in said


def test_release_is_written_and_says_what_follows(desk: Desk) -> None:
    desk.blade("gpu-0001", "Quarantined")
    said = desk.says("release", "gpu-0001", "--reason", "new fan", "--yes")
    assert desk.get(BLADES, "gpu-0001")["spec"]["release"]["skipBurnIn"] is False
    assert "when it has passed what tests its pool has" in said
    assert "Undo: tramontane quarantine gpu-0001" in said
    said = desk.says(
        "blade", "release", "gpu-0001", "--reason", "new fan", "--skip-burn-in", "--yes"
    )
    assert desk.get(BLADES, "gpu-0001")["spec"]["release"]["skipBurnIn"] is True
    assert "at once, untested" in said


def test_a_blade_that_works_is_not_released(desk: Desk) -> None:
    desk.blade("gpu-0001")
    said = desk.says("blade", "release", "gpu-0001", "--reason", "why not")
    assert said == "Blade gpu-0001: Healthy already; left as it is\n"
    assert not desk.writes()


@pytest.mark.parametrize(
    ("env", "arguments", "expected"),
    [
        pytest.param({}, ["--by", "anna"], "anna", id="as given"),
        pytest.param({}, [], "c", id="user of the kubeconfig"),
        pytest.param({"KUBECONFIG": "{path}:nowhere"}, [], "c", id="several kubeconfigs"),
        pytest.param(
            {"KUBECONFIG": "nowhere", "USER": "berta"},
            ["--kubeconfig", "{path}"],
            "c",
            id="user of the named kubeconfig",
        ),
    ],
)
def test_who_asks(desk: Desk, env: dict[str, str], arguments: list[str], expected: str) -> None:
    path = str(desk.kubeconfig)
    desk.env |= {key: value.replace("{path}", path) for key, value in env.items()}
    desk.blade("gpu-0001")
    more = [one.replace("{path}", path) for one in arguments]
    desk.says("blade", "hold", "gpu-0001", "--reason", "fan", "--yes", *more)
    assert desk.get(BLADES, "gpu-0001")["spec"]["hold"]["by"] == expected


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[1, 2]", id="no kubeconfig"),
        pytest.param("{", id="no YAML"),
        pytest.param("current-context: x", id="no such context"),
        pytest.param("{current-context: x, contexts: [{name: x}]}", id="no user"),
    ],
)
def test_who_asks_where_the_kubeconfig_does_not_say(
    desk: Desk, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.kubeconfig.write_text(content)
    monkeypatch.setenv("LOGNAME", "berta")
    assert session.person(None, Cluster(desk.kubeconfig)) == "berta"


def test_of_several_kubeconfigs_the_first_that_says_something_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("{current-context: x, contexts: [{name: x, context: {user: anna}}]}")
    second.write_text("{current-context: y, contexts: [{name: x, context: {user: berta}}]}")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert session.person(None, Cluster()) == "anna"


def test_a_kubeconfig_is_used_where_it_is_named(desk: Desk) -> None:
    desk.env["KUBECONFIG"] = "nowhere"
    desk.blade("gpu-0001")
    assert "gpu-0001" in desk.says("blade", "list", "--kubeconfig", str(desk.kubeconfig))


def test_a_wrong_name_costs_names_and_not_all_objects(desk: Desk) -> None:
    desk.blade("gpu-0001")
    assert 'did you mean "gpu-0001"?' in desk.refuses("blade", "show", "gpu-001")
    [asked] = [
        headers["Accept"]
        for (_, path), headers in zip(desk.server.requests, desk.server.headers, strict=True)
        if path.partition("?")[0].endswith("/blades")
    ]
    assert "PartialObjectMetadata" in asked


@pytest.mark.parametrize("content", ["a text", "[1, 2]", "clusters: [a]"])
def test_a_kubeconfig_that_is_none_is_no_traceback(
    desk: Desk, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "wrong"
    path.write_text(content)
    said = desk.refuses("blade", "list", "--kubeconfig", str(path))
    assert "wrong: must " in said
    assert "set KUBECONFIG, or give the path of a kubeconfig" in said
