"""The state machine, row by row of its table."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api.blade import Action, BladeState, Hold, Incident, Severity
from tramontane.api.clock import utc
from tramontane.api.nodepool import RemediationMode
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.state import (
    Decision,
    NodeSign,
    Prior,
    Ruling,
    Signs,
    decide,
)
from tramontane.controllers.nodepool.verdict import NOTHING, Finding, reason_of

NOW = 1_800_000_000.0
POLICY = Policy(
    pool="paris",
    uid="u",
    product=None,
    gpus=8,
    memory=None,
    memory_b=None,
    min_driver=(),
    levels=(),
    tranche_label="t",
    clear_after_s=600.0,
    unknown_after_s=90.0,
    rules=(),
    mode=RemediationMode.AUTO,
    max_unavailable="10%",
)
FATAL = Finding(
    Severity.FATAL, Action.RESET, reason_of("xid-79"), "GPU 3: xid-79", "xid-79", 3, NOW - 1
)
DEGRADED = replace(FATAL, severity=Severity.DEGRADED)
HUNG = Finding(
    Severity.UNKNOWN,
    Action.REBOOT,
    reason_of("nvml-unresponsive"),
    "blade: nvml-unresponsive",
    "nvml-unresponsive",
)
INFO = replace(FATAL, severity=Severity.INFO)
WELL = Signs(
    now=NOW,
    node=NodeSign.READY,
    reported=True,
    reported_at=NOW - 3600,
    agent_silence_s=10.0,
    heard_at=NOW - 10,
)
HOLD = Hold(reason="fan", by="anna")
HEALTHY = Prior(BladeState.HEALTHY)
OPEN = Incident(
    at=utc(NOW - 1000), code="xid-79", gpu=3, to=BladeState.QUARANTINED, action=Action.RESET
)


def gone(since: float | None, state: BladeState = BladeState.QUARANTINED, **fault: Any) -> Prior:
    """Have an open fault that has been gone since then; None: this is the first look."""
    at = None if since is None else utc(since)
    return Prior(state, OPEN.model_copy(update={"gone_since": at, "boot_id": "b1", **fault}))


def degraded(since: float | None) -> Prior:
    return gone(since, BladeState.SUSPECT, to=BladeState.SUSPECT)


def refused(since: float | None, action: Action = Action.RESET) -> Prior:
    worked = BladeState.HEALTHY
    return gone(since, worked, to=worked, severity=Severity.FATAL, action=action)


def signs(**changes: Any) -> Signs:
    return replace(WELL, **changes)


def case(  # noqa: PLR0917 - a row of a table
    name: str,
    given: Signs,
    state: str,
    reason: str | None,
    severity: str,
    prior: Prior = HEALTHY,
    ruling: Ruling = Ruling.GRANTED,
) -> Any:
    return pytest.param(given, prior, ruling, state, reason, severity, id=name)


@pytest.mark.parametrize(
    ("given", "prior", "ruling", "state", "reason", "severity"),
    [
        case("1 node gone", signs(node=NodeSign.ABSENT), "Lost", "NodeNotReady", "Unknown"),
        case("2 node new", signs(node=NodeSign.NEW), "Unknown", "NodeNotReady", "Unknown"),
        case("3 not ready", signs(node=NodeSign.NOT_READY), "Lost", "NodeNotReady", "Unknown"),
        case(
            "3 lost before faults",
            signs(node=NodeSign.NOT_READY, finding=FATAL, hold=HOLD),
            "Lost",
            "NodeNotReady",
            "Unknown",
        ),
        case(
            "4 both silent",
            signs(agent_silence_s=46.0, machine_silence_s=45.0),
            "Lost",
            "NodeNotReady",
            "Unknown",
        ),
        case(
            "4 both silent, not yet",
            signs(agent_silence_s=46.0, machine_silence_s=44.9),
            "Healthy",
            None,
            "None",
        ),
        case(
            "5 made anew under a seat",
            signs(reported=False, replaced=True, seated=True),
            "Lost",
            "NodeNotReady",
            "Unknown",
        ),
        case(
            "5 made anew without one",
            signs(reported=False, replaced=True),
            "Unknown",
            "AgentSilent",
            "Unknown",
        ),
        case("6 held", signs(hold=HOLD), "Quarantined", "HeldByPerson", "None"),
        case(
            "6 held keeps the verdict",
            signs(hold=HOLD, finding=DEGRADED),
            "Quarantined",
            "HeldByPerson",
            "Degraded",
        ),
        case(
            "6 held without an agent",
            signs(hold=HOLD, reported=False),
            "Quarantined",
            "HeldByPerson",
            "None",
        ),
        case("7 fatal", signs(finding=FATAL), "Quarantined", "HardwareFault", "Fatal"),
        case(
            "7 fatal, agent silent since",
            signs(finding=FATAL, agent_silence_s=500.0),
            "Quarantined",
            "HardwareFault",
            "Fatal",
        ),
        case(
            "8 gone, window runs",
            signs(),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 599),
        ),
        case(
            "8 gone at the first look, whatever the blade's clock says",
            signs(reported_at=NOW - 3600),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(None),
        ),
        case(
            "8 gone, window over",
            signs(),
            "Healthy",
            None,
            "None",
            gone(NOW - 600),
        ),
        case(
            "8 gone, but silent: the window waits",
            signs(agent_silence_s=500.0),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 6000),
        ),
        case(
            "8 gone, however lately the report changed",
            signs(reported_at=NOW + 7200),
            "Healthy",
            None,
            "None",
            gone(NOW - 600),
        ),
        case(
            "8 gone, another boot: a new window",
            signs(boot_id="b2"),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 6000),
        ),
        case(
            "8 gone, or the driver does not answer",
            signs(finding=HUNG),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 6000),
        ),
        case(
            "8 refused, gone: granted at last",
            signs(boot_id="b1"),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            refused(None),
        ),
        case(
            "8 refused, gone: another boot replaces nothing",
            signs(boot_id="b2"),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            refused(None, Action.REPLACE),
        ),
        case(
            "8 refused, gone, released since",
            signs(boot_id="b1", released_at=NOW - 1),
            "Healthy",
            None,
            "None",
            refused(None),
        ),
        case(
            "8 gone, released since",
            signs(released_at=NOW - 1),
            "Healthy",
            None,
            "None",
            gone(None),
        ),
        case(
            "8 gone, released before it came",
            signs(released_at=NOW - 2000),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 5),
        ),
        case(
            "8 milder now, window runs",
            signs(finding=DEGRADED),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 5),
        ),
        case(
            "8 back from being lost",
            signs(),
            "Quarantined",
            "HardwareFault",
            "Fatal",
            gone(NOW - 5, BladeState.LOST),
        ),
        case("9 never reported", signs(reported=False), "Unknown", "AgentSilent", "Unknown"),
        case("9 silent", signs(agent_silence_s=90.0), "Unknown", "AgentSilent", "Unknown"),
        case("9 silent, not yet", signs(agent_silence_s=89.9), "Healthy", None, "None"),
        case(
            "9 silent, Fatal over budget",
            signs(agent_silence_s=90.0, finding=FATAL),
            "Unknown",
            "AgentSilent",
            "Fatal",
            ruling=Ruling.OVER_BUDGET,
        ),
        case(
            "10 over budget, was Unknown",
            signs(finding=FATAL),
            "Unknown",
            "BudgetExhausted",
            "Fatal",
            Prior(BladeState.UNKNOWN),
            Ruling.OVER_BUDGET,
        ),
        case(
            "10 over budget, new",
            signs(finding=FATAL),
            "Unknown",
            "BudgetExhausted",
            "Fatal",
            Prior(),
            Ruling.OVER_BUDGET,
        ),
        case(
            "11 over budget, was Healthy",
            signs(finding=FATAL),
            "Healthy",
            "BudgetExhausted",
            "Fatal",
            ruling=Ruling.OVER_BUDGET,
        ),
        case(
            "11 refused, gone for however long",
            signs(boot_id="b1"),
            "Healthy",
            "BudgetExhausted",
            "Fatal",
            refused(None),
            Ruling.OVER_BUDGET,
        ),
        case(
            "12 dry run",
            signs(finding=FATAL),
            "Healthy",
            "HardwareFault",
            "Fatal",
            Prior(BladeState.UNKNOWN),
            Ruling.DRY_RUN,
        ),
        case(
            "12 off", signs(finding=FATAL), "Healthy", "HardwareFault", "Fatal", ruling=Ruling.OFF
        ),
        case("13 probe hangs", signs(finding=HUNG), "Unknown", "ProbeHung", "Unknown"),
        case("14 degraded", signs(finding=DEGRADED), "Suspect", "HardwareFault", "Degraded"),
        case(
            "14 degraded, gone, window runs",
            signs(),
            "Suspect",
            "HardwareFault",
            "Degraded",
            degraded(NOW - 5),
        ),
        case("14 gone, window over", signs(), "Healthy", None, "None", degraded(NOW - 600)),
        case(
            "14 refused, gone, clears if it asks for no repair",
            signs(boot_id="b1"),
            "Healthy",
            None,
            "None",
            refused(NOW - 600, Action.DRAIN),
        ),
        case(
            "14 refused, gone, another boot, window over",
            signs(boot_id="b1"),
            "Healthy",
            None,
            "None",
            refused(NOW - 600),
        ),
        case("15 well", signs(), "Healthy", None, "None", Prior()),
        case("15 back from Unknown", signs(), "Healthy", None, "None", Prior(BladeState.UNKNOWN)),
        case("15 an Info fault", signs(finding=INFO), "Healthy", "HardwareFault", "Info"),
    ],
)
def test_each_row(  # noqa: PLR0917 - a row of a table
    given: Signs, prior: Prior, ruling: Ruling, state: str, reason: str | None, severity: str
) -> None:
    decision = decide(given, prior, POLICY, ruling)
    assert (decision.state, decision.reason, decision.severity) == (state, reason, severity)
    assert bool(decision.message) == (decision.reason is not None)


@pytest.mark.parametrize(
    ("given", "prior", "after_s"),
    [
        pytest.param(signs(), HEALTHY, None, id="well: events come"),
        pytest.param(signs(agent_silence_s=50.0), HEALTHY, 5.0, id="silent: the kubelet is asked"),
        pytest.param(signs(agent_silence_s=88.0), HEALTHY, 2.0, id="silent: Unknown is near"),
        pytest.param(signs(), gone(NOW - 590), 10.0, id="the window ends"),
        pytest.param(signs(boot_id="b1"), refused(None), None, id="the window never ends"),
        pytest.param(signs(node=NodeSign.NOT_READY), HEALTHY, None, id="lost: the Node says when"),
    ],
)
def test_when_to_look_again(given: Signs, prior: Prior, after_s: float | None) -> None:
    assert decide(given, prior, POLICY, Ruling.GRANTED).after_s == after_s


@pytest.mark.parametrize("ruling", list(Ruling))
def test_only_faults_ask_for_a_ruling(ruling: Ruling) -> None:
    decisions: list[Decision] = [
        decide(given, HEALTHY, POLICY, ruling)
        for given in (signs(), signs(hold=HOLD), signs(reported=False), signs(finding=DEGRADED))
    ]
    assert not any(decision.by_fault for decision in decisions)


@pytest.mark.parametrize(
    ("given", "prior", "since"),
    [
        pytest.param(signs(), HEALTHY, None, id="nothing is open"),
        pytest.param(signs(), gone(None), NOW, id="the first look"),
        pytest.param(signs(), gone(NOW - 60), NOW - 60, id="a later one"),
        pytest.param(signs(), gone(NOW + 60), NOW, id="another operator's clock was ahead"),
        pytest.param(signs(boot_id="b1"), gone(NOW - 60), NOW - 60, id="the same boot"),
        pytest.param(signs(boot_id="b2"), gone(NOW - 60), NOW, id="another boot"),
        pytest.param(signs(finding=FATAL), gone(NOW - 60), None, id="it is back"),
        pytest.param(signs(finding=HUNG), gone(NOW - 60), None, id="the driver hangs"),
        pytest.param(signs(reported=False), gone(NOW - 60), NOW - 60, id="no report"),
        pytest.param(signs(node=NodeSign.NOT_READY), gone(NOW - 60), NOW - 60, id="lost meanwhile"),
        pytest.param(signs(boot_id="b1"), refused(None), None, id="refused"),
        pytest.param(signs(boot_id="b2"), refused(None), NOW, id="refused, rebooted"),
        pytest.param(signs(), refused(None, Action.DRAIN), NOW, id="refused, asks for nothing"),
        pytest.param(signs(), refused(None, Action.INSPECT), NOW, id="refused, asks for a person"),
    ],
)
def test_since_when_a_fault_is_gone(given: Signs, prior: Prior, since: float | None) -> None:
    assert decide(given, prior, POLICY, Ruling.GRANTED).gone_since == since


@pytest.mark.parametrize("mode", [RemediationMode.DRY_RUN, RemediationMode.OFF])
def test_a_pool_that_only_watches_refuses_nothing(mode: RemediationMode) -> None:
    decision = decide(
        signs(boot_id="b1"), refused(None), replace(POLICY, mode=mode), Ruling.GRANTED
    )
    assert decision.gone_since == NOW


def test_nothing_is_wrong_with_nothing() -> None:
    assert NOTHING.severity is Severity.NONE
