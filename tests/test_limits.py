"""Options that make no sense are refused in one line before anything is opened.

The suite walks every configuration that a command takes, and the parts it is made of: a new method, source or command
is tested without another edit.
"""

import contextlib
import dataclasses
import math
import types
import typing
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chexmsn.cli.main import main
from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.lookup import load, names
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import VIT_SIZES, EncoderConfig, build_encoder
from chexmsn.training.config import PretrainConfig
from chexmsn.training.precision import choose_precision
from chexmsn.training.run import check_run, pretrain
from test_methods import FINDINGS, KEYS, SMALL, batch_of, schedule_of

PACKAGES = ("chexmsn.methods", "chexmsn.data.sources", "chexmsn.evaluation.probes", "chexmsn.recipes.commands")
METHODS = names("chexmsn.methods")
NEGATIVE_IS_FINE = {"seed"}  # any whole number names a sequence of draws
NO_NUMBER = (math.nan, math.inf, -math.inf)


def parts_of(annotation):
    """An annotation, and all that it is put together from."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from parts_of(part)


def with_parts(kind):
    """A dataclass and every dataclass among its fields."""
    yield kind
    for annotation in typing.get_type_hints(kind).values():
        for part in parts_of(annotation):
            if dataclasses.is_dataclass(part):
                yield from with_parts(part)


def configurations():
    """Every dataclass that holds options: those that modules of the packages above define or name, and their parts."""
    modules = [load(package, name) for package in PACKAGES for name in names(package)]
    named = [value for module in modules for name, value in vars(module).items() if name.endswith("Config")]
    found = {part for kind in named if dataclasses.is_dataclass(kind) for part in with_parts(kind)}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


CONFIGURATIONS = configurations()


def some(annotation):
    """A value of a field that has no default."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        inner = some(typing.get_args(annotation)[0])
        return (inner,) if typing.get_origin(annotation) is tuple else inner
    return {Path: Path("nowhere"), str: "gaussian-blur", int: 32, typing.Any: None}[annotation]


def made(kind, **changes):
    """A configuration with its defaults, but for the changes."""
    hints = typing.get_type_hints(kind)
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    needed = {
        f.name: some(hints[f.name]) for f in dataclasses.fields(kind) if (f.default, f.default_factory) == missing
    }
    if "encoder_from" in hints:  # one of the two is needed
        needed["encoder_from"] = Path("nowhere")
    return kind(**needed | changes)


def numbers_of(kind):
    """Fields that hold a number, or several: name, kind of number, how many (0 for a single one)."""
    for name, annotation in typing.get_type_hints(kind).items():
        unions = (typing.Union, types.UnionType)
        for choice in typing.get_args(annotation) if typing.get_origin(annotation) in unions else (annotation,):
            inner = typing.get_args(choice)
            if choice in (int, float):
                yield name, choice, 0
            elif typing.get_origin(choice) is tuple and inner[0] in (int, float):
                yield name, inner[0], 3 if inner[-1] is ... else len(inner)


FIELDS = [(kind, *field) for kind in CONFIGURATIONS for field in numbers_of(kind)]
IDS = [f"{kind.__module__.removeprefix('chexmsn.')}.{kind.__name__}.{name}-{many}" for kind, name, _, many in FIELDS]


def refused(kind, name, value):
    """Whether a value is refused as it should be: one line that names the option."""
    try:
        made(kind, **{name: value})
    except UserError as error:
        assert "\n" not in str(error)
        assert name in str(error) or name.replace("_", " ") in str(error)
        return True
    return False


def test_the_walk_finds_the_options():
    found = {kind.__name__ for kind in CONFIGURATIONS}
    assert {"PretrainConfig", "StressConfig", "EncoderConfig", "Jitter", "Affine", "CorruptionPlan", "Policy"} <= found
    assert len(FIELDS) > 150


@pytest.mark.parametrize(("kind", "name", "number", "many"), FIELDS, ids=IDS)
def test_negative_numbers_and_what_is_no_number_are_refused(kind, name, number, many):
    for value in (-1, -(2**40), *(NO_NUMBER if number is float else ())):
        given_value = (number(value),) * many if many else number(value)
        assert refused(kind, name, given_value) != (name in NEGATIVE_IS_FINE), value


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, name, _, many in FIELDS if many == 2], ids=lambda value: str(value)
)
def test_a_range_that_runs_backwards_is_refused(kind, name):
    low, high = getattr(made(kind), name) or (0.2, 0.4)
    assert low < high
    assert refused(kind, name, (high, low))


# --- methods: what a configuration accepts, the method can do


def wild(annotation):
    """Values of a field from far outside to far inside what makes sense."""
    floats = st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-9, 1e-4, 2.0, *NO_NUMBER]), st.floats(-2, 2), st.floats(0, 1)
    )
    whole = st.one_of(st.integers(-3, 40), st.sampled_from([0, 1, 2, 16, 64, 320]))
    kinds = {int: whole, float: floats, bool: st.booleans()}
    if annotation in kinds:
        return kinds[annotation]
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return st.tuples(*(wild(part) for part in typing.get_args(annotation)))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return st.one_of(*(wild(part) for part in typing.get_args(annotation)))
    return st.none()


