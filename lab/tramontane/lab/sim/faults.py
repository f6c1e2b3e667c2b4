"""Let blades fail as published, by seeds: kinds, moments, and how each is seen and ends.

The rate is of the hardware: failures per 1,000 blade-days (Meta RSC-1: 6.50, RSC-2: 2.34). What
share each kind has is taken from the causes of Llama 3's 419 unexpected interruptions, without
software and silent corruption, which are no fault of a blade (health.md, section 4):

| kind | of Llama 3's causes | seen by | ends by |
|---|---|---|---|
| gpu      | GPU 148                              | the agent: xid-79    | reboot |
| memory   | HBM3 72, SRAM 19                     | the agent: xid-95    | reset |
| firmware | GPU system processor 17              | the agent: xid-119   | reboot |
| network  | network 35, NIC 7                    | the agent: ib-link-down | reboot |
| host     | host 32, thermal 6, SSD 3, PSU 3, ... 8 | silence of the node  | a person |

A part of them ends only with new parts: 8 % (NCSA Delta: row remapping mends 92 %).

Each blade has a stream of its own, so the same seed brings the same faults at the same times
whatever the policy makes of them. A blade that is away for repair is not hit: that fault is lost
to both.
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tramontane.api.blade import Action

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        weight: its share among all.
        code: in the agent's report; empty where the whole node falls silent.
        action: what the report asks for.
    """

    name: str
    weight: float
    code: str = ""
    action: Action = Action.NONE

    @property
    def takes_node(self) -> bool:
        """Return whether the node is gone with it."""
        return not self.code


KINDS = (
    Kind("gpu", 148, "xid-79", Action.REBOOT),
    Kind("memory", 91, "xid-95", Action.RESET),
    Kind("firmware", 17, "xid-119", Action.REBOOT),
    Kind("network", 42, "ib-link-down", Action.REBOOT),
    Kind("host", 52),
)


@dataclass(frozen=True, slots=True)
class Model:
    """How blades fail.

    Attributes:
        rate: failures per 1,000 blade-days.
        kinds: what kinds there are, by weight.
        parts: share of faults that only new parts end.
        infant: by how many times the rate is higher at the beginning, falling to 1 with a time
            constant of `infant_days`; 1: not at all.
        lemons: share of blades whose rate is `lemon_times` the others'. The mean over the fleet
            stays the rate.
        rack_rate: failures of whole racks per 1,000 rack-days (power, cooling); 0: none.
    """

    rate: float = 6.5
    kinds: Sequence[Kind] = KINDS
    parts: float = 0.08
    infant: float = 1.0
    infant_days: float = 14.0
    lemons: float = 0.0
    lemon_times: float = 10.0
    rack_rate: float = 0.0


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A fault to come: when (s since the start), on which blade."""

    at_s: float
    blade: str
    kind: Kind = field(compare=False)
    needs_parts: bool = field(compare=False)
    draw: float = field(compare=False)  # 0 to 1: how long its repair takes among all such


def faults(
    model: Model, blades: Sequence[str], days: float, seed: int, rack: int = 16
) -> Iterator[Fault]:
    """Yield all faults of these blades in order of time. Racks are runs of `rack` blades.

    O(faults · log blades).
    """
    end_s = days * DAY_S
    streams = [_of_blade(model, blade, end_s, seed) for blade in blades]
    if model.rack_rate:
        groups = [blades[first : first + rack] for first in range(0, len(blades), rack)]
        streams += [
            _of_rack(model, group, number, end_s, seed) for number, group in enumerate(groups)
        ]
    return heapq.merge(*streams)


def _of_blade(model: Model, blade: str, end_s: float, seed: int) -> Iterator[Fault]:
    chance = random.Random(f"{seed} {blade}")
    is_lemon = chance.random() < model.lemons
    mean = 1 + model.lemons * (model.lemon_times - 1)
    per_s = model.rate / 1000 / DAY_S * (model.lemon_times if is_lemon else 1.0) / mean
    most = max(1.0, model.infant)
    at_s = 0.0
    while per_s:
        # Thinning: draw at the highest rate, keep with the share that the rate then has.
        at_s += chance.expovariate(per_s * most)
        if at_s >= end_s:
            return
        now = 1 + (model.infant - 1) * 2.718281828 ** (-at_s / DAY_S / model.infant_days)
        kept = chance.random() * most < now
        fault = _drawn(model, at_s, blade, chance)
        if kept:
            yield fault


def _of_rack(
    model: Model, blades: Sequence[str], number: int, end_s: float, seed: int
) -> Iterator[Fault]:
    chance = random.Random(f"{seed} rack {number}")
    host = next((kind for kind in model.kinds if kind.takes_node), KINDS[-1])
    at_s = 0.0
    while True:
        at_s += chance.expovariate(model.rack_rate / 1000 / DAY_S)
        if at_s >= end_s:
            return
        draw = chance.random()
        for blade in blades:
            yield Fault(at_s, blade, host, needs_parts=False, draw=draw)


def _drawn(model: Model, at_s: float, blade: str, chance: random.Random) -> Fault:
    (kind,) = chance.choices(model.kinds, [one.weight for one in model.kinds])
    return Fault(at_s, blade, kind, chance.random() < model.parts, chance.random())
