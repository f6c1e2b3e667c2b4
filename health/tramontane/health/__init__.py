"""Watch one blade: turn what NVML says into faults, and write them into Blade.status.report.

    device      what a GPU library must offer, and the frozen readings it gives
    nvml, fake  the two implementations: pynvml, and a blade in memory
    child       the process that owns the NVML session; probe: the parent's side, with a deadline
    checks/     one pure function per check: reading → findings
    catalogue   XID → severity and action
    report      findings and events, folded over the previous report (pure)
    pause       no session with NVML while the operator has a GPU reset
    agent       the shell: probe → report → server-side apply; the heartbeat Lease
    metrics     the same for Prometheus

The agent decides nothing about the cluster. It never makes a Blade, and it writes nothing of a
Blade but `status.report`.
"""
