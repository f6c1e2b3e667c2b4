"""Work a blade hard and compare what it answers: `python -m tramontane.health.burnin`.

    outcome        one JSON line and an exit code; what ends as ERROR and what as FAIL
    backend        what is needed of a machine, as a Protocol
    numpy_backend  the processor, with numpy
    torch_backend  GPUs or the processor, with torch, where it is installed
    run            the order of the work: copies, then products and patterns on all devices
    judge          what the devices gave → the verdict (pure)
    command        the command line

Nothing here needs more than the standard library and numpy, so that it runs from any image that
has torch.
"""
