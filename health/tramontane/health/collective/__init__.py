"""Measure how fast a group of blades sums together: `python -m tramontane.health.collective`.

    group        who is in the group, from the environment; what a group must offer
    ring         a ring over TCP sockets, with numpy
    torch_group  torch.distributed: NCCL between GPUs, gloo between processors
    measure      repeats, a look at every sum, and the verdict
    launch       one process per GPU of the blade
    command      the command line

The figure is the bus bandwidth of an all-reduce, 2(n-1)/n · bytes / time, which does not depend
on the size of the group. Source: NVIDIA nccl-tests, doc/PERFORMANCE.md.
"""
