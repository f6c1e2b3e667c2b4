"""What each launcher finds in its environment, seat by seat."""

from typing import Any

import pytest

from tramontane.controllers.trainingjob import launchers
from unit.trainingjob.builders import a_job

Raw = dict[str, Any]


def environment(seat: int = 3, size: int | None = None, gpus: int = 8, **spec: Any) -> Raw:
    """Return what the launcher of a seat finds, without what all ranks have."""
    job = a_job(**spec)
    size = size or job.spec.nodes
    shared = launchers.shared_env("llama", job.spec, size, gpus)
    found: Raw = {one["name"]: one["value"] for one in shared}
    its = launchers.seat_env("llama", job.spec, size, seat)
    own = {name: str(value) for name, value in its.items()}
    assert not found.keys() & own.keys(), "said twice"
    return {k: v for k, v in {**found, **own}.items() if not k.startswith("TRAMONTANE_")}


CASES = {
    "torchrun": (
        {"launcher": {"type": "torchrun"}},
        {
            "PET_NNODES": "4", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "3",
            "PET_MASTER_ADDR": "llama-0.llama", "PET_MASTER_PORT": "29500",
            "PET_RDZV_BACKEND": "static", "PET_RDZV_ID": "llama", "PET_MAX_RESTARTS": "0",
            "PET_SHUTDOWN_TIMEOUT": "120",
            "MASTER_ADDR": "llama-0.llama", "MASTER_PORT": "29500", "WORLD_SIZE": "32",
        },
    ),
    "torchrun, elastic": (
        {"nodes": 16, "elastic": {"sizes": [16, 12, 8]}, "checkpoint": {"grace": "5m"}},
        {
            "PET_NNODES": "8:16", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "3",
            "PET_MASTER_PORT": "29500", "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ID": "llama",
            "PET_RDZV_ENDPOINT": "llama-00.llama:29500", "PET_LOCAL_ADDR": "llama-03.llama",
            "PET_RDZV_CONF": "join_timeout=600,last_call_timeout=30,keep_alive_interval=1,"
            "keep_alive_max_attempt=3,is_host=false",
            "PET_MAX_RESTARTS": "3", "PET_SHUTDOWN_TIMEOUT": "300",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "MASTER_PORT": "29500", "WORLD_SIZE": "128",
        },
    ),
    "torchrun, replica groups": (
        {"nodes": 8, "launcher": {"replicaGroups": 4}},
        {
            "PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "1",
            "PET_MASTER_ADDR": "llama-2.llama", "PET_MASTER_PORT": "29500",
            "PET_RDZV_BACKEND": "static", "PET_RDZV_ID": "llama-1", "PET_MAX_RESTARTS": "0",
            "PET_SHUTDOWN_TIMEOUT": "120",
            "MASTER_ADDR": "llama-2.llama", "MASTER_PORT": "29500", "WORLD_SIZE": "16",
            "REPLICA_GROUP_ID": "1", "NUM_REPLICA_GROUPS": "4",
            "TORCHFT_LIGHTHOUSE": "http://llama-lighthouse:29510",
        },
    ),
    "jax": (
        {"launcher": {"type": "jax", "port": 1234}},
        {
            "JAX_COORDINATOR_ADDRESS": "llama-0.llama:1234",
            "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3",
        },
    ),
    "mpi": (
        {"launcher": {"type": "mpi"}},
        {
            "OMPI_MCA_orte_default_hostfile": "/tramontane/agent/hostfile",
            "PRTE_MCA_prte_default_hostfile": "/tramontane/agent/hostfile",
            "HYDRA_HOST_FILE": "/tramontane/agent/hostfile-hydra",
            "I_MPI_HYDRA_HOST_FILE": "/tramontane/agent/hostfile-hydra",
        },
    ),
    "none": ({"launcher": {"type": "none"}}, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "expected"), [pytest.param(*case, id=name) for name, case in CASES.items()]
)
def test_each_launcher_finds_its_environment(spec: Raw, expected: Raw) -> None:
    assert environment(**spec) == expected


def test_only_seat_0_of_an_elastic_job_hosts_the_meeting() -> None:
    hosts = [
        "is_host=true" in environment(seat, elastic={"sizes": [4, 2]})["PET_RDZV_CONF"]
        for seat in range(4)
    ]

    assert hosts == [True, False, False, False]


def test_elastic_names_are_in_the_order_of_their_seats() -> None:
    job = a_job(nodes=1000, elastic={"sizes": [1000, 500]})
    names = [launchers.host_name("llama", job.spec, seat) for seat in range(1000)]

    assert names == sorted(names)


def test_seats_fill_one_replica_group_after_the_other() -> None:
    found = [environment(seat, nodes=6, launcher={"replicaGroups": 3}) for seat in range(6)]

    assert [(one["REPLICA_GROUP_ID"], one["PET_NODE_RANK"]) for one in found] == [
        ("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"), ("2", "0"), ("2", "1"),
    ]  # fmt: skip
    assert [one["MASTER_ADDR"] for one in found[2:4]] == ["llama-2.llama"] * 2


def test_a_smaller_gang_has_smaller_replica_groups() -> None:
    found = environment(3, size=4, nodes=8, launcher={"replicaGroups": 4})

    assert (found["NUM_REPLICA_GROUPS"], found["REPLICA_GROUP_ID"]) == ("4", "3")
    assert (found["PET_NNODES"], found["PET_NODE_RANK"], found["WORLD_SIZE"]) == ("1", "0", "8")


def test_one_process_per_gpu_but_with_jax() -> None:
    assert environment(gpus=4)["PET_NPROC_PER_NODE"] == "4"
    assert environment(gpus=0)["PET_NPROC_PER_NODE"] == "1"
    assert environment(launcher={"procsPerNode": 2})["WORLD_SIZE"] == "8"
    assert launchers.procs_per_node(a_job(launcher={"type": "jax"}).spec, 8) == 1
