"""A pool that only watches takes no blade for new and good that Auto would have taken out."""

import pytest

from unit.nodepool.hall import Hall
from unit.nodepool.steps import BLADE, REPAIR, clean, message, pool, sick, wait


@pytest.mark.parametrize("mode", ["DryRun", "Off"])
@pytest.mark.parametrize("severity", ["Degraded", "Fatal"])
async def test_what_is_wrong_starts_the_soak_anew(mode: str, severity: str) -> None:
    async with Hall() as hall:
        remediation = {"maxUnavailable": 2, "mode": mode, **REPAIR}
        pool(hall, remediation=remediation, qualification={"soak": "60s"})
        hall.node(BLADE)
        await hall.settle()
        await sick(hall, code="xid-79", action="Reboot", severity=severity)
        await wait(hall, 120)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Qualifying", severity)
        assert "soak begins anew" in message(hall)
        await clean(hall)
        await wait(hall, 30)
        assert hall.state(BLADE) == "Qualifying"
        await wait(hall, 700)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")
