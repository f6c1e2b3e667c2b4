"""Place whole gangs on blades, keep their seats, and say why when there is no place.

Pure, on frozen values and numpy arrays, without asyncio and without a client:

    records     slim records of Blades, Nodes, NodePools and Pods
    gangs       the record of a Gang: what it asks for and where it sits
    topology    the levels of a pool: blades → domains
    fleet       one row per blade, sorted along the topology; capacity, health, taints
    snapshot    a fleet and what is in use on it now; placements are assumed into it
    fit         which blades may hold a seat of a gang
    pack        choose blades for equal seats: lowest level, fewest domains, least left over
    mixed       the same for slots that ask for different things
    place       a whole gang → Plan or Refusal
    recover     lost seats and missing spares only
    integrity   placements that no scheduler can have written, and what the pods say instead
    explain     a refusal in the closed list of reasons, with numbers and a way out
    engine      one pass over all gangs → what each one's status shall say
    status      that, as the body of one server-side apply

The shell around it:

    cycle       informers → pass → writes; placements are assumed until the informer shows them
    metrics     counters and timings
    __main__    the process, leader by Lease
"""
