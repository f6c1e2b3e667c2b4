"""Place whole gangs on blades, keep their seats, and say why when there is no place.

Pure, on frozen values and numpy arrays, without asyncio and without a client:

    records     slim records of Blades, Nodes, NodePools and Pods
    gangs       the record of a Gang: what it asks for and where it sits
    topology    the levels of a pool: blades → domains
    fleet       one row per blade, sorted along the topology; capacity, health, taints
    snapshot    a fleet and what is in use on it now; placements are assumed into it
    affinity    the labels that a node must have
    fit         which blades may hold a seat of a gang
    packing     which of them it gets: an exact choice over the tree of domains
    sharedblades  different seats that share blades
    place       a whole gang → Plan or Refusal
    recover     lost seats and missing spares only
    integrity   placements that no scheduler can have written, and what the pods say instead
    sharing     tenants: who comes first, who may use how much, who gives way to whom
    releases    when what sits on blades ends
    timetable   when blades come free, and for whom they are kept
    forecast    when a gang is likely to start, learnt from those that did
    victims     whose end costs least; cover, leaving, shortage: what that is made of
    waiting     the gangs of one pool that wait, one after another
    resize      a placed gang at another size, on as many of its blades as can be
    elastic     which size serves it better, and the change when its owner asks
    engine      one pass over all gangs → what each one's status shall say
    outcome     what that is
    status      that, as the body of one server-side apply
    explain     a refusal in the closed list of reasons, with numbers and a way out
    unblocking  the smallest changes that would let a gang run
    saved       what a pass looks at, in one file; pruned: what is left out of it
    foreign     pods of other controllers, as gangs
    load        how a pool is used, for its metrics

The shell around it:

    world       informers → records
    memory      what was written, until the informer shows it
    cycle       world → pass → writes; placements are assumed until the informer shows them
    telling     what was decided, in the log, in counters and Events
    metrics     counters and timings
    __main__    the process, leader by Lease
"""
