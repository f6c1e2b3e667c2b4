"""Keep one job's pods, and play the kubelets under them."""

from collections.abc import Callable
from dataclasses import replace

from tramontane.api.names import (
    ANNOTATION_DRAIN,
    ANNOTATION_EPOCH,
    LABEL_GANG,
    LABEL_JOB,
    LABEL_SEAT,
)
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob import render
from tramontane.kube.views import ContainerView, PodView
from tramontane.lab.paths import LabError
from tramontane.lab.sim.agenda import Agenda
from tramontane.lab.sim.places import Places
from tramontane.lab.sim.ranks import Ranks
from tramontane.lab.sim.ward import ECHO_S, Ward

_FORCED_S = 0.01
# What the shell's queue waits for more changes of pods that come in crowds.
CROWD_S = 0.05
_CROWD_PER_POD_S = 0.0002


class PodSet:
    """The pods of one job.

    Attributes:
        by_seat: the pods that there are.
        vanished: seats whose pod went without having been deleted, and the epoch it had.
        ending: pods that a kubelet is ending now, by uid.
    """

    def __init__(
        self,
        agenda: Agenda,
        ward: Ward,
        places: Places,
        ranks: Ranks,
        *,
        job: TrainingJob,
        look: Callable[[float], None],
    ) -> None:
        self._agenda, self._ward, self._places, self._ranks = agenda, ward, places, ranks
        self._name, self._namespace = job.metadata.name, job.metadata.namespace or ""
        self._job_uid, self._look = job.metadata.uid, look
        self.by_seat: dict[int, PodView] = {}
        self.vanished: dict[int, int] = {}
        self.ending: set[str] = set()
        self._seat_of: dict[str, int] = {}
        self._made = 0

    def on(self, blade: str) -> list[PodView]:
        """Return the job's pods on a blade: one, or none."""
        name = self._ward.guests.get(blade)
        seat = int(name.rpartition("-")[2]) if name else -1
        pod = self.by_seat.get(seat)
        return [pod] if pod is not None and pod.node == blade else []

    def create(self, seat: int, blade: str, attempt: int) -> None:
        """Create the pod of a seat; its kubelet starts it.

        Raises:
            LabError: the seat has a pod, or the blade one of another seat.
        """
        if seat in self.by_seat or blade in self._ward.guests:
            raise LabError(f"seat {seat}: its last pod and its blade must be free (got {blade})")
        self._made += 1
        name = self._name
        pod = PodView(
            name=render.pod_name(name, seat),
            namespace=self._namespace,
            uid=f"pod-{self._made}",
            node=blade,
            phase="Pending",
            deleting=False,
            labels={LABEL_JOB: name, LABEL_GANG: name, LABEL_SEAT: str(seat)},
            annotations={ANNOTATION_EPOCH: str(attempt), ANNOTATION_DRAIN: ""},
            owner_uid=self._job_uid,
            reason="",
            message="",
            ready=False,
            restarts=0,
            host_ip=None,
            pod_ip=None,
            gpus=8,
            started_at=None,
            containers=(),
            created_at=float(int(self._agenda.now)),
        )
        self.vanished.pop(seat, None)
        self._seat_of[pod.uid] = seat
        self._put(seat, pod)
        self._ward.guests[blade] = pod.key
        self._agenda.after(self._ward.times.start_s, self._start, seat, pod.uid)

    def _start(self, seat: int, uid: str) -> None:
        pod = self.by_seat.get(seat)
        if pod is None or pod.uid != uid or pod.deleting:
            return
        blade = pod.node or ""
        if not self._ward.machines[blade].powered:
            return
        running = ContainerView("trainer", "running")
        number = int(uid.rpartition("-")[2])
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        pod = replace(
            pod, phase="Running", ready=True, pod_ip=address,
            started_at=self._agenda.now, containers=(running,),
        )  # fmt: skip
        self._put(seat, pod)
        if not self._ward.kills(blade):
            self._ranks.up(seat, int(pod.annotations[ANNOTATION_EPOCH]))
            self._ranks.see()
        self._look(CROWD_S + _CROWD_PER_POD_S * len(self.by_seat))

    def annotate(self, uid: str, annotation: str, value: str) -> None:
        """Patch an annotation; another epoch restarts the rank, and `Ranks.see` says the rest."""
        for seat in self._seats_of(uid):
            pod = self.by_seat[seat]
            # The scheduler reads no annotation: this needs not be told to it.
            annotations = {**pod.annotations, annotation: value}
            self.by_seat[seat] = replace(pod, annotations=annotations)
            if annotation == ANNOTATION_EPOCH and self._ranks.is_up(seat):
                self._ranks.up(seat, int(value))

    def delete(self, uid: str, grace_s: int | None) -> None:
        """Delete a pod: by its kubelet, or by force where the grace is 0."""
        for seat in self._seats_of(uid):
            pod = self.by_seat[seat]
            self._ranks.down(seat)
            self._put(seat, replace(pod, deleting=True))
            if grace_s == 0:
                self._agenda.after(_FORCED_S, self._gone, seat, uid, True)
            elif not pod.deleting:
                if self._ward.machines[pod.node or ""].powered:
                    self.ending.add(uid)
                self._agenda.after(self._ward.times.stop_s, self._gone, seat, uid, False)
        self._ranks.see()

    def _gone(self, seat: int, uid: str, forced: bool) -> None:
        """Let a kubelet end a pod; one without power ends nothing, but force does."""
        self.ending.discard(uid)
        pod = self.by_seat.get(seat)
        if pod is None or pod.uid != uid:
            return
        if forced or self._ward.machines[pod.node or ""].powered:
            self.drop(pod)

    def drop(self, pod: PodView) -> None:
        """Let a pod be gone."""
        seat = int(pod.labels[LABEL_SEAT])
        self._ranks.down(seat)
        if not pod.deleting:
            self.vanished[seat] = int(pod.annotations[ANNOTATION_EPOCH])
        del self.by_seat[seat], self._seat_of[pod.uid]
        self.ending.discard(pod.uid)
        self._ward.guests.pop(pod.node or "", None)
        self._places.pod_changed(seat, None)
        if not self._ward.is_healthy(pod.node or ""):
            self._ward.look(pod.node or "")
        self._ranks.see()
        self._look(ECHO_S)

    def _put(self, seat: int, pod: PodView) -> None:
        self.by_seat[seat] = pod
        self._places.pod_changed(seat, pod)

    def _seats_of(self, uid: str) -> list[int]:
        """Return the seat of the pod with this uid, if it is still there."""
        seat = self._seat_of.get(uid)
        pod = self.by_seat.get(seat) if seat is not None else None
        return [seat] if seat is not None and pod is not None and pod.uid == uid else []
