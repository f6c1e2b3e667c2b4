"""Sort a placed gang's seats by what is on them.

| seat | what is there |
|---|---|
| MISSING | no pod |
| GOING | a pod that is being deleted |
| MISPLACED | a pod on another blade than the seat's |
| LEAVING | the same, but it was to move, and works on until a checkpoint has been saved |
| DONE | its rank ended with 0 |
| FAILED | its rank ended otherwise, or the kubelet did not take the pod |
| WAITING | a pod that is not ready |
| READY | a ready pod |
| TAKEN | a pod of that name that somebody else owns |
"""

from dataclasses import dataclass
from enum import Enum, auto

from tramontane.api.gang import Placement
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import IncidentCause, JobPhase, Stragglers, TrainingJob
from tramontane.controllers.trainingjob import gangs
from tramontane.controllers.trainingjob.losses import Loss, closed_to_new, loss_of
from tramontane.controllers.trainingjob.observe import World, done_in, epoch_of, seat_of
from tramontane.controllers.trainingjob.rankagent import EXIT_STUCK
from tramontane.controllers.trainingjob.template import trainer_of
from tramontane.controllers.trainingjob.validate import restart_policy, uses_agent
from tramontane.kube.views import ContainerView, PodView
from tramontane.kube.waiting import NO_CONTAINER, NO_IMAGE


class There(Enum):
    """Say what is on a seat; see the module."""

    MISSING = auto()
    GOING = auto()
    MISPLACED = auto()
    LEAVING = auto()
    DONE = auto()
    FAILED = auto()
    WAITING = auto()
    READY = auto()
    TAKEN = auto()


ALIVE = frozenset({There.WAITING, There.READY})

# Reasons of a failed pod that are not its own doing.
_NOT_TAKEN = (
    "OutOf",
    "UnexpectedAdmissionError",
    "NodeAffinity",
    "NodePorts",
    "NodeShutdown",
    "Terminated",
    "TopologyAffinityError",
    "ContainerStatusUnknown",
    "InvalidNodeInfo",
    "AppArmor",
)
_PUT_OUT = ("Evicted", "Preempting", "Preempted", "DeletionByTaintManager", "DeletionByPodGC")
OOM_KILLED = "OOMKilled"
_NODE_REASONS = ("NodeLost", "NodeNotReady")


@dataclass(frozen=True, slots=True)
class Seat:
    """Hold one seat: its blade, what is there, and whether the blade is lost.

    `planned` says why the pod is to leave the blade under it, once its job has saved.
    """

    number: int
    blade: str
    there: There
    pod: PodView | None = None
    epoch: int = 0
    loss: Loss | None = None
    planned: Loss | None = None


def look(world: World, placement: Placement, pool: NodePool) -> tuple[Seat, ...]:
    """Return the seats of the placement, in order. O(seats)."""
    own = {seat_of(pod): pod for pod in world.own_pods}
    ranks, foreign = Ranks.of(world.job), world.foreign_pods
    losses: dict[str, Loss | None] = {}

    def loss_on(blade: str) -> Loss | None:
        if blade not in losses:
            losses[blade] = loss_of(world, blade, pool)
        return losses[blade]

    ordered, avoided = _ordered_moves(world), frozenset(gangs.avoided(world.job))
    found = []
    for number, blade in enumerate(placement.seats):
        pod, loss = own.get(number), loss_on(blade)
        if pod is None:
            other = foreign.get(number)
            there = There.MISSING if other is None else There.TAKEN
            # Whoever was evicted must not come back to a blade that is to be emptied.
            loss = loss or closed_to_new(world, blade)
            found.append(Seat(number, blade, there, other, 0, loss))
            continue
        there, planned = _there(pod, blade, ranks), None
        if loss is not None and loss.planned and there in ALIVE:
            planned, loss = loss, None
        elif there in ALIVE and loss is None and blade in avoided:
            planned = Loss(IncidentCause.BLADE_FAULT, "avoided", world.now, False, planned=True)
        elif there in ALIVE and loss is None and placement.spares and _is_slow(world, pod):
            planned = _asked_away(world)
        elif there is There.MISPLACED and pod.node and pod.node in ordered.get(number, ()):
            under = loss_on(pod.node)
            planned = under or _asked_away(world)
            if pod.phase == "Running" and (under is None or under.planned):
                there = There.LEAVING
        loss = loss or _made_anew(world, pod, blade)
        found.append(Seat(number, blade, there, pod, _life_of(pod, there, ranks), loss, planned))
    return tuple(found)


def _ordered_moves(world: World) -> dict[int, set[str]]:
    """Return the blades that we have asked the scheduler to take a seat from."""
    ordered: dict[int, set[str]] = {}
    for one in world.gang.spec.lost if world.gang is not None else ():
        ordered.setdefault(one.seat, set()).add(one.blade)
    return ordered


def _is_slow(world: World, pod: PodView) -> bool:
    """Return whether the pod's rank holds the others up while they run, and is to be moved."""
    if world.job.spec.progress.stragglers is not Stragglers.MOVE:
        return False
    running = world.job.status.phase is JobPhase.RUNNING
    return running and world.slow is not None and world.slow.uid == pod.uid


