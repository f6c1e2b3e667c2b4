"""A blade's timeline: each thing once, when it happened, and as its jobs' timelines have it."""

import json
from typing import Any

import click
import pytest

from tramontane.api.blade import Blade
from tramontane.cli import happenings, timelineblade
from unit.cli.desk import BLADES, Desk

Raw = dict[str, Any]

GPU_LOST = "GPU 3: gpu-lost (Fatal, Reboot): NVML: GPU is lost"
XID = "GPU 3: xid-79 (Fatal, Reboot): fallen off the bus"
FAULT: Raw = {
    "at": "2026-11-24T15:02:07Z", "code": "gpu-lost", "gpu": 3, "from": "Healthy",
    "to": "Quarantined", "jobs": ["ml/llama"], "detectedAfter": "0s",
}  # fmt: skip
RELEASE: Raw = {"reason": "new GPU", "by": "anna", "at": "2026-11-24T15:02:40Z"}
BACK: Raw = {"state": "Healthy", "stateSince": "2026-11-24T15:02:40Z"}


def blade(spec: Raw | None = None, **status: Any) -> Blade:
    meta = {"name": "gpu-0004", "creationTimestamp": "2026-11-24T15:00:00Z"}
    whole = {"pool": "paris-a", **(spec or {})}
    return Blade.model_validate({"metadata": meta, "spec": whole, "status": status})


def event(at: str, note: str, reason: str = "HardwareFault", **more: Any) -> Raw:
    """An Event of the operator, at a time of the same hour."""
    whole = {"metadata": {}, "reason": reason, "eventTime": f"2026-11-24T15:{at}Z", "note": note}
    return {"type": "Normal" if reason == "Healthy" else "Warning", **whole, **more}


EVENTS = (
    event("00:00.900000", "Unknown to Healthy", "Healthy"),
    event("02:07.240000", f"Healthy to Quarantined: {GPU_LOST}; {XID}"),
    event("02:07.320000", f"Quarantined to Draining: {GPU_LOST}; {XID}; until ml/llama has left"),
    event("02:07.840000", f"Draining to Repairing: {GPU_LOST}; {XID}; waits for a person"),
    event("02:40.310000", "Repairing to Healthy", "Healthy"),
)


def told(one: Blade, *events: Raw) -> list[happenings.Happening]:
    own, more = timelineblade.of_blade(one), timelineblade.of_events(events)
    return happenings.in_order([*own, *more])


def shown(one: Blade, *events: Raw) -> list[str]:
    """The lines without the heading and without times."""
    return [click.unstyle(line)[23:] for line in happenings.lines(told(one, *events))[1:]]


def test_a_fault_and_its_repair_are_told_once_and_in_order() -> None:
    one = blade(
        {"release": RELEASE}, incidents=[FAULT | {"outcome": "released by anna: new GPU"}], **BACK
    )
    fault = f"gpu-lost GPU 3: Healthy → Quarantined, reported within 1s, with ml/llama: {GPU_LOST}"
    assert [click.unstyle(line) for line in happenings.lines(told(one, *EVENTS))] == [
        "2026-11-24",
        "  15:00:00Z            known, in pool paris-a",
        "  15:00:00Z     +0.9s  Unknown → Healthy",
        f"  15:02:07Z    +2m06s  {fault}; {XID}",
        "  15:02:07Z     +0.1s  Quarantined → Draining, HardwareFault: until ml/llama has left",
        "  15:02:07Z     +0.5s  Draining → Repairing, HardwareFault: waits for a person",
        "  15:02:40Z      +32s  released by anna: new GPU",
        "  15:02:40Z     +0.3s  Repairing → Healthy",
    ]


def test_it_is_the_same_story_after_an_hour_when_its_events_are_gone() -> None:
    message = f"{GPU_LOST}; {XID}; waits for a person"
    since = FAULT["at"]
    sick = blade(
        incidents=[FAULT], state="Repairing", stateSince=since, reason="HardwareFault",
        message=message,
    )  # fmt: skip
    assert shown(sick) == [
        "known, in pool paris-a",
        "gpu-lost GPU 3: Healthy → Quarantined, reported within 1s, with ml/llama",
        f"Repairing, HardwareFault: {message}",
    ]
    well = blade({"release": RELEASE}, **BACK)
    assert shown(well)[1:] == ["released by anna: new GPU", "Healthy"]


def test_the_present_state_is_told_by_the_incident_that_brought_it() -> None:
    one = blade(
        incidents=[FAULT], state="Quarantined", stateSince=FAULT["at"], reason="HardwareFault",
        message=GPU_LOST,
    )  # fmt: skip
    assert shown(one)[1:] == [
        f"gpu-lost GPU 3: Healthy → Quarantined, reported within 1s, with ml/llama: {GPU_LOST}"
    ]
    assert told(one)[-1].reason == "HardwareFault"


@pytest.mark.parametrize(
    ("after", "words"),
    [
        pytest.param("0s", "reported within 1s, with", id="both times in one second"),
        pytest.param("800ms", "reported within 1s, with", id="less than a second"),
        pytest.param("3s", "reported after 3s, with", id="seconds"),
        pytest.param("5m2s", "reported after 5m02s, with", id="minutes"),
        pytest.param(None, "Quarantined, with", id="not known"),
    ],
)
def test_a_report_is_timed_as_exactly_as_it_is_known(after: str | None, words: str) -> None:
    (_, line) = shown(blade(incidents=[FAULT | {"detectedAfter": after}]))
    assert words in line


HOLD = {"reason": "new fan", "by": "anna", "at": "2026-11-24T15:02:07Z"}
HELD = {"at": "2026-11-24T15:02:07Z", "from": "Healthy", "to": "Quarantined"}
NEXT = {"reason": "another", "by": "ben", "at": "2026-11-24T15:30:00Z"}


