"""A blade's life while operator, agent and machine die at any moment: it ends as it would have.

Six things are drawn for each step of the script, from the seed:

| what              | when                                                                      |
|-------------------|---------------------------------------------------------------------------|
| operator replaced | between two steps                                                         |
| operator dies     | within the step, after it wrote what pod must be and before it made it    |
| agent restarts    | before the step: silent for longer than unknownAfter                      |
| agent is silent   | before the step: for longer than clearAfter                               |
| kubelet is away   | before the step: Node not Ready for longer than clearAfter, the boot stays|
| machine reboots   | before the step: Node not Ready, its pods dead, then a report of a new boot|

Without a reboot the record is that of an undisturbed life, with the same tests passed since the
fault, and no soak that had a silence in it. With one the way differs, for a reboot
is a repair and ends what runs; then the end is the same, and on the way nothing is done twice.
"""

import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tramontane.api.clock import parse
from tramontane.kube.resources import PODS
from unit.nodepool.hall import SYSTEM, Hall
from unit.nodepool.steps import (
    BLADE,
    CLEAR_AFTER_S,
    QUALIFICATION,
    REPAIR,
    clean,
    finish,
    message,
    pool,
    sick,
    wait,
)

SEEDS = 50
SOAK_S = 60.0
JOB = "ml/llama-0"
REPAIRS = ("reset", "reboot")


@dataclass
class Life:
    """One blade with all that happens to it."""

    hall: Hall = field(default_factory=Hall)
    attempts: int = 2
    boots: int = 1
    reboots: int = 0
    heard_again: list[float] = field(default_factory=list)

    @property
    def boot(self) -> str:
        return f"boot-{self.boots}"

    async def begin(self) -> None:
        await self.hall.__aenter__()
        remediation = {"maxUnavailable": 2, "attempts": self.attempts, **REPAIR}
        pool(self.hall, qualification=QUALIFICATION, remediation=remediation)
        self.hall.node(BLADE)
        await self.hall.settle()

    # What goes wrong

    async def replace_operator(self) -> None:
        await self.hall.__aexit__(None, None, None)
        self.hall = Hall(self.hall.api, self.hall.now)
        await self.hall.__aenter__()
        await self.hall.advance(0.0)

    async def be_silent(self, seconds: float) -> None:
        """Have no agent; back, it finds what it reported last, and only its pulse is new."""
        if "report" not in self.hall.blade(BLADE).get("status", {}):
            return
        for _ in range(0, int(seconds), 50):
            await self.hall.advance(50.0)
        self.heard_again.append(self.hall.now)
        self.hall.beat(BLADE)
        await self.hall.settle()

    async def lose_kubelet(self) -> None:
        """Have the node not Ready, and nothing else happen to it."""
        self.hall.readiness(BLADE, "False")
        await self.hall.settle()
        await self.be_silent(CLEAR_AFTER_S + 100.0)
        self.hall.readiness(BLADE, "True")
        await self.hall.settle()

    async def reboot(self) -> None:
        """End all that runs there; XIDs are of the boot that is over."""
        if "report" not in self.hall.blade(BLADE).get("status", {}):
            return
        self.reboots += 1
        self.boots += 1
        self.hall.readiness(BLADE, "False")
        self.hall.api.drop(PODS, JOB)
        for pod in self.hall.works():
            if "status" not in self.hall.api.objects[PODS][f"{SYSTEM}/{pod}"]:
                self.hall.finish(pod, 137)
        await self.hall.settle()
        await self.hall.advance(120.0)
        self.hall.readiness(BLADE, "True")
        await clean(self.hall, boot=self.boot)

    # What happens anyway

    async def end(self, kind: str) -> None:
        """Let the pod of a kind end well, if it is there: a reboot may have come before it."""
        if any(pod.startswith(kind) for pod in self.hall.works()):
            await finish(self.hall, kind)

    async def repaired_by_reboot(self) -> None:
        """Let the agent's first report of the new boot still have the fault, the next not."""
        self.boots += 1
        await sick(self.hall, boot=self.boot)
        await clean(self.hall, boot=self.boot)

    async def job_comes(self) -> None:
        if self.hall.state(BLADE) == "Healthy":
            self.hall.guest("llama-0", BLADE)
        await self.hall.settle()

    async def job_leaves(self) -> None:
        self.hall.api.drop(PODS, JOB)
        await self.hall.settle()

    async def bring_to_its_end(self) -> None:
        """Let what was put off (after a silence tests begin anew) come to its end, undisturbed."""
        await clean(self.hall, boot=self.boot)
        for _ in range(100):
            if self.hall.state(BLADE) == "Healthy" and self.hall.severity(BLADE) == "None":
                return
            for pod in self.hall.works():
                if pod.startswith("reboot"):
                    self.boots += 1
                    await clean(self.hall, boot=self.boot)
                elif "status" not in self.hall.api.objects[PODS][f"{SYSTEM}/{pod}"]:
                    self.hall.finish(pod)
            await wait(self.hall, 61)
        raise AssertionError(f"no end: {self.hall.state(BLADE)}: {message(self.hall)}")

    # What must hold

    def check(self) -> None:
        works, pods = self.hall.works(), self.hall.api.objects[PODS]
        assert len(works) <= 1, works
        if JOB in pods:
            assert not [pod for pod in works if pod.startswith(REPAIRS)], "a repair under a job"
        tainted = self.hall.taints(BLADE).get("tramontane.dev/blade", "Healthy")
        assert self.hall.dead or tainted == self.hall.state(BLADE)
        made = Counter(name for verb, what, name in self.hall.api.writes
                       if (verb, what) == ("create", "pods"))  # fmt: skip
        twice = {name for name, count in made.items() if count > 1}
        assert not twice, "a pod was made twice"
        soaked = [parse(one["at"]) for one in self.results() if one["step"] == "soak"]
        for again in self.heard_again:
            assert not [at for at in soaked if again <= at < again + SOAK_S], "silence is not clean"

    def results(self) -> list[Any]:
        asked = self.hall.blade(BLADE).get("status", {}).get("qualification") or {}
        return list(asked.get("results", ()))

    def record(self) -> tuple[Any, ...]:
        status = self.hall.blade(BLADE)["status"]
        faults = [one for one in status["incidents"] if one["code"] != "node-lost"]
        since = max(one["at"] for one in faults)
        results = [(one["step"], one["passed"]) for one in self.results() if one["at"] > since]
        ends = [
            (one["code"], one.get("to"), re.sub(r"back in .*", "back", one.get("outcome", "open")))
            for one in faults
        ]
        return status["state"], results, ends, self.hall.works(), self.hall.taints(BLADE)


