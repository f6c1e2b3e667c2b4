"""Look after the blades of a pool: who belongs, who may work, who must not.

    owners     which pool a Node belongs to, and which pools quarrel over it
    policy     a NodePool's spec with its durations and quantities read
    care       what its blades go through: qualification and repair, read once
    verdict    a report against rules and release: what is wrong; inventory: against the pool
    silence    how long agents and kubelets have been silent, whatever their clocks say
    state      what the moment asks for: signs in, state and verdict out
    life       where that is on a blade's way from delivery to RMA; around: what it depends on
    qualify    soak, burnIn, collective; repair: reset, reboot, RMA
    works      what a test's or repair's pod is; workshell: makes and takes away such pods
    refusals   those of them that the API server takes none of: who is told, when to try again
    groups     blades tested together; bisect: which groups to run next; breaks: without a verdict
    alone      a blade that there is nobody to be tested with
    drain      evicts at last those whose controllers read no Blade
    history    28 days of incidents: flapping, lemons, failure rate; spares: how many those ask for
    breaker    stops quarantines when too many blades fail at once
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
    reconcile  the shell: queues and caches; pools: one pool's sums; shared: what both use

Owns Blade (but `status.report`, `spec.hold` and `spec.release`), NodePool.status, and of a Node
the labels `tramontane.dev/{pool,blade-state}` (and `tranche`, where the pool reads it from
another label), the taint `tramontane.dev/blade` and the condition GPUHealthy. Cordons, and the
labels and taints of others, are never touched.
"""