def _asked_away(world: World) -> Loss:
    """Return why a seat moves whose blade has no fault, or none any more."""
    cause, code = IncidentCause.BLADE_FAULT, "fault-cleared"
    if world.job.spec.progress.stragglers is Stragglers.MOVE:
        ratio = f"-{world.slow.ratio:.1f}x" if world.slow else ""
        cause, code = IncidentCause.STRAGGLER, f"slow-rank{ratio}"
    since = world.slow.since if world.slow else world.now
    return Loss(cause, code, since, node_gone=False, planned=True)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Say how to read the end of a job's ranks: which container, and who restarts it."""

    container: str
    kubelet_restarts: bool
    agent: bool

    @classmethod
    def of(cls, job: TrainingJob) -> "Ranks":
        """Return how the job's pods are made."""
        return cls(
            trainer_of(job.spec.template)["name"],
            restart_policy(job.spec) != "Never",
            uses_agent(job.spec),
        )

    def view(self, pod: PodView) -> ContainerView | None:
        """Return the state of the rank's container, as far as the kubelet has told."""
        return next((one for one in pod.containers if one.name == self.container), None)

    def exit_code(self, pod: PodView) -> int | None:
        """Return the code with which the rank has ended for good, or None.

        A pod may go on beside its rank: a sidecar does not keep a job from being done.
        """
        if pod.phase == "Succeeded":
            return 0
        rank = self.view(pod)
        if rank is None or rank.state != "terminated":
            return None
        over = rank.exit_code == 0 or pod.phase == "Failed" or not self.kubelet_restarts
        return rank.exit_code if over else None


def _made_anew(world: World, pod: PodView, blade: str) -> Loss | None:
    """Return a loss where the Node is younger than its pod: another machine of that name."""
    node = world.nodes.get(blade)
    if node is None or pod.node != blade or node.created_at <= pod.created_at:
        return None
    return Loss(IncidentCause.NODE_LOST, "node-recreated", node.created_at, node_gone=False)


def _life_of(pod: PodView, there: There, ranks: Ranks) -> int:
    """Return the attempt that the pod belongs to, or the one that its rank has done.

    They differ where the order for another attempt came when the agent had just given up: such a
    rank has done nothing of what its peers do again, and is made anew.
    """
    epoch, rank = epoch_of(pod), ranks.view(pod)
    done = done_in(rank.message) if there is There.DONE and rank is not None else None
    return epoch if done is None else min(epoch, done)


def _there(pod: PodView, blade: str, ranks: Ranks) -> There:
    if pod.deleting:
        return There.GOING
    code = ranks.exit_code(pod)
    # A rank that has done its work needs no blade any more.
    if code == 0:
        return There.DONE
    if pod.node and pod.node != blade:
        return There.MISPLACED
    if code is not None or pod.phase == "Failed":
        return There.FAILED
    return There.READY if pod.ready else There.WAITING


def failure_of(pod: PodView, ranks: Ranks, *, sound: bool) -> tuple[IncidentCause, str]:
    """Return cause and code of a failed pod; `sound` says whether nothing speaks against its blade.

    | pod | cause |
    |---|---|
    | evicted, preempted by the kubelet, deleted by a taint | Evicted |
    | killed for its memory | Evicted |
    | refused by the kubelet (OutOf…, admission), node shut down or lost | NodeLost |
    | its agent could not end the rank, which is stuck in its driver | BladeFault |
    | ended with a code, on a blade that has a fault | BladeFault |
    | ended with a code, otherwise | UserError |
    """
    reason = pod.reason
    if reason.startswith(_PUT_OUT):
        return IncidentCause.EVICTED, reason
    if reason.startswith((*_NOT_TAKEN, *_NODE_REASONS)):
        return IncidentCause.NODE_LOST, reason
    rank, code = ranks.view(pod), ranks.exit_code(pod)
    if rank is not None and rank.reason == OOM_KILLED:
        return IncidentCause.EVICTED, OOM_KILLED
    if code is None:
        ended = [one for one in pod.containers if one.exit_code]
        if not ended:
            return IncidentCause.NODE_LOST, reason or "failed-without-exit-code"
        code = ended[0].exit_code
    if code == EXIT_STUCK and ranks.agent:
        return IncidentCause.BLADE_FAULT, "rank-stuck"
    cause = IncidentCause.USER_ERROR if sound else IncidentCause.BLADE_FAULT
    return cause, f"exit-{code}"


def start_problem(seat: Seat) -> tuple[bool, str] | None:
    """Return why a pod does not start, where people must help: (is it the image?, message)."""
    if seat.there is not There.WAITING or seat.pod is None:
        return None
    for container in seat.pod.containers:
        if container.state == "waiting" and container.reason in NO_IMAGE | NO_CONTAINER:
            is_image = container.reason in NO_IMAGE
            remedy = "correct the image or its pull secret" if is_image else "correct the template"
            return is_image, (
                f"pod {seat.pod.name} on {seat.blade}: container {container.name} must start (got "
                f"{container.reason}); {remedy}, kubectl describe pod has the details"
            )
    return None
