"""The processes of a run, one per device: who started them, and what they are to each other.

torchrun, Slurm's srun or the run itself (`devices.py`) starts them. However they came, they then are the same: each
knows its rank from the environment, joins the others and runs the same function. The first one alone speaks, writes
and locks. When one fails it takes the others with it, and of several that fail the first to do so alone says why.
"""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from torch.distributed.rendezvous import rendezvous

from chexmsn.core.device import choose_device
from chexmsn.core.errors import UserError
from chexmsn.training.config import RunConfig

AFTER_YOU = 3.0  # seconds for whoever knows why a connection broke to say so
STORE_PATIENCE = timedelta(seconds=10)  # for a word with a store that may be gone


def launcher() -> ClusterEnvironment | None:
    """What started this process beside others: torchrun, or srun with more than one task; None where nothing did.

    Raises UserError for an srun whose tasks are not counted per node, which Lightning needs to place them.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == 1:
        return None
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(f"Slurm started {tasks} tasks without a number per node: give --ntasks-per-node to sbatch")
    # Lightning's own requeue saves inside the handler of the signal, wherever in a step it comes, each process for
    # itself and to a file of its own: `KeepLast` does it between two steps, all processes at the same
    return SLURMEnvironment(auto_requeue=False)


def check_layout(config: RunConfig, environment: ClusterEnvironment | None) -> None:
    """Raises UserError where processes, devices and nodes do not agree."""
    if environment is None:
        if config.nodes > 1:
            raise UserError(
                f"a run on {config.nodes} nodes is started on each of them, by torchrun or srun (docs/training.md): "
                "start it so, or take --nodes 1"
            )
        return
    slurm = isinstance(environment, SLURMEnvironment)
    starter, per_node = ("srun", "SLURM_NTASKS_PER_NODE") if slurm else ("torchrun", "LOCAL_WORLD_SIZE")
    world, here = environment.world_size(), int(os.environ[per_node])
    if (config.devices * config.nodes, config.devices) != (world, here):
        raise UserError(
            f"{starter} started {world} processes, {here} on a node, and the run asks for {config.devices} devices on "
            f"{config.nodes} nodes: give --devices {here} --nodes {max(1, world // here)}"
        )


@contextmanager
def joined(environment: ClusterEnvironment, config: RunConfig) -> Iterator[None]:
    """Be one of the processes of a run, from meeting the others to parting.

    Raises SystemExit in place of an exception of which another process tells the cause.
    """
    rank, world = environment.global_rank(), environment.world_size()
    if rank > 0:
        logging.getLogger().setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)}
    store, *_ = next(rendezvous("env://", rank, world))
    on_gpu = choose_device(config.device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(environment.local_rank())
    group = dist.PrefixStore("group", store)
    dist.init_process_group("nccl" if on_gpu else "gloo", store=group, rank=rank, world_size=world)
    try:
        yield
    except BaseException as error:
        if _is_of_the_connection(error):
            time.sleep(AFTER_YOU)
        if not claim_failure(store):
            sys.exit(exit_code(error))
        raise
    dist.destroy_process_group()


def _is_of_the_connection(error: BaseException) -> bool:
    """Whether an error says only that another process is gone, which has, or had, the better reason."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def claim_failure(store: dist.Store) -> bool:
    """Whether nobody has told of a failure yet; who asks first is to tell."""
    try:
        store.set_timeout(STORE_PATIENCE)
        return store.add("failed", 1) == 1
    except RuntimeError:  # whoever held the store has ended before
        return False


def exit_code(error: BaseException) -> int:
    """The code of a process that ends by an exception, as the command line gives it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 2 if isinstance(error, UserError | OSError) else 1
