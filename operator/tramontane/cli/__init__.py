"""The `tramontane` command, also `kubectl tramontane`: reads the API, and writes what people want.

    main       the command: groups of commands, imported when they are used
    options    options that many commands share; imports nothing but click
    blades     tramontane blade list | show | hold | release
    pools      tramontane pool list | show
    breaker    tramontane breaker show | close
    queue      tramontane why | simulate | snapshot | replay: the scheduler's core, here
    queueask   asks it; `queuejob` turns a manifest into a gang, `queueview` says it to people
    session    one connection per command; finding objects; who asks
    bladeview  what people see of a Blade: pure
    poolview   what people see of a NodePool: pure
    tables     tables for a terminal, and for what is none
    wishes     what a person's word becomes in the API: pure

A person's word is one of `Blade.spec.hold`, `Blade.spec.release` and the NodePool's annotation
`tramontane.dev/breaker-closed`. Everything else is the components' to write.
"""
