"""Let blades be older than they are, as after weeks of a hall's life.

What is measured over weeks, as failures per 1,000 blade-days, says nothing in a hall of minutes,
and `creationTimestamp` is the API server's to set. So it is changed where the server keeps it: in
etcd, which speaks JSON on its clients' port, and has custom resources as JSON. The server sees
that as it sees any other's write, and tells all who watch.
"""

import json
from base64 import b64decode, b64encode
from typing import Any, Final

import aiohttp

from tramontane.api import clock
from tramontane.api.names import GROUP
from tramontane.lab.paths import LabError

_DAY_S: Final = 86_400.0
_PREFIX: Final = f"/registry/{GROUP}/blades/"
# The operator writes to the same objects; who comes between is written over by nobody.
_TRIES: Final = 20

Raw = dict[str, Any]


async def age_blades(etcd: str, days: float) -> int:
    """Make all blades so many days older; returns how many there are.

    Args:
        etcd: where it serves clients, as `http://127.0.0.1:2379`.
        days: by how much.

    Raises:
        LabError: a blade was always changed meanwhile.
    """
    end = _PREFIX[:-1] + chr(ord(_PREFIX[-1]) + 1)
    all_of_them = {"key": _text(_PREFIX), "range_end": _text(end), "keys_only": True}
    async with aiohttp.ClientSession(f"{etcd}/v3/kv/") as session:
        keys = [pair["key"] for pair in (await _ask(session, "range", all_of_them)).get("kvs", ())]
        for key in keys:
            await _age(session, key, days * _DAY_S)
    return len(keys)


async def _age(session: aiohttp.ClientSession, key: str, seconds: float) -> None:
    for _ in range(_TRIES):
        (pair,) = (await _ask(session, "range", {"key": key}))["kvs"]
        body = json.loads(b64decode(pair["value"]))
        born = clock.parse(body["metadata"]["creationTimestamp"])
        body["metadata"]["creationTimestamp"] = clock.utc(born - seconds)
        unchanged = {
            "key": key,
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": pair["mod_revision"],
        }
        put = {"request_put": {"key": key, "value": _text(json.dumps(body))}}
        done = await _ask(session, "txn", {"compare": [unchanged], "success": [put]})
        if done.get("succeeded"):
            return
    raise LabError(
        f"{b64decode(key).decode()}: must be left alone for a moment (got: changed {_TRIES} times)"
    )


async def _ask(session: aiohttp.ClientSession, what: str, body: Raw) -> Raw:
    async with session.post(what, json=body) as answer:
        answer.raise_for_status()
        found: Raw = await answer.json()
        return found


def _text(text: str) -> str:
    return b64encode(text.encode()).decode()
