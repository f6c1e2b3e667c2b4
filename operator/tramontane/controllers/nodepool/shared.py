"""Hold what the blades' and the pools' reconciles share: caches, counts, and the way to write."""

from collections.abc import Callable
from dataclasses import dataclass

from tramontane.api.blade import Blade
from tramontane.controllers.informers import Informers
from tramontane.controllers.nodepool.budget import Ledger
from tramontane.controllers.nodepool.members import Members
from tramontane.controllers.nodepool.tally import Tally
from tramontane.controllers.nodepool.workshell import Works
from tramontane.controllers.nodepool.written import Written
from tramontane.kube.client import Client
from tramontane.kube.events import EventRecorder


@dataclass(frozen=True, slots=True)
class Shared:
    """One controller's belongings. `clock` is the wall's, `now_s` monotonic."""

    client: Client
    informers: Informers
    recorder: EventRecorder
    members: Members
    blade: Written[Blade]
    works: Works
    clock: Callable[[], float]
    now_s: Callable[[], float]
    ledger: Ledger
    tally: Tally
