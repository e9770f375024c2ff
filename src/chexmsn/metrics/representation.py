"""What a set of features looks like without any label: how many dimensions they fill, how much they resemble."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def effective_rank(features: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """RankMe: exp of the entropy of the singular values, taken as shares of their sum; between 1 and min(N, D).

    Garrido et al. 2023 (arXiv 2210.02885). The features are not centred: a collapsed encoder, which gives every
    image the same vector, has rank 1, where centring would leave the full rank of its rounding errors. The rank of
    few images is low whatever they are: compare ranks of equally many. Features that are no numbers have none (NaN).

    The singular values are roots of the eigenvalues of the smaller Gram matrix, in float64, whose rounding is below
    that of features in float32.

    >>> [round(effective_rank(features).item(), 3) for features in (torch.eye(4), torch.ones(8, 4))]
    [4.0, 1.0]
    """
    if not features.isfinite().all():  # the eigenvalues would not be found
        return features.new_full((), torch.nan)
    wide = features.double()
    gram = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)
    return torch.special.entr(shares).sum().exp().to(features.dtype)


def mean_resemblance(features: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Mean cosine similarity between the features of two different images: 1 where all point the same way.

    >>> [round(mean_resemblance(features).item(), 3) for features in (torch.eye(4), torch.ones(8, 4))]
    [0.0, 1.0]
    """
    directions = functional.normalize(features.double(), dim=1)
    pairs = len(features) * (len(features) - 1)
    return ((directions.sum(0).square().sum() - directions.square().sum()) / pairs).to(features.dtype)