@pytest.mark.parametrize(
    ("spec", "incident", "end"),
    [
        pytest.param(
            {"release": RELEASE}, FAULT | {"outcome": "released by anna: new GPU"},
            ["released by anna: new GPU"], id="by the release that the spec has",
        ),
        pytest.param(
            {"release": NEXT}, FAULT | {"outcome": "released by anna: new GPU"},
            ["later released by anna: new GPU", "released by ben: another"],
            id="by an earlier release",
        ),
        pytest.param(
            {}, FAULT | {"outcome": "reboot x2, back in 14m"},
            ["gpu-lost GPU 3 over: reboot x2, back in 14m"], id="after a time that it says",
        ),
        pytest.param(
            {}, FAULT | {"outcome": "clean for 10m"}, ["later clean for 10m"],
            id="nobody knows when",
        ),
        pytest.param(
            {"release": RELEASE | {"reason": "it is back in 5m"}},
            FAULT | {"outcome": "released by anna: it is back in 5m"},
            ["released by anna: it is back in 5m"], id="a person's words are no time",
        ),
        pytest.param(
            {"hold": HOLD, "release": RELEASE}, HELD | {"outcome": "hold ended"},
            ["released by anna: new GPU"], id="a hold, by its release",
        ),
        pytest.param(
            {"hold": NEXT, "release": NEXT}, HELD | {"outcome": "hold ended"},
            ["later hold ended", "held by ben: another", "released by ben: another"],
            id="an earlier hold",
        ),
    ],
)  # fmt: skip
def test_an_end_is_told_when_it_came_or_is_marked_as_later(
    spec: Raw, incident: Raw, end: list[str]
) -> None:
    lines = shown(blade(spec, incidents=[incident]))
    begun = next(i for i, line in enumerate(lines) if "Healthy → Quarantined" in line)
    marked = end[0].startswith("later ")
    assert lines[begun].endswith(f", {end[0]}") is marked
    assert ("later" in lines[begun]) is marked
    assert lines[begun + 1 :] == end[marked:]


def test_an_end_stands_at_its_own_time() -> None:
    one = blade(incidents=[FAULT | {"outcome": "reboot, back in 14m2.5s"}])
    began, over = told(one)[1:]
    assert over.at - began.at == 842.5


@pytest.mark.parametrize(
    ("reason", "note", "line"),
    [
        pytest.param("Healthy", "New to Healthy", "new → Healthy", id="the first state"),
        pytest.param(
            "HeldByPerson", "Healthy to Quarantined: held by anna: new fan",
            "Healthy → Quarantined, HeldByPerson: held by anna: new fan", id="why",
        ),
        pytest.param(
            "HardwareFault", "Quarantined to Quarantined: worse",
            "HardwareFault: Quarantined to Quarantined: worse", id="the same state",
        ),
        pytest.param("Odd", "Up to Down", "Odd: Up to Down", id="no states"),
        pytest.param("PodEvicted", "ml/x: drain", "PodEvicted: ml/x: drain", id="no change"),
    ],
)  # fmt: skip
def test_events_about_changes_speak_as_incidents_do(reason: str, note: str, line: str) -> None:
    assert shown(blade(), event("05:00.5", note, reason))[-1] == line


def test_two_changes_to_one_state_are_two() -> None:
    flaps = [
        event("02:00.100000", "Unknown to Healthy", "Healthy"),
        event("02:20.500000", "Healthy to Unknown", "AgentSilent"),
        event("02:40.600000", "Unknown to Healthy", "Healthy"),
    ]
    lines = shown(blade(**BACK), *flaps)[1:]
    assert lines == ["Unknown → Healthy", "Healthy → Unknown, AgentSilent", "Unknown → Healthy"]


def test_an_event_that_was_written_late_moves_nothing() -> None:
    late = event("02:10.500000", "Repairing to Quarantined: worse")
    assert told(blade(incidents=[FAULT]), late)[-1].at == told(blade(incidents=[FAULT]))[-1].at


def test_a_hold_says_once_who_holds_the_blade() -> None:
    held = event("02:07.500000", "Healthy to Quarantined: held by anna: new fan", "HeldByPerson")
    lines = shown(blade({"hold": HOLD}, incidents=[HELD]), held)[1:]
    assert lines == ["held by anna: new fan", "hold: Healthy → Quarantined"]


def test_what_another_line_said_is_said_again_if_it_is_not_the_one_before() -> None:
    again = FAULT | {"at": "2026-11-24T15:20:00Z"}
    more = event("20:00.100000", f"Healthy to Quarantined: {GPU_LOST}; {XID}")
    assert GPU_LOST in shown(blade(incidents=[FAULT, again], **BACK), *EVENTS, more)[-1]


def test_from_the_command_line(desk: Desk) -> None:
    raw = blade(incidents=[FAULT]).model_dump(by_alias=True, exclude_none=True, mode="json")
    about = desk.server.put(BLADES, "gpu-0004", kind="Blade", **{
        key: raw[key] for key in ("metadata", "spec", "status")
    })  # fmt: skip
    note = f"Healthy to Quarantined: {GPU_LOST}"
    at = "2026-11-24T15:02:07.240000Z"
    desk.event(about, "HardwareFault", note, at, type="Warning")
    whole = json.loads(desk.says("timeline", "blade/gpu-0004", "-o", "json"))["happened"]
    assert whole[-1] == {
        "at": at,
        "what": "gpu-lost GPU 3: Healthy → Quarantined, reported within 1s, with ml/llama: "
        + GPU_LOST,
        "source": "status", "reason": "HardwareFault", "bad": True,
    }  # fmt: skip
