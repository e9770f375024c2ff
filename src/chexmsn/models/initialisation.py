"""Starting values of weights."""

from torch import nn


def initialise(module: nn.Module) -> None:
    """Draw the weights of all linear layers and convolutions inside a module as MSN does.

    Linear layers normal with standard deviation 0.02 (the authors' truncation at +-2, a hundred
    deviations out, has no effect), convolutions Kaiming normal by fan in, biases 0. Follows
    facebookresearch/msn `src/deit.py` and `src/msn_train.py`. Draws come from torch's generator.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
