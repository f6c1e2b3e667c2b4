"""Give orders to a running simulator: faults to blades, and back."""

import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tramontane.lab.description import Description
from tramontane.lab.faults import Fault
from tramontane.lab.paths import LabError

_HTTP_ERROR = 400


class Remote:
    """The simulator of one lab, over loopback."""

    def __init__(self, folder: Path, description: Description) -> None:
        self._base = f"https://127.0.0.1:{description.kubelet_port}/lab/blades"
        self._tls = ssl.create_default_context(cafile=folder / "keys" / "ca.crt")
        headers = {"Authorization": f"Bearer {description.token}"}
        self._session = aiohttp.ClientSession(headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def inject(self, blade: str, fault: Fault) -> None:
        """Let a blade have a fault; returns when it has it."""
        await self._ask("POST", f"/{blade}/faults", {"fault": str(fault), "gpu": fault.gpu})

    async def clear(self, blade: str) -> list[str]:
        """Repair a blade; return the faults that it had."""
        had: list[str] = await self._ask("DELETE", f"/{blade}/faults")
        return had

    async def faults(self) -> dict[str, list[str]]:
        """Return what is wrong in the hall, by blade."""
        faults: dict[str, list[str]] = await self._ask("GET", "")
        return faults

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            async with self._session.request(
                method, self._base + path, json=body, ssl=self._tls
            ) as answer:
                if answer.status >= _HTTP_ERROR:
                    raise LabError(await answer.text())
                return await answer.json()
        except aiohttp.ClientConnectionError as error:
            got = getattr(error, "os_error", error)
            raise LabError(
                f"simulator: must answer at {self._base} (got {got});"
                " `tramontane lab status` shows whether it runs"
            ) from error
