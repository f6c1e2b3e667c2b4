"""infiniband-state: a port that was active is so again within four minutes.

Judged against the port's own past. One that never was active has no cable, or had none when the
agent started; whether the blade has ports enough is the pool's to say (`Report.network`).

| port now   | was active before | for           | finding                        |
|------------|-------------------|---------------|--------------------------------|
| active     | any               | any           | none                           |
| other      | yes               | under 4 min   | none yet; an open fault stays  |
| other      | yes               | 4 min or more | infiniband-down                |
| other      | not known         | any           | none; an open fault stays      |

Fatal: a rank behind it reaches nobody. Inspect: neither reset nor reboot mends a cable.
"""

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.checks.host import BLIND, UNKNOWN, remembered
from tramontane.health.device import Reading, Unsupported

NAME = "infiniband-state"
CODE = "infiniband-down"
# Source: gpud, InfiniBand drop.
DROP_S = 240.0


def _judge(reading: Reading, past: Past) -> Outcome:
    host = reading.host
    if host is None or isinstance(host.ports, Unsupported):
        return UNKNOWN
    down, silent = [], False
    for port, known in remembered(host.ports, host.past):
        if port is not None and port.active:
            continue
        if known.down_since is None or past.at - known.down_since < DROP_S:
            silent = True
            continue
        state = "gone" if port is None else f"{port.state or 'silent'}, {port.phys_state}"
        down.append(f"{known.name} is {state}")
    if not down:
        return BLIND if silent else Outcome()
    evidence = f"{'; '.join(down)} for more than {DROP_S:.0f} s"
    return Outcome((Finding(CODE, Severity.FATAL, Action.INSPECT, evidence, count=len(down)),))


CHECK = Check(NAME, "gpud: drop = down for 4 min; /sys/class/infiniband/*/ports/*/state", _judge)
