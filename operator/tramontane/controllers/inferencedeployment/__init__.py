"""Keep models served: from a spec to Gangs and pods, through faults, rollouts and load.

    reconcile    the shell: caches in, writes out, one status; `execute` writes, `assumed` remembers
    world        what one reconcile sees; `actions` what it may ask for
    sizing       what layout of a model fits where; `engines` what flags that comes to
    plan         World → Plan; `revisions`, `replicas`, `recovery`, `converge`, `status`, `gangspec`
    adapters     what is loaded beside the model, and why not; `moments` what a wrong clock wrote
    rollout      how a new revision comes; `judge` whether it may stay; `rotation` who gets requests
    scale        how many replicas the load calls for; `scraper` reads it, `activator` waits for it
    pods         a replica's pods; `mounts` where weights lie, `overlay` what people lay over them
    objects      what stands beside them; `metrics` what is told of it all to whoever watches
    edge         the profile Edge: one pod, without a gang
    podfiles     the files in each pod: `serving` runs the engine, `weights` brings its model
    signing      whose weights are trusted

All but the shells (reconcile, execute, scraper, activator) and the files for pods are pure: no
clock, no I/O.
"""

from tramontane.controllers.inferencedeployment.reconcile import (
    ACTIVATOR_PORT,
    Config,
    InferenceDeploymentController,
)

__all__ = ["ACTIVATOR_PORT", "Config", "InferenceDeploymentController"]
