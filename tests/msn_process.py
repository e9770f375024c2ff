"""One of several processes that share a batch of MSN; a file of its own, so that a new process loads little."""

import torch
import torch.distributed as dist

from chexmsn.methods import msn


def features():
    """Targets, anchors and prototypes of the whole batch."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (8, 8, 10)]


def loss_of(rows):
    """Targets' assignments, loss and the prototypes' gradient for these rows of the batch."""
    targets, anchors, prototypes = features()
    prototypes.requires_grad_()
    logs = msn.log_assignments(anchors[rows], prototypes, 0.1)
    wanted = msn.target_assignments(targets[rows], prototypes)
    loss = msn.cross_entropy(logs, wanted) + msn.divergence_from_uniform(msn.mean_assignment(logs))
    loss.backward()
    return wanted, loss.detach(), prototypes.grad


def run(rank, folder, processes):
    """What process `rank` finds for its share of the batch, saved in the folder."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    share = 8 // processes
    torch.save(loss_of(slice(share * rank, share * (rank + 1))), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
