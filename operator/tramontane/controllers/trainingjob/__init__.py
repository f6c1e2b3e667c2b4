"""Keep a TrainingJob's gang whole: from its spec to Gang and pods, through faults, to the end.

    reconcile    the shell: caches in, writes out, one status
    observe      World: what one reconcile sees
    plan         World → Plan, up to the gang's placement; `placed` from there on
    seats        what is on each seat; `losses` whether its blade is lost; `incidents` what is news
    budgets      how many restarts, how long between them
    goodput      where the time went; `status` puts it all together; `findings` says why
    gangs        what Gang the job wants; `template`, `podcheck`, `validate`: is the spec any good
    render       the objects; `launchers`: their environment
    rankagent    one file for each pod: restarts the rank in place
    progress     what rank 0's log says; `follower` reads it
    execute      writes; `assumed` remembers them until the caches show them

All but reconcile, execute, follower and rankagent are pure: no clock, no I/O.
"""

from tramontane.controllers.trainingjob.reconcile import (
    Config,
    TrainingJobController,
    keys_for_change,
)

__all__ = ["Config", "TrainingJobController", "keys_for_change"]
