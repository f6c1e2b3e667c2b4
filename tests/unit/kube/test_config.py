import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import ConfigException, incluster_config

from support.scripted import kubeconfig, until
from tramontane.api.errors import InvalidValue
from tramontane.kube import config
from tramontane.kube.config import connect
from tramontane.kube.errors import Unreachable

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_in_a_cluster_the_service_account_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, token = tmp_path / "ca.crt", tmp_path / "token"
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kc", "http://127.0.0.1:1")))
    token.write_text("secret")
    ca.write_text(_ca())
    connection = await connect(None, 4)
    assert connection.server == "https://10.96.0.1:443"
    assert await connection.authorize({"a": "b"}) == {"a": "b", "Authorization": "bearer secret"}

    def empty(_: Any) -> None:
        raise ConfigException("Token file exists but empty.")

    connection._configuration.refresh_api_key_hook = empty
    with pytest.raises(Unreachable, match="our token must be readable"):
        await connection.authorize({})
    await connection.close()
    # A path that is given goes before it.
    connection = await connect(tmp_path / "kc", 4)
    assert connection.server == "http://127.0.0.1:1"
    await connection.close()


def _ca() -> str:
    """Return some certificate of a CA, as this Python's own trust store has them."""
    import certifi  # noqa: PLC0415 - comes with the official client

    text = Path(certifi.where()).read_text(encoding="utf-8")
    end = "-----END CERTIFICATE-----\n"
    return text[text.index("-----BEGIN") : text.index(end) + len(end)]


def write(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    raw = json.loads(kubeconfig(path, "").read_text())
    raw["clusters"][0]["cluster"] = cluster
    raw["users"][0]["user"] = user
    path.write_text(json.dumps(raw))
    return path


async def test_no_credentials_are_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "kc", {"server": "http://127.0.0.1:1/"}, {})
    connection = await connect(path, 4)
    assert connection.server == "http://127.0.0.1:1"
    assert await connection.authorize({"a": "b"}) == {"a": "b"}
    await connection.close()


async def test_a_plugin_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count = tmp_path / "count"
    script = (
        "import json, pathlib, sys; p = pathlib.Path(sys.argv[1]);"
        "n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1));"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1',"
        " 'kind': 'ExecCredential', 'status': {'token': f't{n}'}}))"
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script, str(count)],
    }
    path = write(tmp_path / "kc", {"server": "http://127.0.0.1:1"}, {"exec": plugin})

    tries = 0

    async def once(loader: Any, client_configuration: Any) -> None:
        """Do what the loader's loop does each minute, after it failed once."""
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("no plugin")
        await loader.load_from_exec_plugin()
        client_configuration.api_key["BearerToken"] = loader.token
        await asyncio.Event().wait()

    monkeypatch.setattr("kubernetes.aio.config.refresh_token", once)
    monkeypatch.setattr(config, "_REFRESH_AGAIN_S", 0.01)
    connection = await connect(path, 4)
    assert (await connection.authorize({}))["Authorization"] == "Bearer t0"
    await until(lambda: connection._configuration.api_key["BearerToken"] == "Bearer t1")
    await connection.close()
    assert "refreshing the credentials failed" in caplog.text


@pytest.mark.parametrize(
    ("server", "environment", "proxy"),
    [
        pytest.param("https://api.example:6443", {}, None, id="none"),
        pytest.param("https://api.example:6443", {"https_proxy": PROXY}, PROXY, id="environment"),
        pytest.param(
            "https://api.example:6443",
            {"https_proxy": PROXY, "no_proxy": ".example"},
            None,
            id="excepted",
        ),
        pytest.param("https://127.0.0.1:6443", {"https_proxy": PROXY}, None, id="loopback"),
        pytest.param("https://localhost:6443", {"https_proxy": PROXY}, None, id="localhost"),
    ],
)
async def test_the_proxy_of_the_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    environment: dict[str, str],
    proxy: str | None,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    connection = await connect(write(tmp_path / "kc", {"server": server}, {}), 4)
    assert connection.arguments.get("proxy") == proxy
    await connection.close()


async def test_the_kubeconfig_knows_proxy_and_name(tmp_path: Path) -> None:
    cluster = {
        "server": "https://api.example:6443",
        "proxy-url": PROXY,
        "tls-server-name": "other.example",
    }
    connection = await connect(write(tmp_path / "kc", cluster, {}), 4)
    assert connection.arguments == {"proxy": PROXY, "server_hostname": "other.example"}
    await connection.close()


async def test_a_kubeconfig_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"nowhere: must say .* \(there is no such file\)"):
        await connect(tmp_path / "nowhere", 4)
    there = write(tmp_path / "kc", {"server": "https://api.example:6443"}, {})
    both = os.pathsep.join(map(str, (tmp_path / "nowhere", there)))
    connection = await connect(both, 4)
    await connection.close()
