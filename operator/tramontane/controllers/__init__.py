"""Run the operator: the process around the controllers, and the controllers.

    informers    the caches that all controllers share
    shell        kopf: watches what people write, and pushes keys into our queues
    app          life cycle: CRDs, caches, Lease, controllers, the end
    metrics      what the controllers export
    nodepool     Nodes of a pool become Blades; reports become verdicts, taints, quarantine
    trainingjob  jobs become gangs and pods; losses become replacements

A controller has a queue of keys, reads caches, calls a pure planner and applies what it says.
`python -m tramontane.controllers` starts the process.
"""
