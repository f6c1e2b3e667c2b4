"""Say what each launcher finds in its environment.

torchrun reads each option from `PET_<OPTION>`. The static rendezvous without restarts of its own
behaves the same whatever is lost: every agent ends within two seconds, and all meet again under
unchanged names. (Measured; docs/training.md.)

| launcher | processes find each other by |
|---|---|
| torchrun | PET_*, MASTER_ADDR, MASTER_PORT, WORLD_SIZE: static, no restarts of its own |
| torchrun, elastic | the same with c10d, between the smallest and the largest size |
| torchrun, replica groups | the same, static, within each group; TORCHFT_LIGHTHOUSE among them |
| jax | JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID; see tramontane_rank.py |
| mpi | a host file, named in Open MPI's, PRRTE's and Hydra's variables |
| none | TRAMONTANE_* alone, which all have |
"""

import math
from enum import Enum, auto
from typing import Any, Final

from tramontane.api.trainingjob import LauncherType, TrainingJobSpec
from tramontane.controllers.trainingjob.durations import seconds

AGENT_FOLDER: Final = "/tramontane/agent"
POD_FOLDER: Final = "/tramontane/pod"
HOSTFILE: Final = "hostfile"
HYDRA_HOSTFILE: Final = "hostfile-hydra"
RANK_BLADES: Final = "rank-blades"
LIGHTHOUSE_PORT: Final = 29510  # torchft's own default

# A membership change costs none of these; a worker that crashes costs one, and when they are used
# up the agent ends, so that a mistake is seen and counted.
_ELASTIC_RESTARTS: Final = 3
# c10d's defaults, but for keep-alive: a dead node is gone after 3 s and not after 15.
_ELASTIC_CONF: Final = (
    "join_timeout=600,last_call_timeout=30,keep_alive_interval=1,keep_alive_max_attempt=3"
)

Env = list[dict[str, Any]]
Variables = dict[str, str | int]


class Meeting(Enum):
    """Say how the processes of a job meet."""

    STATIC = auto()
    ELASTIC = auto()
    GROUPS = auto()
    JAX = auto()
    HOSTFILE = auto()
    NONE = auto()

    @classmethod
    def of(cls, spec: TrainingJobSpec) -> "Meeting":
        """Return how the job's processes meet; replica groups come before elastic sizes."""
        match spec.launcher.type:
            case LauncherType.TORCHRUN if spec.launcher.replica_groups > 1:
                return cls.GROUPS
            case LauncherType.TORCHRUN if spec.elastic is not None:
                return cls.ELASTIC
            case LauncherType.TORCHRUN:
                return cls.STATIC
            case LauncherType.JAX:
                return cls.JAX
            case LauncherType.MPI:
                return cls.HOSTFILE
            case _:
                return cls.NONE


def procs_per_node(spec: TrainingJobSpec, gpus: int) -> int:
    """Return the processes per seat: as given; else one with jax, and one per GPU otherwise."""
    if spec.launcher.procs_per_node is not None:
        return spec.launcher.procs_per_node
    return 1 if spec.launcher.type is LauncherType.JAX else max(1, gpus)


def group_size(spec: TrainingJobSpec, size: int) -> int:
    """Return the seats of a replica group in a gang of `size` seats."""
    return size // spec.launcher.replica_groups


def lighthouse_name(job: str) -> str:
    """Return the name of the lighthouse's pod and Service."""
    return f"{job}-lighthouse"


def seat_host(job: str, spec: TrainingJobSpec, seat: int) -> str:
    """Return the host name of a seat's pod, without its domain.

    c10d gives ranks in the *string* order of these names, so that they are padded there: ranks
    then lie along the topology as seats do.
    """
    if Meeting.of(spec) is Meeting.ELASTIC:
        return f"{job}-{seat:0{len(str(spec.nodes - 1))}}"
    return f"{job}-{seat}"


def host_name(job: str, spec: TrainingJobSpec, seat: int) -> str:
    """Return the stable name of a seat's pod, through the job's headless Service."""
    return f"{seat_host(job, spec, seat)}.{job}"