Act = Callable[[Life], Awaitable[None]]
SCRIPT: list[tuple[str, Act]] = [
    ("report", lambda life: clean(life.hall, boot=life.boot)),
    ("soak", lambda life: wait(life.hall, 61)),
    ("burn-in passes", lambda life: life.end("burnin")),
    ("job", Life.job_comes),
    ("fault", lambda life: sick(life.hall, boot=life.boot)),
    ("job leaves", Life.job_leaves),
    ("reset", lambda life: life.end("reset")),
    ("still sick", lambda life: sick(life.hall, boot=life.boot)),
    ("agent looks", lambda life: wait(life.hall, 31)),
    ("reboot", Life.repaired_by_reboot),
    ("clears", lambda life: wait(life.hall, CLEAR_AFTER_S + 60)),
    ("soak again", lambda life: wait(life.hall, 61)),
    ("burn-in passes again", lambda life: life.end("burnin")),
]


async def play(drawn: dict[str, set[int]]) -> Life:
    """Play the script, with what was drawn going wrong at those steps; return the life after."""
    life = Life(attempts=9 if drawn["reboot"] else 2)  # each reboot that did not help is one
    await life.begin()
    try:
        for number, (_, act) in enumerate(SCRIPT):
            if number in drawn["replaced"]:
                await life.replace_operator()
            if number in drawn["agent"]:
                await life.be_silent(100.0)
                life.check()
            if number in drawn["silent"]:
                await life.be_silent(CLEAR_AFTER_S + 100.0)
                life.check()
            if number in drawn["kubelet"]:
                await life.lose_kubelet()
                life.check()
            if number in drawn["reboot"]:
                await life.reboot()
                life.check()
            if number in drawn["dies"]:
                life.hall.die_before_a_pod()
            await act(life)
            if number in drawn["dies"]:
                await life.replace_operator()
            life.check()
        await life.bring_to_its_end()
        life.check()
    finally:
        await life.hall.__aexit__(None, None, None)
    return life


def draw(seed: int, *, reboots: bool) -> dict[str, set[int]]:
    chance = random.Random(seed)
    odds = ODDS | {"reboot": ODDS["reboot"] if reboots else 0.0}
    return {
        what: {step for step in range(len(SCRIPT)) if chance.random() < odd}
        for what, odd in odds.items()
    }


ODDS = {"replaced": 0.3, "dies": 0.5, "agent": 0.3, "silent": 0.1, "kubelet": 0.1, "reboot": 0.15}
NOTHING: dict[str, set[int]] = {what: set() for what in ODDS}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whoever_dies_the_record_is_the_same(seed: int) -> None:
    undisturbed = (await play(NOTHING)).record()
    assert undisturbed[0] == "Healthy"
    assert undisturbed[1] == [("soak", True), ("burnIn", True)]
    drawn = draw(seed, reboots=False)
    assert (await play(drawn)).record() == undisturbed, drawn


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_with_reboots_at_any_step_it_still_works_in_the_end(seed: int) -> None:
    drawn = draw(seed, reboots=True)
    drawn["reboot"] = drawn["reboot"] or {seed % (len(SCRIPT) - 1) + 1}
    life = await play(drawn)
    status = life.hall.blade(BLADE)["status"]
    assert (status["state"], status["verdict"]["severity"]) == ("Healthy", "None"), drawn
    assert "repair" not in status, drawn
    assert all(one.get("outcome") for one in status.get("incidents", ())), drawn
    results = status["qualification"]["results"]
    assert results[-1]["step"] == "burnIn", drawn
    assert results[-1]["passed"], drawn
    assert (life.hall.works(), life.hall.taints(BLADE)) == ([], {}), drawn


async def test_the_operator_does_die_between_the_two_writes() -> None:
    """Say that the harness does what the seeds rely upon."""
    life = Life()
    await life.begin()
    await clean(life.hall)
    life.hall.die_before_a_pod()
    await wait(life.hall, 61)
    assert life.hall.dead
    assert life.hall.blade(BLADE)["status"]["qualification"]["step"] == "burnIn"
    assert life.hall.works() == []
    await life.replace_operator()
    assert len(life.hall.works()) == 1
    await life.hall.__aexit__(None, None, None)
