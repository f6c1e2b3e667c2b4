"""Simulate halls of blades for weeks, with the code that runs in clusters.

    formula    the closed answers, for where they hold
    faults     which blade fails when, of what, by published rates and seeds
    iron       what a blade is, what mends it, how long things take
    machines   the hall under an API server: kubelets, agents, power, repairs
    pace       training by arithmetic: steps, saves, what is lost
    bodies     the pool and the job, as people would write them; reports: what an agent would say

Two drivers carry the same decisions:

    shells     the real controllers and the real scheduler, processes apart, over an API server in
               memory (apiserver, store, endpoints, owning, patching, selecting, kinds, history),
               reached by client and watching, on an event loop whose clock jumps (virtual);
               judge holds all that happens against the invariants
    engine     the pure cores alone, for halls of thousands: ward (nodepool), places (scheduler),
               crew (trainingjob: ranks, podset), on an agenda

    study      cases, seeds, comparisons, sweeps; charts draws them

`tramontane simulate fleet` asks; docs/simulator.md says what may be believed, and why.
"""
