"""Say where patience ends: budgets of restarts, waits between them, the time limit.

Before a crash loop ends its job, the log of the rank that failed is read to its end: whoever looks
at the job an hour later wants to know why, and the pod may be gone by then.
"""

from collections.abc import Sequence

from tramontane.api import clock
from tramontane.api.reasons import JobReason
from tramontane.api.trainingjob import IncidentCause
from tramontane.controllers.trainingjob import budgets
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.incidents import News
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.seats import ALIVE, There
from tramontane.kube.views import PodView

_LINES_SHOWN = 10
_ENDED_ON_DOUBTED = frozenset({"rank-ended", "rank-stuck"})


def spent(case: Case, news: Sequence[News]) -> tuple[JobReason, str] | None:
    """Return reason and message where a budget is spent by the news."""
    recovery = case.world.job.spec.recovery
    causes = {one.cause for one in news}
    for causes_, limit, reason in (
        (budgets.USER_CAUSES, recovery.user_failures, JobReason.TOO_MANY_USER_FAILURES),
        (budgets.INFRA_CAUSES, recovery.infra_failures, JobReason.TOO_MANY_INFRA_FAILURES),
    ):
        if not causes_.intersection(causes):
            continue
        window_s = seconds(limit.window)
        count = budgets.in_window(case.incidents, causes_, case.now, window_s)
        if count > limit.max:
            last = case.incidents[-1]
            where = f" on {last.blade}" if last.blade else ""
            return reason, (
                f"must fail at most {limit.max} times in {limit.window} (got {count}); the last: "
                f"{last.code}{where}, seats {', '.join(map(str, last.seats[:8]))}"
            )
    return None


def failed_pods(case: Case, news: Sequence[News]) -> tuple[PodView, ...]:
    """Return the pod whose log says why a budget is spent, if the user's."""
    blamed = (case.seats[one.seat].pod for one in news if one.cause in budgets.USER_CAUSES)
    pod = next((pod for pod in blamed if pod is not None), None)
    return (pod,) if pod is not None else ()


def last_words(case: Case, news: Sequence[News]) -> str | None:
    """Return the last lines of the failed rank's log, for the message; None: not read yet."""
    pods = failed_pods(case, news)
    if any(pod.uid not in case.world.words for pod in pods):
        return None
    lines = case.world.words[pods[0].uid].lines[-_LINES_SHOWN:] if pods else ()
    return "; its log ends:\n" + "\n".join(lines) if lines else ""


def held_until(case: Case) -> float:
    """Return when the restart may begin: at once after a lost blade, later after a crash.

    | the open incidents have | wait, from the newest such |
    |---|---|
    | a UserError | recovery.backoff, by the failures in the window; none for a first crash of \
which all pods are there |
    | a Hang, or a rank that ended on a blade that is not sound | the same, by such in the window |
    | a pod that a kubelet refused, or put out | 2 s, doubling for each such incident of the seats |
    | neither | none |
    """
    recovery = case.world.job.spec.recovery
    still = [one for one in case.incidents if told.is_open(one) and one.replaced_after is None]
    until = 0.0
    for one in still:
        at = clock.parse(one.at)
        if one.cause is IncidentCause.USER_ERROR:
            window_s = seconds(recovery.user_failures.window)
            count = budgets.in_window(case.incidents, budgets.USER_CAUSES, case.now, window_s)
            # What costs no pod is tried again at once, the first time.
            count -= all(case.seats[n].there in ALIVE for n in one.seats if n < len(case.seats))
            until = max(until, at + budgets.wait_s(recovery.backoff, count))
        elif one.cause is IncidentCause.HANG or one.code in _ENDED_ON_DOUBTED:
            window_s = seconds(recovery.infra_failures.window)
            count = budgets.in_window(case.incidents, frozenset({one.cause}), case.now, window_s)
            until = max(until, at + budgets.wait_s(recovery.backoff, count - 1))
    for seat in case.seats:
        if seat.there is There.FAILED or seat.there is There.MISSING:
            refused = [
                clock.parse(one.at)
                for one in case.incidents
                if told.is_open(one)
                and seat.number in one.seats
                and one.blade == seat.blade
                and one.cause in {IncidentCause.NODE_LOST, IncidentCause.EVICTED}
            ]
            # The first time may have been an accident; then its kubelet means it.
            if len(refused) > 1:
                wait_s = budgets.wait_s(budgets.ADMISSION_BACKOFF, len(refused) - 1)
                until = max(until, max(refused) + wait_s)
    return until


def time_limit_left(world: World) -> float | None:
    """Return the seconds until spec.maxRuntime is over, from the first start; None: no limit."""
    limit, started = world.job.spec.max_runtime, world.job.status.started_at
    if limit is None or started is None:
        return None
    return clock.parse(started) + seconds(limit) - world.now
