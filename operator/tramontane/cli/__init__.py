"""The `tramontane` command, also `kubectl tramontane`: reads the API, and writes what people want.

    main       the command: groups of commands, imported when they are used
    options    options that many commands share, and what exit statuses mean; only click
    session    one connection per command; finding objects; who asks
    objects    kind/name on the command line, and the object that is meant
    tables     tables and answers, for a terminal and for what is none
    changes    the plan of a change, and the question before it
    complete   names for the shell; `completion` prints its script

    hall       tramontane fleet: `hallask` reads, `hallview` and `looks` say
    top        what goes on now: `topask` follows, `topview` says
    timeline   what happened: `timelineask` reads, `happenings` puts in order
    explain    what a state means: `explainask` reads, `explainview` says; `dictionary` has words
    blades     tramontane blade, quarantine, release: `bladeview` says, `bladeword` writes,
               `effects` says what a change would do
    pools      tramontane pool list | show: `poolview` says
    breaker    tramontane breaker show | close
    queue      tramontane why | simulate | snapshot | replay: the scheduler's core, here;
               `queueask` asks it, `queuejob` turns a manifest into a gang, `queueview` says
    fleet      tramontane simulate fleet: a hall that need not exist; `fleetview` says
    plan       how a model is laid out: `planask` asks the operator's planner
    weights    digest, sign and check directories of weights
    doctor     is this cluster fit; support: what others need to help
    version    which versions there are
    wishes     what a person's word becomes in the API: pure

Modules of a verb import nothing heavy before they are called. What is said (`…view`, `happenings`,
`looks`, `effects`, `wishes`, `dictionary`) is pure; only `…ask`, `session` and `bladeword` know a
client.

A person's word is one of `Blade.spec.hold`, `Blade.spec.release` and the NodePool's annotation
`tramontane.dev/breaker-closed`. Everything else is the components' to write.
"""
