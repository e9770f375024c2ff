"""Prior Matching for Siamese Networks: MSN for collections whose classes are not equally frequent.

Assran et al., The Hidden Uniform Cluster Prior in Self-Supervised Learning, ICLR 2023, arXiv 2210.07277. The authors
published no code; equations and figures are compared with lightly's (`lightly/loss/pmsn_loss.py`, commit e8d317f).

MSN with one term exchanged. MSN asks that all prototypes get equally many images, which suits data of equally
frequent classes; findings on radiographs have a long tail. PMSN asks that the k-th prototype gets a share
proportional to k^(-exponent). All else, and all other deviations from the authors, is in `msn`.

Decisions, and why:
* the divergence is KL(mean assignment || prior): with exponent 0 it is MSN's me-max exactly. lightly's docstring says
  the same, its code computes KL(prior || mean assignment), which `direction` offers: that one grows without bound when
  a prototype gets nothing, the other one does not;
* Sinkhorn balances the targets to the prior's shares: to equal shares, as MSN's does and lightly leaves it (`balance`),
  it would ask of the targets the very prior that is to be replaced. Turned off, small batches can end at two
  prototypes (seen at 32 images), for PMSN and for MSN.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from chexmsn.core.limits import check_limits
from chexmsn.methods import msn


def power_law(count: int, exponent: float, like: Tensor) -> Float[Tensor, "K"]:
    """Shares proportional to k^(-exponent), k = 1 ... count, with the precision and device of `like`.

    >>> power_law(3, 1.0, torch.zeros(())) * 11
    tensor([6., 3., 2.])
    """
    shares = torch.arange(1, count + 1, dtype=like.dtype, device=like.device) ** -exponent
    return shares / shares.sum()


def divergence(p: Float[Tensor, "K"], q: Float[Tensor, "K"]) -> Float[Tensor, ""]:
    """KL(p || q) in nats, at least 0; probabilities that underflowed count as the smallest number."""
    smallest = torch.finfo(p.dtype).tiny
    p, q = p.clamp_min(smallest), q.clamp_min(smallest)
    return (p * (p.log() - q.log())).sum()


@dataclass(frozen=True, kw_only=True)
class Config(msn.Config):
    """Options of PMSN: those of MSN, where `me_max` is the weight of the divergence from the prior, and two more.

    Attributes:
        exponent: of the power law; 0 is MSN's uniform prior.
        direction: KL of the mean assignment from the prior, or of the prior from the mean assignment.
        balance: what Sinkhorn balances the targets to.
    """

    exponent: float = 0.25
    direction: Literal["mean-from-prior", "prior-from-mean"] = "mean-from-prior"
    balance: Literal["prior", "uniform"] = "prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, exponent="[0, inf)")


class Method(msn.Method):
    """PMSN on an encoder."""

    regulariser = "prior_divergence"
    config: Config

    def shares(self, like: Tensor) -> Float[Tensor, "K"] | None:
        """What Sinkhorn gives each prototype of the batch: its share of the prior, or None for the same."""
        c = self.config
        return power_law(c.prototypes, c.exponent, like) if c.balance == "prior" else None

    def divergence(self, mean: Float[Tensor, "K"]) -> Float[Tensor, ""]:
        """How far the mean assignment is from the power law."""
        prior = power_law(len(mean), self.config.exponent, like=mean)
        return divergence(mean, prior) if self.config.direction == "mean-from-prior" else divergence(prior, mean)
