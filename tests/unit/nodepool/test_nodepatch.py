"""Patches of Nodes: ours changes, theirs stays."""

from typing import Any

import pytest

from tramontane.api.names import LABEL_BLADE_STATE, LABEL_POOL, TAINT_BLADE
from tramontane.controllers.informers import decode_operator_node
from tramontane.controllers.nodepool import nodepatch
from unit.nodepool.hall import _operate

THEIRS = {"key": "theirs", "value": "x", "effect": "NoSchedule"}
THEIRS_TOO = {"key": "dedicated", "effect": "NoExecute"}


def ours(value: str, effect: str = "NoSchedule") -> dict[str, Any]:
    return {"key": TAINT_BLADE, "value": value, "effect": effect}


def node(*taints: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "uid": "u", "labels": labels, "resourceVersion": "1"},
        "spec": {"taints": list(taints)} if taints else {},
    }


def patched(
    raw: dict[str, Any], labels: dict[str, str | None], taint: str | None
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    for operation in nodepatch.plan(decode_operator_node(raw), labels, taint):
        _operate(raw, operation)
    return raw["metadata"]["labels"], raw["spec"].get("taints", [])


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        pytest.param([], None, [], id="none, none wanted"),
        pytest.param([], "Lost", [ours("Lost")], id="the first taint"),
        pytest.param([THEIRS], "Lost", [THEIRS, ours("Lost")], id="beside theirs"),
        pytest.param([ours("Lost")], "Lost", [ours("Lost")], id="there already"),
        pytest.param(
            [THEIRS, ours("Lost"), THEIRS_TOO],
            "Quarantined",
            [THEIRS, ours("Quarantined"), THEIRS_TOO],
            id="another value",
        ),
        pytest.param(
            [THEIRS, ours("Lost"), THEIRS_TOO], None, [THEIRS, THEIRS_TOO], id="taken off"
        ),
        pytest.param([ours("Lost")], None, [], id="the last taken off"),
        pytest.param(
            [ours("Lost", "NoExecute"), THEIRS, ours("Lost")],
            "Lost",
            [THEIRS, ours("Lost")],
            id="a wrong effect goes",
        ),
        pytest.param(
            [ours("Lost", "NoExecute"), THEIRS],
            "Lost",
            [THEIRS, ours("Lost")],
            id="only a wrong effect",
        ),
    ],
)
def test_taints(
    before: list[dict[str, Any]], wanted: str | None, after: list[dict[str, Any]]
) -> None:
    assert patched(node(*before), {}, wanted)[1] == after


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        pytest.param({}, {LABEL_POOL: "p"}, {LABEL_POOL: "p"}, id="the first label"),
        pytest.param({"a": "b"}, {LABEL_POOL: None}, {"a": "b"}, id="not there"),
        pytest.param(
            {"a": "b", LABEL_POOL: "p", LABEL_BLADE_STATE: "x"},
            {LABEL_POOL: None, LABEL_BLADE_STATE: "y"},
            {"a": "b", LABEL_BLADE_STATE: "y"},
            id="one off, one changed",
        ),
    ],
)
def test_labels(
    before: dict[str, str], wanted: dict[str, str | None], after: dict[str, str]
) -> None:
    assert patched(node(**before), wanted, None)[0] == after


def test_nothing_to_do_is_no_patch() -> None:
    raw = node(THEIRS, ours("Lost"), **{LABEL_POOL: "p"})
    assert nodepatch.plan(decode_operator_node(raw), {LABEL_POOL: "p"}, "Lost") == []
