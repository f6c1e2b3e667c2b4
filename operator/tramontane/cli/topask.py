"""Follow what `top` shows, and draw it until a person has seen enough."""

import asyncio
import contextlib
import logging
import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

from tramontane.cli import options, session, topview
from tramontane.cli.topview import Seen
from tramontane.kube.client import Client, Forbidden
from tramontane.kube.informer import Informer
from tramontane.kube.resources import (
    EVENTS,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    TRAININGJOBS,
    Resource,
)

Raw = dict[str, Any]

_EVERY_S = 1.0
_LEAVE = frozenset({"q", "Q", "\x03", "\x1b"})
# What our own components tell; of a busy cluster's other events there are too many.
_TELLERS = ("tramontane.dev/operator", "tramontane.dev/scheduler")
_DECODE: dict[Resource, Callable[[Raw], Any]] = {
    NODEPOOLS: topview.pool,
    TRAININGJOBS: topview.job,
    INFERENCEDEPLOYMENTS: topview.deployment,
    GANGS: topview.gang,
}


async def once(client: Client, namespace: str | None) -> Seen:
    """Return what there is to see now.

    Raises:
        Forbidden: not one of the kinds may be read.
    """
    found: dict[Resource, list[Any]] = {}
    lacking = []
    for resource, decode in _DECODE.items():
        try:
            raws = await session.every(client, resource, namespace)
        except Forbidden:
            lacking.append(resource.plural)
            # Who may read nothing at all must not think that nothing goes on.
            if len(lacking) == len(_DECODE):
                raise
            raws = []
        found[resource] = [decode(raw) for raw in raws]
    events: list[topview.Event] = []
    try:
        for teller in _TELLERS:
            raws = await client.list_all(
                EVENTS, namespace, field_selector=f"reportingController={teller}"
            )
            events += [
                topview.event(raw) for raw in raws if raw.get("reportingController") == teller
            ]
    except Forbidden:
        lacking.append(EVENTS.plural)
    return _seen(found, events, lacking)


async def live(client: Client, namespace: str | None) -> None:
    """Draw until a person leaves.

    Raises:
        NotInstalled: the cluster does not know our kinds.
    """
    # Once, so that what is wrong with the cluster is said in plain words before the screen opens.
    await once(client, namespace)
    # Informers say in the log what keeps them waiting, which would tear the screen.
    logging.disable()
    informers = {
        resource: Informer(client, resource, decode, namespace=namespace)
        for resource, decode in _DECODE.items()
    }
    tellers = [
        Informer(
            client,
            EVENTS,
            topview.event,
            namespace=namespace,
            field_selector=f"reportingController={teller}",
        )
        for teller in _TELLERS
    ]

    def seen() -> Seen:
        events = [one for informer in tellers for one in informer.cache.values()]
        lacking = [resource.plural for resource, one in informers.items() if not one.synced]
        found = {resource: list(one.cache.values()) for resource, one in informers.items()}
        return _seen(found, events, lacking)

    running = [asyncio.create_task(informer.run()) for informer in (*informers.values(), *tellers)]
    try:
        await _draw(seen)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        logging.disable(logging.NOTSET)


async def _draw(seen: Callable[[], Seen]) -> None:
    from rich.console import Console, Group  # noqa: PLC0415 - slow to import
    from rich.live import Live  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    console = Console(highlight=False, no_color=not options.wants_color() or None)
    leave = asyncio.Event()

    def picture() -> Group:
        lines = topview.lines(seen(), time.time(), console.height - 1)
        return Group(*(Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in lines))

    with _keys(leave), Live(picture(), console=console, screen=True, auto_refresh=False) as shown:
        while not leave.is_set():
            shown.update(picture(), refresh=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(leave.wait(), _EVERY_S)


@contextlib.contextmanager
def _keys(leave: asyncio.Event) -> Iterator[None]:
    """Set `leave` when a key says so; the terminal is as it was afterwards."""
    loop = asyncio.get_running_loop()
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed() -> None:
        if set(os.read(number, 64).decode(errors="replace")) & _LEAVE:
            leave.set()

    # What was typed while we connected counts, too.
    tty.setcbreak(number, termios.TCSADRAIN)
    loop.add_reader(number, pressed)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _seen(found: dict[Resource, list[Any]], events: list[Any], lacking: list[str]) -> Seen:
    return Seen(
        pools=sorted(found[NODEPOOLS], key=lambda one: one.name),
        jobs=[*found[TRAININGJOBS], *found[INFERENCEDEPLOYMENTS]],
        gangs=found[GANGS],
        events=events,
        lacking=lacking,
    )
