"""facebookresearch/msn: the checkpoints of its authors, from which the target encoder is taken.

https://github.com/facebookresearch/msn `src/msn_train.py` `save_checkpoint`: one file with `encoder`, `target_encoder`,
`prototypes` and the optimiser's state. Names begin with `module.` where DDP wrapped the model; the projection head is
`fc`. All of its encoders have heads 64 wide and ImageNet's mean and std.
"""

from pathlib import Path

from chexmsn.core.errors import UserError
from chexmsn.models.hubs._portable import (
    HEAD_WIDTH,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Found,
    only_tensors,
    read_checkpoint,
)

TITLE = "facebookresearch/msn"


def theirs(name: str, classifier: bool) -> str:
    """The same name: both follow timm."""
    return name


def read(path: Path) -> Found:
    """A checkpoint file. Raises UserError for anything else."""
    if not path.is_file():
        raise UserError(f"{path} is no file: name a checkpoint of {TITLE}, such as vits16_800ep.pth.tar")
    checkpoint = read_checkpoint(path)
    if "target_encoder" not in checkpoint:
        raise UserError(f"{path} has no target_encoder: it is no checkpoint of {TITLE}, choose another --from")
    target = only_tensors(checkpoint["target_encoder"], path)
    weights = {name.removeprefix("module."): tensor for name, tensor in target.items()}
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    heads = weights["cls_token"].shape[-1] // HEAD_WIDTH if "cls_token" in weights else None
    return Found(weights=weights, heads=heads, mean=IMAGENET_MEAN, std=IMAGENET_STD)
