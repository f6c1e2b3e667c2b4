"""`tramontane explain`: words without a cluster, and objects as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tramontane.api import meanings
from tramontane.api.meanings import Meaning
from tramontane.api.reasons import BladeReason, InferenceReason, JobReason, PendingReason
from tramontane.cli import dictionary
from tramontane.cli.dictionary import Code
from tramontane.cli.main import main
from tramontane.controllers.nodepool import life, verdict
from tramontane.health import catalogue
from tramontane.health.checks import CHECKS
from unit.cli.desk import BLADES, Desk, example

Raw = dict[str, Any]
NOWHERE = {"KUBECONFIG": "/nowhere"}
REASONS = sorted({r.value for e in (PendingReason, BladeReason, JobReason, InferenceReason)
                  for r in e})  # fmt: skip


def says(word: str, *more: str) -> str:
    done = CliRunner(env=NOWHERE).invoke(main, ["explain", word, *more])
    assert done.exit_code == 0, done.output
    return done.output


# Words


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_meaning_and_a_way_out(reason: str) -> None:
    for one in dictionary.look_up(reason):
        assert isinstance(one, Meaning)
        assert one.word == reason
        assert len(one.text.split()) > 3
        assert one.way_out


def test_a_reason_of_two_kinds_has_both_meanings() -> None:
    said = says("BladeFault")
    assert "What happened to a job" in said
    assert "What happened to a deployment" in said
    assert len(json.loads(says("BladeFault", "-o", "json"))["items"]) == 2
    told = dictionary.reason("BladeFault", "What happened to a deployment")
    assert told is not None
    assert "replica" in told.text


@pytest.mark.parametrize("code", sorted(catalogue.table()))
def test_every_xid_is_told_as_the_catalogue_has_it(code: int) -> None:
    (one,) = dictionary.look_up(f"xid-{code}")
    row = catalogue.look_up(code)
    assert isinstance(one, Code)
    assert (one.text, one.severity, one.action) == (row.description, row.severity, row.action)


@pytest.mark.parametrize("word", ["79", "xid-79", "Xid 79", "XID79", "xid79"])
def test_an_xid_is_known_as_people_write_it(word: str) -> None:
    said = says(word)
    assert "xid-79" in said
    assert "fallen off the bus" in said
    assert "Fatal" in said


def test_what_an_xid_means_beside_others_and_again() -> None:
    assert "means nothing beside another XID" in says("xid-45")
    assert "within a day on the same unit: Replace" in says("xid-48")
    assert "it waits for the end of the job" in says("xid-63")
    assert "not in the catalogue" in says("xid-99999")
    assert "sxid-" in says("sxid-10004")


@pytest.mark.parametrize("check", [one.name for one in CHECKS])
def test_every_check_says_what_must_hold(check: str) -> None:
    (one,) = dictionary.look_up(check)
    assert isinstance(one, Code)
    assert len(one.must.split()) > 3
    assert one.check.startswith(f"{check} (threshold: ")


@pytest.mark.parametrize(
    ("word", "check"),
    [
        ("RowRemapPending", "row-remap"),
        ("row-remap-failure", "row-remap"),
        ("nvlink-crc", "nvlink-errors"),
        ("pci-gpu-missing", "pci-count"),
        ("memory-missing", "memory-size"),
        ("recovery-drain-and-reset", "recovery-action"),
        ("bank-spares-exhausted", "bank-remap"),
    ],
)
def test_a_code_belongs_to_its_check(word: str, check: str) -> None:
    (one,) = dictionary.look_up(word)
    assert isinstance(one, Code)
    assert one.check.startswith(f"{check} ")


@pytest.mark.parametrize("code", sorted(verdict.WAITS_FOR_IDLE))
def test_what_waits_for_the_end_of_a_job_says_so(code: str) -> None:
    (one,) = dictionary.look_up(code)
    assert isinstance(one, Code)
    assert "waits for the end of the job" in one.note


def test_the_operator_s_own_codes_are_known() -> None:
    own = {value for name, value in vars(life).items() if name.endswith("_CODE")}
    own |= {verdict.MISMATCH_CODE, verdict.VERSION_CODE, verdict.HUNG_CODE}
    assert own
    for code in own:
        assert dictionary.look_up(code)


@pytest.mark.parametrize(
    ("word", "meant"), [("BladeFalt", "BladeFault"), ("row-remap-pendin", "row-remap-pending")]
)
def test_a_word_that_is_none_says_which_was_meant(word: str, meant: str) -> None:
    done = CliRunner(env=NOWHERE).invoke(main, ["explain", word])
    assert done.exit_code == 1
    assert f'did you mean "{meant}"?' in " ".join(done.output.split())


def test_no_cluster_is_asked_about_a_word(desk: Desk) -> None:
    desk.says("explain", "xid-79")
    assert not desk.server.requests


# Objects


@pytest.fixture
def hall(desk: Desk) -> Desk:
    desk.pool()
    placement = {"seats": ["gpu-0017"]}
    desk.put("gangs", "llama", spec={"pool": "paris-a"}, status={"placement": placement})
    waits = {"phase": "Pending", "position": 1, "reason": "WaitingForCapacity",
             "message": "Gang ml/big: needs 2"}  # fmt: skip
    desk.put("gangs", "big", spec=example("gang")["spec"], status=waits)
    return desk


def broken(desk: Desk, **more: Any) -> None:
    raw = example("blade")
    spec = {"pool": "paris-a", **more}
    desk.server.put(BLADES, "gpu-0017", kind="Blade", spec=spec, status=raw["status"])


def test_a_blade_has_evidence_rule_author_effect_and_end(hall: Desk) -> None:
    broken(hall)
    said = hall.says("explain", "blade/gpu-0017")
    for part in (
        "Quarantined for ",
        "HardwareFault",
        "A check or an XID says that a GPU",
        "the operator, 2026-11-24T15:02:07Z: xid-79 on GPU 3",
        "1 GPUs take no new work; still there: ml/llama; 1 gang waiting in its pool",
        "Reset is done, its faults are gone for 10m, it has passed the pool's tests",
        "NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.",
        "GPU not reachable over PCIe",
        "needs 2",
    ):
        assert part in said, part


def test_the_pool_s_own_rule_is_named(hall: Desk) -> None:
    broken(hall)
    pool = hall.server.objects["/apis/tramontane.dev/v1alpha1/nodepools/paris-a"]
    pool["spec"]["health"] = {"clearAfter": "10m", "rules": [
        {"match": {"check": "pcie-replay"}, "severity": "Ignore"},
        {"match": {"code": "xid-94"}, "severity": "Ignore"},
        {"match": {"code": "xid-79"}, "count": 3, "window": "24h", "severity": "Degraded"},
    ]}  # fmt: skip
    assert "health.rules[2]: Degraded, 3 within 24h" in hall.says("explain", "gpu-0017")


def test_a_person_s_hold_is_the_person_s(hall: Desk) -> None:
    broken(hall, hold={"reason": "new fan", "by": "anna", "at": "2026-11-24T15:02:07Z"})
    said = hall.says("explain", "node/gpu-0017")
    assert "anna, 2026-11-24T15:02:07Z: new fan" in said
    assert "somebody releases it: tramontane release gpu-0017" in said


def test_a_healthy_blade_blocks_nothing(hall: Desk) -> None:
    hall.blade("gpu-0018")
    said = hall.says("explain", "gpu-0018")
    assert "nothing; it is free" in said
    assert "Ends when" not in said


def test_a_job_that_waits_leads_to_why(hall: Desk) -> None:
    raw = example("trainingjob")
    status = {"phase": "Queued", "reason": "WaitingForCapacity", "message": "Gang ml/big: needs 2"}
    hall.put("trainingjobs", "big", kind="TrainingJob", spec=raw["spec"], status=status)
    said = hall.says("explain", "big")
    assert "Message:     needs 2" in said
    assert "too few of them are free" in said
    assert "tramontane why tj/ml/big" in said
    assert json.loads(hall.says("explain", "tj/big", "-o", "json"))["reason"]["wayOut"]


def test_a_deployment_a_gang_and_a_pool(hall: Desk) -> None:
    raw = example("inferencedeployment")
    hall.put("inferencedeployments", "claims", spec=raw["spec"], status=raw["status"])
    said = hall.says("explain", "inf/claims")
    for part in ("SLOBreached", "rank 1 ended with exit code 137", "scale 2 to 3", "TP8"):
        assert part in said
    gang = example("gang")
    hall.put("gangs", "ours", spec=gang["spec"], status={"phase": "Pending", "position": 2})
    assert "Pending, position 2" in hall.says("explain", "gang/ours")
    assert "TrainingJob" not in hall.says("explain", "np/paris-a")
    assert "2 gangs waiting in this pool" in hall.says("explain", "np/paris-a")


def test_for_programs_status_and_meanings(hall: Desk) -> None:
    broken(hall)
    whole = json.loads(hall.says("explain", "blade/gpu-0017", "-o", "json"))
    assert whole["object"] == "blade/gpu-0017"
    assert whole["reason"]["word"] == "HardwareFault"
    assert [one["code"] for one in whole["faults"]] == ["xid-79"]
    assert whole["usedBy"]["gangs"] == ["ml/llama"]
    assert whole["waiting"] == ["gang/ml/big"]


def test_an_object_that_is_not_there(hall: Desk) -> None:
    hall.blade("gpu-0017")
    assert 'did you mean "gpu-0017"?' in hall.refuses("explain", "blade/gpu-017")


def test_where_no_cluster_answers_that_is_said_of_a_name(tmp_path: Path, desk: Desk) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(desk.kubeconfig.read_text().replace(desk.server.url, "http://127.0.0.1:9"))
    said = desk.refuses("explain", "gpu-0001", "--kubeconfig", str(nowhere))
    assert "http://127.0.0.1:9 must answer" in said
    assert "gpu-0001: must be a reason" in said


@pytest.mark.parametrize("state", ["Lost", "Unknown"])
def test_what_comes_back_by_itself_needs_no_release(hall: Desk, state: str) -> None:
    hall.blade("gpu-0001", state, reason="NodeNotReady", message="the Node is not Ready")
    said = hall.says("explain", "blade/gpu-0001")
    assert "its Node is Ready and its agent reports; a release does not end it" in said
    assert "tramontane release" not in said


def test_a_table_in_a_check_s_story_is_left_out() -> None:
    said = says("nvlink-down")
    assert "| " not in said
    assert "How many links there must be is the pool's to say" in said


def test_the_manual_s_page_is_found_beside_the_source() -> None:
    assert (Path(meanings.__file__).parents[3] / "docs" / "reasons.md").exists()
