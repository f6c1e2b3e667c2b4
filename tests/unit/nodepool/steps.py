"""What happens to one blade, as the tests of its life tell it."""

from typing import Any

from unit.nodepool.hall import Hall, fault

BLADE = "gpu-1"
TEMPLATE = {"spec": {"containers": [{"name": "test", "image": "registry.example/test:1"}]}}
QUALIFICATION = {"soak": "60s", "burnIn": {"template": TEMPLATE, "timeout": "10m"}}
REPAIR = {"reset": {"template": TEMPLATE}, "reboot": {"template": TEMPLATE}}
CLEAR_AFTER_S = 600.0


def pool(hall: Hall, **spec: Any) -> None:
    hall.pool(
        **{
            "remediation": {"maxUnavailable": 2, **REPAIR},
            "health": {"clearAfter": "10m", "unknownAfter": "90s"},
            **spec,
        }
    )


async def clean(hall: Hall, name: str = BLADE, boot: str = "boot-1") -> None:
    hall.report(name, boot=boot)
    await hall.settle()


async def sick(hall: Hall, name: str = BLADE, boot: str = "boot-1", **how: Any) -> None:
    how = {"code": "xid-95", "action": "Reset", **how}
    hall.report(name, fault(at=hall.now, bootID=boot, **how), boot=boot)
    await hall.settle()


async def wait(hall: Hall, seconds: float, *names: str) -> None:
    """Let time pass, with the agents alive."""
    while seconds > 0:
        hall.now += min(seconds, 30.0)
        seconds -= 30.0
        for name in names or (BLADE,):
            hall.beat(name)
        await hall.advance(0.0)


async def finish(hall: Hall, kind: str, code: int = 0, name: str = BLADE, **said: Any) -> None:
    """Let the one work pod of a kind end."""
    (pod,) = [one for one in hall.works(name) if one.startswith(kind)]
    hall.finish(pod, code, **said)
    await hall.settle()
    await hall.advance(0.0)


def message(hall: Hall, name: str = BLADE) -> str:
    return str(hall.blade(name)["status"].get("message"))


async def healthy(hall: Hall, name: str = BLADE, **spec: Any) -> None:
    """Have one blade that works, in a pool without qualification."""
    pool(hall, **spec)
    hall.node(name)
    await hall.settle()
    await clean(hall, name)
    assert hall.state(name) == "Healthy"
