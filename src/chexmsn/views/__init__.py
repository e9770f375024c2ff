"""Views of an image: batched on the device, drawn per image, the same for any batch.

>>> import torch
>>> from chexmsn.core.draws import Draws, keys_of
>>> plan = (ViewGroup(name="random", count=2, size=64), ViewGroup(name="focal", count=3, size=32, scale=(0.05, 0.3)))
>>> random, focal = make_views(torch.rand(4, 1, 96, 96), plan, Draws.of(0, keys_of("abcd")))
>>> random.shape, focal.shape
(torch.Size([8, 1, 64, 64]), torch.Size([12, 1, 32, 32]))
"""

from chexmsn.views.affine import Affine
from chexmsn.views.intensity import Blur, Jitter
from chexmsn.views.plan import EVALUATED_SHARE, ViewGroup, ViewPlan, evaluation_view, make_views

__all__ = ["EVALUATED_SHARE", "Affine", "Blur", "Jitter", "ViewGroup", "ViewPlan", "evaluation_view", "make_views"]