@st.composite
def wild_options(draw, name):
    """A method's options, small for speed, with a few of them anything."""
    kind = load("chexmsn.methods", name).Config
    hints = {f.name: typing.get_type_hints(kind)[f.name] for f in dataclasses.fields(kind)}
    plain = [f for f in hints if not any(map(dataclasses.is_dataclass, parts_of(hints[f])))]
    changed = draw(st.lists(st.sampled_from(plain), min_size=1, max_size=3, unique=True))
    return SMALL.get(name, {}) | {field: draw(wild(hints[field])) for field in changed}


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_method_refuses_its_options_or_can_work_with_them(name, data):
    module, options = load("chexmsn.methods", name), data.draw(wild_options(name))
    network = EncoderConfig(name="vit_micro", patch=8, size=32)
    with contextlib.suppress(UserError):
        config = module.Config(**options)
        module.Method.check(config, network, network.size, len(KEYS))
        setting = Setting(size=32, batch_size=len(KEYS), findings=FINDINGS, positives=(0.5, 0.2, 0.1))
        assume(getattr(config, "decoder_depth", None) is None or config.decoder_depth < 9)  # only slow
        with torch.random.fork_rng(devices=[]):
            method = module.Method(config, build_encoder(network), setting)
        step = method.step(*batch_of(method), schedule_of(method))
        assert step.loss.isfinite(), options
        assert all(map(math.isfinite, schedule_of(method, step=9).values())), options


# --- what only several options together tell


def run_of(**changes):
    module = load("chexmsn.methods", changes.pop("method", "msn"))
    name = module.__name__.rpartition(".")[2]
    options = module.Config(**changes.pop("options", {}))
    return PretrainConfig(data=(Path("nowhere"),), out=Path("nowhere"), method=name, options=options, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"options": {"prototypes": 45}, "batch_size": 1}, "needs 2 images or more, not 1"),
        ({"options": {"prototypes": 1024}, "batch_size": 16}, "176 anchors: take at most 704 prototypes"),
        ({"options": {"focal_size": 100}}, "focal size must be a multiple of the patch size 16, not 100"),
        ({"options": {"mask_ratio": 0.999}}, "leaves none of 196 patches"),
        ({"encoder": EncoderConfig(name="resnet18")}, "set the mask ratio to 0 or take a transformer"),
        ({"options": {"warmup_epochs": 10.0, "warmup_share": 1.0}, "epochs": 10}, "does not end in a run of 10"),
        ({"device": "tpu"}, "there is no device called 'tpu'"),
        ({"device": "cpu", "precision": "16"}, "needs a GPU"),
        ({"device": "cpu", "precision": "64"}, "precision must be one of"),
    ],
)
def test_what_cannot_work_together_is_refused_before_data_are_opened(changes, told, tmp_path):
    config = dataclasses.replace(run_of(**changes), out=tmp_path / "run")
    for refuses in (lambda: check_run(config, config.encoder), lambda: pretrain(config)):
        with pytest.raises(UserError, match=told) as error:
            refuses()
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_follow_ups_prototypes_and_batch_can_be_run():
    config = run_of(options={"prototypes": 1024}, batch_size=64, device="cpu")
    check_run(config, config.encoder)


@pytest.mark.parametrize("name", METHODS)
def test_a_warm_up_ends_within_its_run(name):
    config = load("chexmsn.methods", name).Config()
    assert config.warmup_epochs >= 0 and 0 < config.warmup_share < 1


def test_images_smaller_than_the_network_wants_are_refused(small_pack, tmp_path):
    wide = EncoderConfig(name="vit_micro", size=96)
    config = run_of(encoder=wide, batch_size=16, options={"prototypes": 8}, device="cpu")
    with pytest.raises(UserError, match="takes images of 96 px and the pack holds 64 px: prepare it with a size of 96"):
        pretrain(dataclasses.replace(config, data=(small_pack,), out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_heads_divide_the_width():
    assert {size.width / size.heads for size in VIT_SIZES.values()} == {64}


def test_a_gpu_without_units_for_bfloat16_is_not_asked_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(UserError, match="take 16 or 32"):
        choose_precision("bf16", torch.device("cuda"))
    assert choose_precision("auto", torch.device("cuda")) == "32-true"


# --- the rule itself


@dataclasses.dataclass
class Example:
    share: float | tuple[float, float] | tuple[float, float, float] | None = 0.5


@given(st.floats(), st.sampled_from(["[0, 1]", "[0, 1)", "(0, 1]", "(0, 1)", "(0, inf)", "[1, inf)"]))
def test_an_interval_means_what_it_says(value, interval):
    low, high = map(float, interval[1:-1].split(","))
    inside = low < value < high or (value == low and interval[0] == "[") or (value == high and interval[-1] == "]")
    for given_value in (value, (value, value), (value,) * 3):
        if inside and math.isfinite(value):
            check_limits(Example(given_value), share=interval)
        else:
            with pytest.raises(UserError, match=r"share of it must .*: choose for example 0\.5"):
                check_limits(Example(given_value), "it", share=interval)


def test_what_is_left_out_is_allowed():
    check_limits(Example(None), share="(0, 1)")


# --- through the command line


@pytest.mark.parametrize(
    "name", [name for name in METHODS if load("chexmsn.methods", name).Method.kind == "pretraining"]
)
def test_the_command_line_refuses_in_one_line_and_writes_nothing(name, capsys, tmp_path):
    hints = typing.get_type_hints(load("chexmsn.methods", name).Config)
    floats = [field for field, annotation in hints.items() if annotation in (float, float | None)]
    for field in floats[::3]:
        words = ["pretrain", "--data", "nowhere", "--out", str(tmp_path / "run"), "--device", "cpu", "--method", name]
        assert main([*words, f"--options.{field}", ".nan"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and field in lines[0], lines
    assert floats and not list(tmp_path.iterdir())
