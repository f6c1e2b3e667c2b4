"""Hold what controllers that own gangs and make their pods have in common.

    actions     what every plan can ask for: a pod's end, an Event
    controller  what such a controller knows: caches, and its owners by key
    wiring      from a change in the caches to the keys it bears on; the run of a queue
    written     what a process has written and the caches do not show yet
    writer      writes that may be repeated: pods, dependents, Gangs, statuses; refusals
    memory      what was read from the API server, believed for a while
    place       a pod on its blade

No decision is made here.
"""
