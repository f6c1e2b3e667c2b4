"""When a kubelet last spoke, as its Lease says it."""

import pytest

from tramontane.api.clock import micro
from tramontane.controllers.nodepool.kubelet import _renewed_at


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"renewTime": micro(1000), "leaseDurationSeconds": 40}, 1000.0, id="usual"),
        pytest.param({"renewTime": micro(1000)}, 1000.0, id="no duration"),
        pytest.param({"renewTime": micro(1000), "leaseDurationSeconds": 8}, 1000.0, id="shorter"),
        pytest.param({"renewTime": micro(1000), "leaseDurationSeconds": 320}, 1280.0, id="longer"),
        pytest.param({}, None, id="never renewed"),
        pytest.param(None, None, id="no spec"),
    ],
)
def test_a_kubelet_with_a_longer_lease_may_be_silent_longer(
    spec: dict[str, object] | None, expected: float | None
) -> None:
    assert _renewed_at({"spec": spec}) == expected
