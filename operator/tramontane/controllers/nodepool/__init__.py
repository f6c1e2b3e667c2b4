"""Look after the blades of a pool: who belongs, who may work, who must not.

    owners     which pool a Node belongs to, and which pools quarrel over it
    policy     a NodePool's spec with its durations and quantities read
    verdict    a report against inventory, rules and release: what is wrong
    silence    how long agents and kubelets have been silent, whatever their clocks say
    state      the state machine: signs in, state and verdict out
    incidents  the record of faults, which is also the memory of what has not cleared yet
    budget     how many may be out at once
    sight      what the caches show of a blade, read as signs
    plan       one blade's world in, all that must be written out
    nodepatch  labels and our taint in one race-free patch
    tally      running counts per pool
    status     what the pool says of itself
    kubelet    asks for a kubelet's Lease while its agent is silent
    members    which Nodes belong to which pool, one change at a time
    written    what was written, until the caches show it
    writer     carries out a plan: the Node's mark first
    reconcile  the shell: queues and caches

Owns Blade (but `status.report`, `spec.hold` and `spec.release`), NodePool.status, and of a Node
the labels `tramontane.dev/{pool,blade-state}` (and `tranche`, where the pool reads it from
another label), the taint `tramontane.dev/blade` and the condition GPUHealthy. Cordons, and the
labels and taints of others, are never touched.
"""
