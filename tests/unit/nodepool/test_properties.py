"""What holds after any sequence of events, with caches that lag and operators that are replaced.

1. No more blades are quarantined for faults than the pool allows.
2. A blade takes work only with a report of its Node's present life in which nothing is wrong, a
   recent heartbeat and a Ready Node.
3. Taints and cordons of others are as the others left them.
4. Our taint is there exactly while the blade is not Healthy, and says its state.
5. The running counts of the pool are what counting anew would give.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tramontane.api.clock import utc
from tramontane.api.names import TAINT_BLADE
from tramontane.kube.resources import BLADES, NODES
from unit.nodepool.hall import Hall, fault

BLADE_NAMES = tuple(f"gpu-{i}" for i in range(5))
BUDGET = 2
UNKNOWN_AFTER_S = 90.0

blades = st.sampled_from(BLADE_NAMES)
steps = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                "clean",
                "fatal",
                "degraded",
                "beat",
                "not ready",
                "ready",
                "delete node",
                "make node anew",
                "delete blade",
                "cordon",
                "uncordon",
                "taint",
                "untaint",
                "hold",
                "unhold",
                "release",
                "leave",
                "return",
            ]
        ),
        blades,
    ),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 100.0, 700.0])),
    st.tuples(st.sampled_from(["lag", "catch up", "replace operator"]), st.just("")),
)


@dataclass
class Truth:
    """What the world outside knows."""

    clean: set[str] = field(default_factory=set)
    beat_at: dict[str, float] = field(default_factory=dict)
    foreign: dict[str, set[str]] = field(default_factory=dict)
    cordoned: set[str] = field(default_factory=set)


class World:
    def __init__(self) -> None:
        self.hall = Hall()
        self.truth = Truth()

    async def run(self, script: list[tuple[str, Any]]) -> None:
        await self.hall.__aenter__()
        try:
            self.hall.pool(remediation={"maxUnavailable": BUDGET}, health={"unknownAfter": "90s"})
            for name in BLADE_NAMES:
                self.hall.node(name)
            await self.hall.settle()
            for name in BLADE_NAMES[:3]:
                await self.step("clean", name)
            for step, subject in script:
                await self.step(step, subject)
                await self.hall.settle()
                self.check_always()
                if not self.hall.api.lagging:
                    await self.hall.advance(0.0)
                    self.check_settled()
        finally:
            await self.hall.__aexit__(None, None, None)

    async def step(self, step: str, subject: Any) -> None:  # noqa: C901, PLR0912 - one case each
        hall, truth = self.hall, self.truth
        nodes, made = hall.api.objects[NODES], hall.api.objects[BLADES]
        match step:
            case "wait":
                await hall.advance(subject)
            case "lag":
                hall.api.lagging = {NODES, BLADES}
            case "catch up":
                hall.api.deliver()
            case "replace operator":
                hall.api.deliver()
                await hall.__aexit__(None, None, None)
                self.hall = Hall(hall.api, hall.now)
                await self.hall.__aenter__()
            case "make node anew" | "delete node" if subject in nodes:
                hall.api.drop(NODES, subject)
                truth.clean.discard(subject)
                truth.foreign.pop(subject, None)
                truth.cordoned.discard(subject)
                if step == "make node anew":
                    hall.node(subject, boot=f"boot-{hall.now}")
            case "make node anew":
                hall.node(subject, boot=f"boot-{hall.now}")
            case "delete blade" if subject in made:
                hall.api.drop(BLADES, subject)
                truth.clean.discard(subject)
            case "clean" | "fatal" | "degraded" if subject in made:
                faults = [] if step == "clean" else [fault(severity=step.title(), at=hall.now)]
                boot = nodes.get(subject, {}).get("status", {}).get("nodeInfo", {}).get("bootID")
                hall.report(subject, *faults, boot=boot or "boot-1")
                truth.beat_at[subject] = hall.now
                (truth.clean.add if step == "clean" else truth.clean.discard)(subject)
            case "beat":
                hall.beat(subject)
                truth.beat_at[subject] = hall.now
            case "hold" if subject in made:
                hall.spec(subject, hold={"reason": "fan", "by": "anna", "at": utc(hall.now)})
            case "unhold" if subject in made:
                hall.spec(subject, hold=None)
            case "release" if subject in made:
                hall.spec(subject, release={"reason": "ok", "by": "anna", "at": utc(hall.now)})
                truth.clean.add(subject)  # a person's word
            case _ if subject in nodes:
                self.touch_node(step, subject)

    def touch_node(self, step: str, name: str) -> None:
        hall, truth = self.hall, self.truth
        match step:
            case "ready" | "not ready":
                hall.readiness(name, "True" if step == "ready" else "False")
            case "cordon" | "uncordon":
                cordon = step == "cordon"
                hall.change_node(name, lambda raw: raw["spec"].update(unschedulable=cordon))
                (truth.cordoned.add if cordon else truth.cordoned.discard)(name)
            case "taint":
                theirs = {
                    "key": f"theirs-{len(truth.foreign.get(name, ()))}",
                    "effect": "NoExecute",
                }
                hall.change_node(
                    name,
                    lambda raw: raw["spec"].update(
                        taints=[theirs, *(raw["spec"].get("taints") or ())]
                    ),
                )
                truth.foreign.setdefault(name, set()).add(theirs["key"])
            case "untaint":
                hall.change_node(
                    name,
                    lambda raw: raw["spec"].update(
                        taints=[
                            one
                            for one in raw["spec"].get("taints") or ()
                            if one["key"] == TAINT_BLADE
                        ]
                    ),
                )
                truth.foreign.pop(name, None)
            case "leave":
                hall.change_node(name, lambda raw: raw["metadata"]["labels"].update(gpu="b300"))
            case "return":
                hall.change_node(name, lambda raw: raw["metadata"]["labels"].update(gpu="h200"))

    def check_always(self) -> None:
        """Properties 1 and 3."""
        hall = self.hall
        made = hall.api.objects[BLADES]
        by_fault = [
            name
            for name, raw in made.items()
            if (raw.get("status") or {}).get("state") == "Quarantined"
            and raw["status"].get("reason") != "HeldByPerson"
        ]
        assert len(by_fault) <= BUDGET, by_fault
        for name, raw in hall.api.objects[NODES].items():
            foreign = set(hall.taints(name)) - {TAINT_BLADE}
            assert foreign == self.truth.foreign.get(name, set())
            assert bool(raw["spec"].get("unschedulable")) == (name in self.truth.cordoned)

    def check_settled(self) -> None:
        """Properties 2, 4 and 5."""
        hall = self.hall
        states = Counter(raw["status"]["state"] for raw in hall.api.objects[BLADES].values())
        assert +hall.controller._tally.of("paris").states == states
        for name, raw in hall.api.objects[BLADES].items():
            if name not in hall.api.objects[NODES]:
                continue
            state = raw["status"]["state"]
            expected = {} if state == "Healthy" else {TAINT_BLADE: state}
            ours = {k: v for k, v in hall.taints(name).items() if k == TAINT_BLADE}
            assert ours == expected, (name, state, raw["status"])
            if raw["status"]["conditions"][0]["status"] == "True":
                assert name in self.truth.clean, (name, raw["status"])
                age_s = hall.now - self.truth.beat_at[name]
                assert age_s < UNKNOWN_AFTER_S
                ready = hall.api.objects[NODES][name]["status"]["conditions"][0]
                assert ready["status"] == "True"


@given(st.lists(steps, max_size=40))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
async def test_any_sequence_of_events(script: list[tuple[str, Any]]) -> None:
    await World().run(script)
