"""Keep a TrainingJob's gang whole: from its spec to Gang and pods, through faults, to the end.

    reconcile    the shell: caches in, writes out, one status
    observe      World: what one reconcile sees
    plan         World → Plan, up to the gang's placement; `unplaced` without one, `placed` with it,
                 handing a `case` on; `ending` the end
    seats        what is on each seat; `losses` whether its blade is lost; `groups` of seats
    news         what happened; `inquest` what ended a life whose pods are all there; `stall` hangs;
                 `incidents` records it
    handshake    what waits for a checkpoint first; `resize` another size
    podwork      which pods go, come and restart; `limits`, `budgets` where patience ends
    goodput      where the time went: the ledger; `account` fills it, `cost` is what a preemption
                 would waste; `status` puts it all together; `findings` says why; `metrics`
    gangs        what Gang the job wants; `template`, `podcheck`, `validate`: is the spec any good
    render       the objects; `launchers`: their environment; `lighthouse` of replica groups
    rankagent    one file for each pod: restarts the rank in place; `tramontane_rank` for ranks
    progress     what rank 0's log says; `follower` reads it, by `logreader` or `metricsource`
    words        what pods said last; `inquiry` asks them; `stragglers` by `sampling` some ranks
    advice       how often to save
    execute      writes; `assumed` remembers them until the caches show them

All but the shells (reconcile, execute, follower, inquiry, sampling and what they read by) and
the two files for pods are pure: no clock, no I/O.
"""

from tramontane.controllers.trainingjob.reconcile import (
    Config,
    TrainingJobController,
    keys_for_change,
)

__all__ = ["Config", "TrainingJobController", "keys_for_change"]
