"""Fields of noise: keyed on every device, whole batches at once where there is an accelerator."""

import pytest
import torch

from chexmsn.core.draws import Draws, keys_of

SHAPE = (1, 101, 99)
KEYS = keys_of(f"image {i}" for i in range(6))


@pytest.fixture(params=["CPU", "accelerator"])
def draws(request, monkeypatch) -> Draws:
    """The draws as they are made on a CPU, and by the code that an accelerator runs."""
    if request.param == "accelerator":
        monkeypatch.setattr(Draws, "_on_cpu", False)
    return Draws.of(0, KEYS)


@pytest.mark.parametrize("field", ["normal_field", "uniform_field", "bits_field"])
def test_a_field_depends_on_its_key_alone(draws, field):
    whole = getattr(draws, field)(SHAPE)
    assert whole.shape == (6, *SHAPE)
    assert torch.equal(getattr(Draws(draws.keys[[4, 1]]), field)(SHAPE), whole[[4, 1]])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(getattr(draws.stream("other"), field)(SHAPE), whole)


def test_fields_have_their_distributions(draws):
    """Moments within six standard errors; neighbours are independent."""
    n = 6 * 101 * 99
    normal, uniform, bits = (getattr(draws, f"{kind}_field")(SHAPE).double() for kind in ("normal", "uniform", "bits"))
    assert abs(normal.mean()) < 6 / n**0.5 and abs(normal.square().mean() - 1) < 6 * (2 / n) ** 0.5
    assert abs((normal**4).mean() - 3) < 6 * (96 / n) ** 0.5 and abs((normal > 2).double().mean() - 0.02275) < 0.004
    assert uniform.min() >= 0 and uniform.max() < 1
    for number in (uniform, (bits + 2**15) / 2**16):
        assert abs(number.mean() - 0.5) < 6 * (1 / 12 / n) ** 0.5
        assert abs((number < 0.03).double().mean() - 0.03) < 6 * (0.03 * 0.97 / n) ** 0.5
    for field in (normal, uniform - 0.5, bits):
        for a, b in (
            (field[..., 1:], field[..., :-1]),
            (field[..., 1:, :], field[..., :-1, :]),
            (field[1:], field[:-1]),
        ):
            assert abs((a * b).mean() / field.square().mean()) < 6 / a.numel() ** 0.5


def test_bits_take_all_their_values():
    bits = Draws.of(0, keys_of(["a"])).bits_field((2**21,))
    assert bits.dtype == torch.int16 and len(bits.unique()) == 2**16
