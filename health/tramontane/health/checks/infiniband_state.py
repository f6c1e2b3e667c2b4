"""infiniband-state: a port that was active is so again within four minutes.

Judged against the port's own past. One that never was active has no cable, or had none when the
agent started; whether the blade has ports enough is the pool's to say (`Report.network`).

| port now   | was active before         | for           | finding                        |
|------------|---------------------------|---------------|--------------------------------|
| active     | any                       | any           | none                           |
| other      | yes                       | under 4 min   | none yet; an open fault stays  |
| other      | yes                       | 4 min or more | infiniband-down                |
| other      | not known, fault names it | any           | infiniband-down                |
| other      | not known                 | any           | none                           |

Fatal: a rank behind it reaches nobody. Inspect: neither reset nor reboot mends a cable.
"""

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.checks.host import BLIND, UNKNOWN, named, opened, remembered
from tramontane.health.device import Reading, Unsupported
from tramontane.health.host import PortPast

NAME = "infiniband-state"
CODE = "infiniband-down"
# Source: gpud, InfiniBand drop.
DROP_S = 240.0


def _judge(reading: Reading, past: Past) -> Outcome:
    host = reading.host
    if host is None or isinstance(host.ports, Unsupported):
        return UNKNOWN
    told = {name for fault in opened(past, NAME) for name in named(fault.evidence or "")}
    there = {known.name for known in host.past.ports}
    gone = ((None, PortPast(name)) for name in sorted(told - there))
    down: dict[str, list[str]] = {}
    silent = False
    for port, known in (*remembered(host.ports, host.past), *gone):
        if port is not None and port.active:
            continue
        if known.down_since is None:
            if known.name not in told:
                continue
        elif past.at - known.down_since < DROP_S:
            silent = True
            continue
        state = "gone" if port is None else f"{port.state or 'silent'}, {port.phys_state}"
        down.setdefault(state, []).append(known.name)
    if not down:
        return BLIND if silent else Outcome()
    said = (
        f"{', '.join(names)} {'are' if names[1:] else 'is'} {state}"
        for state, names in down.items()
    )
    evidence = f"{'; '.join(said)} for more than {DROP_S:.0f} s"
    count = sum(map(len, down.values()))
    return Outcome((Finding(CODE, Severity.FATAL, Action.INSPECT, evidence, count=count),))


CHECK = Check(NAME, "gpud: drop = down for 4 min; /sys/class/infiniband/*/ports/*/state", _judge)
