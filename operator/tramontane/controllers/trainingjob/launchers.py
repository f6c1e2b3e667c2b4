"""Say what each launcher finds in its environment.

torchrun reads each option from `PET_<OPTION>`. The static rendezvous without restarts of its own
behaves the same whatever is lost: every agent ends within two seconds, and all meet again under
unchanged names. (Measured; docs/decisions/0006.)

| launcher | processes find each other by |
|---|---|
| torchrun | PET_*, MASTER_ADDR, MASTER_PORT, WORLD_SIZE |
| jax | JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID |
| mpi | a host file, named in Open MPI's, PRRTE's and Hydra's variables |
| none | TRAMONTANE_* alone, which all have |
"""

from typing import Any

from tramontane.api.trainingjob import LauncherType, TrainingJobSpec

AGENT_FOLDER = "/tramontane/agent"
POD_FOLDER = "/tramontane/pod"
HOSTFILE = "hostfile"
HYDRA_HOSTFILE = "hostfile-hydra"
RANK_BLADES = "rank-blades"

Env = list[dict[str, Any]]


def procs_per_node(spec: TrainingJobSpec, gpus: int) -> int:
    """Return the processes per seat: as given; else one with jax, and one per GPU otherwise."""
    if spec.launcher.procs_per_node is not None:
        return spec.launcher.procs_per_node
    return 1 if spec.launcher.type is LauncherType.JAX else max(1, gpus)


def host_name(job: str, seat: int) -> str:
    """Return the stable name of a seat's pod, through the job's headless Service."""
    return f"{job}-{seat}.{job}"


def shared_env(job: str, spec: TrainingJobSpec, size: int, gpus: int) -> Env:
    """Return the variables that all seats have alike."""
    port, procs = spec.launcher.port, procs_per_node(spec, gpus)
    master = host_name(job, 0)
    plain: dict[str, str | int] = {"TRAMONTANE_JOB": job, "TRAMONTANE_NODES": size}
    match spec.launcher.type:
        case LauncherType.TORCHRUN:
            plain |= {
                "PET_NNODES": size,
                "PET_NPROC_PER_NODE": procs,
                "PET_MASTER_ADDR": master,
                "PET_MASTER_PORT": port,
                "PET_RDZV_BACKEND": "static",
                "PET_RDZV_ID": job,
                "PET_MAX_RESTARTS": 0,
                "MASTER_ADDR": master,
                "MASTER_PORT": port,
                "WORLD_SIZE": size * procs,
            }
        case LauncherType.JAX:
            plain |= {
                "JAX_COORDINATOR_ADDRESS": f"{master}:{port}",
                "JAX_NUM_PROCESSES": size,
            }
        case LauncherType.MPI:
            hosts = f"{AGENT_FOLDER}/{HOSTFILE}"
            plain |= {
                "OMPI_MCA_orte_default_hostfile": hosts,
                "PRTE_MCA_prte_default_hostfile": hosts,
                "HYDRA_HOST_FILE": f"{AGENT_FOLDER}/{HYDRA_HOSTFILE}",
                "I_MPI_HYDRA_HOST_FILE": f"{AGENT_FOLDER}/{HYDRA_HOSTFILE}",
            }
        case LauncherType.NONE:
            pass
    return [{"name": name, "value": str(value)} for name, value in plain.items()]


def seat_variables(spec: TrainingJobSpec) -> tuple[str, ...]:
    """Return the variables whose value is the seat's number."""
    match spec.launcher.type:
        case LauncherType.TORCHRUN:
            return ("TRAMONTANE_SEAT", "PET_NODE_RANK")
        case LauncherType.JAX:
            return ("TRAMONTANE_SEAT", "JAX_PROCESS_ID")
        case _:
            return ("TRAMONTANE_SEAT",)


def hostfiles(job: str, spec: TrainingJobSpec, size: int, gpus: int) -> dict[str, str]:
    """Return the host files of an MPI job, by name: Open MPI's form and Hydra's; else nothing."""
    if spec.launcher.type is not LauncherType.MPI:
        return {}
    slots = procs_per_node(spec, gpus)
    hosts = [host_name(job, seat) for seat in range(size)]
    return {
        HOSTFILE: "".join(f"{host} slots={slots}\n" for host in hosts),
        HYDRA_HOSTFILE: "".join(f"{host}:{slots}\n" for host in hosts),
    }
