"""Bind the pods of foreign gangs where the engine put them, and say of others why they wait.

    1. every pod of a plan counts as bound before the first request is sent, so that the next pass
       gives its room to nobody
    2. the pods are bound side by side, while passes go on; some of the client's lanes stay free
       for the statuses of gangs
    3. what was not answered is looked up; what was refused is tried again on the same node a few
       times, then its seat counts as lost, and the next pass finds another one: its gang avoids
       the node for a while, or a node that refuses everything would be asked again for ever
    4. nothing is ever unbound: a binding cannot be taken back

A pod that waits costs no write as long as its gang starts at once. Else the first pod of the gang
gets the reason, as a condition and as an Event, once per reason.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.names import MANAGER_SCHEDULER
from tramontane.api.reasons import PendingReason
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Conflict, NotFound, Unreachable
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import PODS
from tramontane.scheduler import metrics
from tramontane.scheduler.foreign.gangs import ForeignGang
from tramontane.scheduler.foreign.member import UNSCHEDULABLE, Member, decode_member, is_foreign
from tramontane.scheduler.foreign.roster import Roster
from tramontane.scheduler.gangs import PLACED, GangRecord
from tramontane.scheduler.outcome import Outcome
from tramontane.scheduler.records import FINISHED

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 24
TRIES: Final = 4
FIRST_RETRY_S: Final = 0.5
# For so long a gang does not take a node that refused one of its pods.
AVOID_S: Final = 60.0
# That is, answers about this binding, and not about an API server that fails or is busy.
REFUSED_AS: Final = frozenset({400, 403, 422})
# A pod that we bound and that no watch has shown since is looked up.
UNSEEN_S: Final = 30.0
# For so long a gang may lack pods before that is said: they are being created, as a rule.
PATIENCE_S: Final = 30.0
# Reasons change while many gangs arrive; what is over in a moment is not worth a write.
SETTLE_S: Final = 1.0
MOST_NOTES: Final = 100
NOTES_EVERY_S: Final = 5.0
MOST_MESSAGE: Final = 1024


class Binder:
    """Carry out what was decided about foreign gangs; it writes bindings, conditions and Events.

    `changed` is called where a seat was lost, so that a pass must follow.
    """

    def __init__(
        self,
        client: Client,
        roster: Roster,
        events: EventRecorder,
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._roster = roster
        self._events = events
        self._changed = changed
        self._lanes = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_up: set[str] = set()
        self._said: dict[str, str] = {}
        self._since: dict[str, tuple[str, float]] = {}
        self._refused: dict[tuple[str, str], float] = {}

    def records(self, gangs: Mapping[str, ForeignGang], now_s: float) -> dict[str, GangRecord]:
        """Return the gangs that a pass may place, avoiding the nodes that refused them lately."""
        self._refused = {
            refused: at_s for refused, at_s in self._refused.items() if now_s < at_s + AVOID_S
        }
        records = {key: one.record for key, one in gangs.items() if not one.lacking}
        if not self._refused:
            return records
        nodes: dict[str, set[str]] = {}
        for uid, node in self._refused:
            nodes.setdefault(uid, set()).add(node)
        for key, record in records.items():
            if avoid := {node for pod in gangs[key].pods for node in nodes.get(pod.uid, ())}:
                records[key] = replace(record, avoid=record.avoid | avoid)
        return records

    def carry_out(
        self, gangs: Mapping[str, ForeignGang], outcomes: Mapping[str, Outcome], now_s: float
    ) -> float | None:
        """Begin to do what was decided; return in how many seconds more is to be said, or None."""
        for key, gang in gangs.items():
            outcome = outcomes.get(key)
            if outcome is not None and outcome.phase == PLACED and outcome.placement is not None:
                self._bind_gang(gang, outcome.placement.seats, now_s)
        for assumed in list(self._roster.assumed.values()):
            member = assumed.member
            if now_s - assumed.since_s > UNSEEN_S and member.uid not in self._looked_up:
                self._looked_up.add(member.uid)
                self._start(self._look_up(member, now_s))
        metrics.ASSUMED.set(len(self._roster.assumed))
        return self._say(gangs, outcomes, now_s)

    async def finish(self) -> None:
        """Return when everything begun is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def _bind_gang(self, gang: ForeignGang, seats: tuple[str, ...], now_s: float) -> None:
        """Bind what the plan moved from no blade to one."""
        before = gang.record.placement
        fresh = [
            (member, node)
            for i, (member, node) in enumerate(zip(gang.pods, seats, strict=False))
            if not member.node and (before is None or node != before.seats[i])
        ]
        if not fresh:
            return
        if before is None:
            metrics.PLACED.inc()
            waited_s = max(0.0, now_s - gang.record.created_s)
            reason = self._said.get(fresh[0][0].uid, fresh[0][0].said)
            metrics.WAIT_SECONDS.labels(reason).observe(waited_s)
        log.info("gang bound gang=%s pods=%d of=%d", gang.record.key, len(fresh), len(seats))
        for member, node in fresh:
            self._roster.assume(member, node, now_s)
            self._said.pop(member.uid, None)
            self._start(self._bind(member, node, now_s))

    async def _bind(self, member: Member, node: str, now_s: float) -> None:
        """Bind one pod, or let its seat be lost."""
        namespace = member.key.partition("/")[0]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": member.name, "namespace": namespace, "uid": member.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        for failures in range(TRIES):
            try:
                async with self._lanes:
                    await self._client.create(
                        PODS, body, namespace, name=member.name, subresource="binding"
                    )
            except NotFound:
                metrics.BINDINGS.labels("gone").inc()
                self._roster.forget(member)
                return
            except Conflict:
                # Bound already, by a request without an answer or by somebody else; or a new pod.
                metrics.BINDINGS.labels("refused").inc()
                await self._look_up(member, now_s)
                return
            except (ApiError, Unreachable) as error:
                unanswered = isinstance(error, Unreachable)
                metrics.BINDINGS.labels("unanswered" if unanswered else "refused").inc()
                log.warning("binding failed pod=%s node=%s error=%r", member.key, node, str(error))
                if isinstance(error, ApiError) and error.status in REFUSED_AS:
                    self._refused[member.uid, node] = now_s
                await asyncio.sleep(FIRST_RETRY_S * 2**failures)
            else:
                self._refused.pop((member.uid, node), None)
                metrics.BINDINGS.labels("ok").inc()
                return
        await self._look_up(member, now_s)

    async def _look_up(self, member: Member, now_s: float) -> None:
        """Learn from the API server where a pod is.

        Where it does not answer, the pod counts as bound until it does.
        """
        namespace = member.key.partition("/")[0]
        try:
            raw = await self._client.get(PODS, member.name, namespace)
        except NotFound:
            raw = {}
        except (ApiError, Unreachable) as error:
            log.warning("looking up a pod failed pod=%s error=%r", member.key, str(error))
            self._looked_up.discard(member.uid)
            return
        self._looked_up.discard(member.uid)
        there = self._unfinished(raw, member)
        if there is not None and there.node:
            if there.uid == member.uid and self._roster.is_assumed(member):
                self._roster.assume(member, there.node, now_s)
            return
        self._roster.forget(member)
        self._changed()

    @staticmethod
    def _unfinished(raw: dict[str, Any], member: Member) -> Member | None:
        """Return the pod where it still is the one that was bound, and has not ended."""
        if not raw or (raw.get("status") or {}).get("phase") in FINISHED or not is_foreign(raw):
            return None
        found = decode_member(raw)
        return found if found.uid == member.uid else None

    def _say(
        self, gangs: Mapping[str, ForeignGang], outcomes: Mapping[str, Outcome], now_s: float
    ) -> float | None:
        """Begin to say why pods wait, once per reason, and only what stands for a moment."""
        dues: list[float] = []
        begun = 0
        said: dict[str, str] = {}
        since: dict[str, tuple[str, float]] = {}
        for key, gang in gangs.items():
            first = next((pod for pod in gang.pods if not pod.node), None)
            reason, message = _why(gang, outcomes.get(key))
            if first is None or not reason:
                continue
            if self._said.get(first.uid, first.said) == reason:
                said[first.uid] = reason
                continue
            known = self._since.get(first.uid)
            since[first.uid] = known if known and known[0] == reason else (reason, now_s)
            due_s = since[first.uid][1] + SETTLE_S
            if gang.lacking:
                due_s = max(pod.created_s for pod in gang.pods) + PATIENCE_S
            if due_s <= now_s and begun == MOST_NOTES:
                due_s = now_s + NOTES_EVERY_S
            if due_s > now_s:
                dues.append(due_s)
                continue
            begun += 1
            said[first.uid] = reason
            self._start(self._note(first, reason, message, now_s))
        self._said, self._since = said, since
        return min(dues) - now_s if dues else None

    async def _note(self, member: Member, reason: str, message: str, now_s: float) -> None:
        """Write why a pod waits on the pod itself, and as an Event."""
        namespace = member.key.partition("/")[0]
        text = f"{reason}: {message}"[:MOST_MESSAGE]
        log.info("pods wait pod=%s reason=%s", member.key, reason)
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": member.name,
            "namespace": namespace,
            "uid": member.uid,
        }
        self._events.record(about, "Warning", reason, message, "Scheduling")
        body = {
            "metadata": {"name": member.name, "namespace": namespace, "uid": member.uid},
            "status": {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": UNSCHEDULABLE,
                        "message": text,
                        "lastTransitionTime": clock.utc(now_s),
                    }
                ]
            },
        }
        try:
            async with self._lanes:
                await self._client.apply(
                    PODS, body, manager=MANAGER_SCHEDULER, subresource="status"
                )
        except (ApiError, Unreachable) as error:
            # The Event says it too, and the next reason is another chance.
            log.warning("condition not written pod=%s error=%r", member.key, str(error))

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why(gang: ForeignGang, outcome: Outcome | None) -> tuple[str, str]:
    """Return the reason why pods of a gang wait, and the message; empty where none does."""
    if gang.lacking:
        return PendingReason.PENDING_EVALUATION, f"Pods {gang.record.key}: {gang.lacking}"
    if outcome is None or not outcome.reason:
        return "", ""
    if outcome.phase == PLACED and gang.record.placement is not None:
        waiting = [pod for pod in gang.pods if not pod.node]
        return outcome.reason, (
            f"Pods {gang.record.key}: {len(waiting)} of {len(gang.pods)} must be bound near the "
            "others (got no blade for them); they are bound as soon as one is free"
        )
    return outcome.reason, outcome.message
