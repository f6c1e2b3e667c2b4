"""What a process never calls is not loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

KUBECONFIG = """
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def test_connecting_leaves_the_blocking_client_out(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(KUBECONFIG)
    program = (
        "import asyncio, sys; from tramontane.kube.config import connect;"
        f"asyncio.run(connect({str(tmp_path / 'config')!r}, 1));"
        "assert 'kubernetes.aio.client' in sys.modules;"
        "print(*{'requests', 'oauthlib', 'kubernetes.client', 'urllib3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"\n"


@pytest.mark.parametrize("name", ["no", "kubernetes.no", "kubernetes"])
def test_what_is_not_there_or_there_already_stays_as_it_is(name: str) -> None:
    import kubernetes  # noqa: PLC0415 - the parent, and a package that is loaded

    from tramontane.kube.slim import skip_init  # noqa: PLC0415

    skip_init(name)
    assert sys.modules["kubernetes"] is kubernetes
    assert {"no", "kubernetes.no"}.isdisjoint(sys.modules)
