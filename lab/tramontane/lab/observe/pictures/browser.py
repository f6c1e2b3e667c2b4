"""Drive a headless Chromium over its debugging protocol: open a page, ask it, photograph it.

Four commands of the protocol are all that is needed, so it is spoken here over aiohttp instead of
through a driver with a browser of its own.
"""

import asyncio
import base64
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tramontane.lab.paths import LabError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_S = 60.0
_ANSWER_S = 180.0
_LOADED = """new Promise((loaded) => {
  document.readyState === 'complete' ? loaded() : window.addEventListener('load', () => loaded());
})"""
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",  # it asks nobody for news
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)


def find() -> str:
    """Return the path of a Chromium.

    Raises:
        LabError: there is none.
    """
    wanted = [os.environ.get("CHROMIUM"), *NAMES]
    for name in filter(None, wanted):
        if found := shutil.which(name):
            return found
    raise LabError(
        f"chromium: one of {', '.join(NAMES)} must be on PATH, or CHROMIUM must name one (got"
        " none); install it (Debian: apt-get install chromium)"
    )


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.console: list[str] = []

    async def open(self) -> None:
        """Open an empty page that the commands below go to."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        await self.call("Page.enable")
        await self.call("Runtime.enable")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result.

        Raises:
            LabError: the browser refused it, or went away.
        """
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        async with asyncio.timeout(_ANSWER_S):
            async for frame in self._socket:
                answer = frame.json()
                self._note(answer)
                if answer.get("id") != number:
                    continue
                if "error" in answer:
                    raise LabError(f"chromium: {method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
        raise LabError(f"chromium: must answer {method} (got: it went away)")

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.consoleAPICalled":
            said = event["params"]
            words = [str(one.get("value", one.get("description"))) for one in said["args"]]
            self.console.append(f"{said['type']}: {' '.join(words)}")
        elif event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            self.console.append(f"thrown: {thrown}")

    async def go(self, address: str, *, width: int, height: int) -> None:
        """Load an address into a window of this size."""
        await self._resize(width, height)
        await self.call("Page.navigate", url=address)
        await self.ask(_LOADED)

    async def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, wait for its promise, return the value.

        Raises:
            LabError: it threw.
        """
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if failed := answer.get("exceptionDetails"):
            thrown = failed.get("exception", {}).get("description", failed["text"])
            said = "".join(f"\n  {line}" for line in self.console[-10:])
            raise LabError(f"chromium: {expression}: {thrown}{said}")
        return answer["result"].get("value")

    async def photograph(self, *, width: int, height: int) -> bytes:
        """Return a PNG of the page's upper left corner of this size."""
        await self._resize(width, height)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", clip=clip)
        return base64.b64decode(shot["data"])

    async def _resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """Start a Chromium with a fresh profile; stop it in the end.

    Raises:
        LabError: there is none, or it does not start.
    """
    # As root it has no user to sandbox itself into; it sees only the page we serve.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(
        prefix="tramontane-chromium-", ignore_cleanup_errors=True
    ) as profile:
        process = await asyncio.create_subprocess_exec(
            find(), *_FLAGS, *sandbox, f"--user-data-dir={profile}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"HOME": profile},
        )  # fmt: skip
        try:
            address, drain = await _started(process, Path(profile))
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=0) as socket,
            ):
                page = Page(socket)
                await page.open()
                yield page
            drain.cancel()
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _started(
    process: asyncio.subprocess.Process, profile: Path
) -> tuple[str, asyncio.Task[None]]:
    """Wait until it says where it listens; go on reading what it says, so that it never blocks."""
    assert process.stderr is not None
    said: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while line := (await process.stderr.readline()).decode(errors="replace"):
                said.append(line.rstrip())
                if found := re.search(r"listening on (ws://\S+)", line):
                    return found[1], asyncio.create_task(_drain(process.stderr))
    tail = "".join(f"\n  {line}" for line in said[-10:])
    raise LabError(f"chromium: must listen for commands (got: it does not) in {profile}:{tail}")


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
