"""Speak to Kubernetes: transport, informers, queue, lease, events and the process around them.

The package knows Kubernetes and nothing of what Tramontane decides. Raw objects are plain
dictionaries; what is kept in memory are the small frozen views that the callers' decoders make.

    errors     what the API server, or the way to it, says
    resources  paths of the kinds that we use
    config     where the API server is and who we are (the official client's loaders)
    client     requests: get, list, create, apply, patch, delete; streams of lines
    podlog     a container's log, whatever it prints
    store      a cache with indexes
    informer   list, diff, watch: the store follows the API server
    workqueue  keys in, one reconcile per key at a time
    lease      leader election and heartbeats
    events     Events, queued and deduplicated
    views      what we keep of a Pod and a Node
    waiting    reasons of a container that waits and that waiting does not help
    logs       key=value lines
    process    signals, health, metrics, exit codes
"""