def shared_env(job: str, spec: TrainingJobSpec, size: int, gpus: int) -> Env:
    """Return the variables that all seats have alike."""
    port, procs = spec.launcher.port, procs_per_node(spec, gpus)
    master = host_name(job, spec, 0)
    plain: Variables = {"TRAMONTANE_JOB": job, "TRAMONTANE_NODES": size}
    match Meeting.of(spec):
        case Meeting.STATIC:
            plain |= _torchrun(spec, size, procs)
            plain |= {"PET_RDZV_ID": job, "PET_MASTER_ADDR": master, "MASTER_ADDR": master}
        case Meeting.ELASTIC:
            plain |= _torchrun(spec, size, procs)
            least = min(spec.elastic.sizes if spec.elastic else (size,))
            plain |= {
                "PET_NNODES": f"{min(least, size)}:{size}",
                "PET_RDZV_BACKEND": "c10d",
                "PET_RDZV_ENDPOINT": f"{master}:{port}",
                "PET_RDZV_ID": job,
                "PET_MAX_RESTARTS": _ELASTIC_RESTARTS,
                # Else restarted workers read the last meeting's addresses and hang.
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": 1,
            }
        case Meeting.GROUPS:
            plain |= _torchrun(spec, group_size(spec, size), procs)
            plain |= {
                "NUM_REPLICA_GROUPS": spec.launcher.replica_groups,
                "TORCHFT_LIGHTHOUSE": f"http://{lighthouse_name(job)}:{LIGHTHOUSE_PORT}",
            }
        case Meeting.JAX:
            plain |= {"JAX_COORDINATOR_ADDRESS": f"{master}:{port}", "JAX_NUM_PROCESSES": size}
        case Meeting.HOSTFILE:
            hosts = f"{AGENT_FOLDER}/{HOSTFILE}"
            plain |= {
                "OMPI_MCA_orte_default_hostfile": hosts,
                "PRTE_MCA_prte_default_hostfile": hosts,
                "HYDRA_HOST_FILE": f"{AGENT_FOLDER}/{HYDRA_HOSTFILE}",
                "I_MPI_HYDRA_HOST_FILE": f"{AGENT_FOLDER}/{HYDRA_HOSTFILE}",
            }
        case Meeting.NONE:
            pass
    return [{"name": name, "value": str(value)} for name, value in plain.items()]


def _torchrun(spec: TrainingJobSpec, nodes: int, procs: int) -> Variables:
    return {
        "PET_NNODES": nodes,
        "PET_NPROC_PER_NODE": procs,
        "PET_MASTER_PORT": spec.launcher.port,
        "PET_RDZV_BACKEND": "static",
        "PET_MAX_RESTARTS": 0,
        # What workers have for a last checkpoint after SIGTERM; torchrun's own default is 30 s.
        "PET_SHUTDOWN_TIMEOUT": math.ceil(seconds(spec.checkpoint.grace)),
        "MASTER_PORT": spec.launcher.port,
        "WORLD_SIZE": nodes * procs,
    }


def seat_env(job: str, spec: TrainingJobSpec, size: int, seat: int) -> Variables:
    """Return the variables that differ from seat to seat. O(1)."""
    own: Variables = {"TRAMONTANE_SEAT": seat, "TRAMONTANE_HOST": host_name(job, spec, seat)}
    match Meeting.of(spec):
        case Meeting.STATIC:
            own |= {"PET_NODE_RANK": seat}
        case Meeting.ELASTIC:
            is_host = "true" if seat == 0 else "false"
            own |= {
                "PET_NODE_RANK": seat,
                "PET_LOCAL_ADDR": host_name(job, spec, seat),
                "PET_RDZV_CONF": f"{_ELASTIC_CONF},is_host={is_host}",
            }
        case Meeting.GROUPS:
            group, rank = divmod(seat, group_size(spec, size))
            master = host_name(job, spec, seat - rank)
            own |= {
                "PET_NODE_RANK": rank,
                "PET_RDZV_ID": f"{job}-{group}",
                "PET_MASTER_ADDR": master,
                "MASTER_ADDR": master,
                "REPLICA_GROUP_ID": group,
            }
        case Meeting.JAX:
            own |= {"JAX_PROCESS_ID": seat}
        case Meeting.HOSTFILE | Meeting.NONE:
            pass
    return own


def hostfiles(job: str, spec: TrainingJobSpec, size: int, gpus: int) -> dict[str, str]:
    """Return the host files of an MPI job, by name: Open MPI's form and Hydra's; else nothing."""
    if spec.launcher.type is not LauncherType.MPI:
        return {}
    slots = procs_per_node(spec, gpus)
    hosts = [host_name(job, spec, seat) for seat in range(size)]
    return {
        HOSTFILE: "".join(f"{host} slots={slots}\n" for host in hosts),
        HYDRA_HOSTFILE: "".join(f"{host}:{slots}\n" for host in hosts),
    }
