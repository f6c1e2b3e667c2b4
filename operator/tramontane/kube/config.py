"""Find the API server and our credentials, with the official client's loaders.

`kubernetes.aio` reads kubeconfigs and service accounts, runs credential plugins, re-reads
tokens and builds the TLS context and the aiohttp session. Its models and API classes are never
touched: they load lazily and would cost tens of MiB. The imports stand inside the functions,
so that a command which talks to no cluster does not pay for them.
"""

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml

from tramontane.api.errors import InvalidValue
from tramontane.kube import slim
from tramontane.kube.errors import Unreachable

log = logging.getLogger(__name__)

_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
# A line of a watch may be as large as the largest object (several hundred KB).
_READ_BUFFER_B = 2**21
_REFRESH_AGAIN_S = 60.0


class Connection:
    """An aiohttp session to one API server, and the headers that say who we are."""

    def __init__(self, configuration: Any, session: aiohttp.ClientSession) -> None:
        self.server: str = configuration.host.rstrip("/")
        self.session = session
        self._configuration = configuration
        self._refresher: asyncio.Task[None] | None = None
        #: What every request of aiohttp takes besides method, URL and headers.
        self.arguments: dict[str, Any] = {}
        if configuration.tls_server_name:
            self.arguments["server_hostname"] = configuration.tls_server_name
        if proxy := configuration.proxy or _environment_proxy(self.server):
            self.arguments["proxy"] = proxy

    def refresh_by(self, loop: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Run the loader's own `loop` that renews short-lived credentials, whatever happens."""

        async def refresh() -> None:
            while True:
                try:
                    await loop(self._configuration)
                except Exception:
                    # The old credentials may still be good, and the next try may succeed.
                    log.exception("refreshing the credentials failed server=%s", self.server)
                await asyncio.sleep(_REFRESH_AGAIN_S)

        self._refresher = asyncio.create_task(refresh(), name="credentials")

    async def authorize(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return `headers` with the token of this moment, if there is one.

        Raises:
            Unreachable: the token could not be read again.
        """
        try:
            token = await self._configuration.get_api_key_with_prefix("BearerToken")
        except Exception as error:
            raise Unreachable(
                f"{self.server}: our token must be readable (got {str(error) or error!r})"
            ) from error
        return {**headers, "Authorization": token} if token else headers

    async def close(self) -> None:
        """Close the session and end the refresher."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
        await self.session.close()


def _must_exist(source: str) -> None:
    """Say that there is no kubeconfig where the loader would say that it is an invalid one.

    Raises:
        FileNotFoundError: of the files that are named, as kubectl separates them, none is there.
    """
    if not any(os.path.exists(os.path.expanduser(one)) for one in source.split(os.pathsep)):  # noqa: PTH110, PTH111 - text, as the loader takes it
        raise FileNotFoundError("there is no such file")


async def connect(
    kubeconfig: str | os.PathLike[str] | None, connections: int, context: str | None = None
) -> Connection:
    """Return a connection: `kubeconfig` if given, else in-cluster, else the user's kubeconfig.

    Only a kubeconfig has contexts: one that is named leads past the service account.

    Raises:
        InvalidValue: there is no usable configuration.
    """
    slim.prepare()
    from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415 - see above
    from kubernetes.aio.client.rest import RESTClientObject  # noqa: PLC0415
    from kubernetes.aio.config import (  # noqa: PLC0415
        ConfigException,
        load_incluster_config,
        load_kube_config,
    )

    configuration = Configuration(
        connection_pool_maxsize=connections,
        client_session_kwargs={
            # With trust_env aiohttp would search the environment and .netrc on each request.
            "trust_env": False,
            "read_bufsize": _READ_BUFFER_B,
            "cookie_jar": aiohttp.DummyCookieJar(),
        },
    )
    # Clusters' own CAs often lack extensions that RFC 5280 wants and Go does not ask for;
    # chain and host name are verified all the same.
    configuration.disable_strict_ssl_verification = True
    loader = None
    try:
        if kubeconfig is None and context is None and os.environ.get(_SERVICE_HOST):
            source = "service account"
            load_incluster_config(client_configuration=configuration)
        else:
            source = str(kubeconfig or os.environ.get("KUBECONFIG") or _default_kubeconfig())
            _must_exist(source)
            loader = await load_kube_config(
                config_file=source,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        session = RESTClientObject(configuration)._create_pool_manager()  # noqa: SLF001 - its factory method
    except (
        ConfigException,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        yaml.YAMLError,
    ) as error:
        raise InvalidValue(
            f"{source}: must say where the API server is ({error})",
            remedy="set KUBECONFIG, or give the path of a kubeconfig",
        ) from error
    connection = Connection(configuration, session)
    if loader is not None and (loop := _refresh_loop(loader)):
        connection.refresh_by(loop)
    return connection


def _refresh_loop(loader: Any) -> Callable[[Any], Coroutine[Any, Any, None]] | None:
    """Return the loader's refresh loop where its credentials run out, else None."""
    from kubernetes.aio.config import refresh_token  # noqa: PLC0415 - see the module

    user = loader._user  # noqa: SLF001 - refresh_token reads it too, and fails where it is None
    if user is None or not (loader.provider == "gcp" or "exec" in user):
        return None
    return lambda configuration: refresh_token(loader, client_configuration=configuration)


def _default_kubeconfig() -> Path:
    return Path.home() / ".kube" / "config"


def _environment_proxy(server: str) -> str | None:
    """Return the proxy that the environment names for `server`; never one for loopback."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host):
        return None
    if proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
