"""Models from elsewhere: one network, wrapped each way, gives the same scores; what is fed or read wrongly is told."""

import dataclasses
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names
from chexmsn.evaluation.adapters._model import Input, Model, Options
from chexmsn.evaluation.conditions import chosen
from chexmsn.evaluation.model_check import Sample, doubts, input_doubts
from chexmsn.evaluation.scoring import why_not
from chexmsn.evaluation.stress import ADAPTERS, StressConfig, stress
from chexmsn.models.exporting import ExportConfig, export_model
from chexmsn.recipes.arguments import parse
from chexmsn.views import EVALUATED_SHARE, evaluation_view
from evaluation_folders import SIZE, write_model, write_pack

FINDINGS = ("Cardiomegaly", "Edema", "Pleural Effusion")
IMAGES = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
FEW = ("tokens-removed:0.5", "gaussian-blur:2")
DOCS = Path(__file__).parents[1] / "docs" / "any-model.md"


def adapter(name: str):
    return load(ADAPTERS, name)


def opened(name: str, location, **options) -> Model:
    return adapter(name).open(Path(location), adapter(name).Config(**options))


# --- one network, wrapped each way


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A pack, and one classifier as each software keeps it."""
    home = tmp_path_factory.mktemp("adapters")
    write_pack(home / "data")
    write_model(home / "ours", findings=FINDINGS)
    for layout in ("timm", "huggingface"):
        export_model(ExportConfig(model=home / "ours", to=layout, out=home / layout))
    (home / "theirs.py").write_text(
        "from pathlib import Path\n"
        "from chexmsn.models.artefact import load_classifier\n"
        "def build(folder='ours'):\n"
        "    classifier = load_classifier(Path(__file__).parent / folder).classifier\n"
        "    return classifier.train()\n"
    )
    network = timm.create_model(f"local-dir:{home / 'timm'}", pretrained=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, which is no part of what is tested
        torch.onnx.export(
            nn.Sequential(network, nn.Sigmoid()).eval(),
            (IMAGES[:1].expand(-1, 3, -1, -1),),
            home / "theirs.onnx",
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
            dynamo=False,
        )
    return home


ONE_CHANNEL = {"channels": 1, "shown": EVALUATED_SHARE, "patch": 8}
THREE_CHANNELS = {"findings": FINDINGS, "mean": (0.45,), "std": (0.2,), "shown": EVALUATED_SHARE, "patch": 8}
WAYS = {
    "chexmsn": ("ours", {}),
    "timm": ("timm", {"patch": 8, "answers": "logits"}),
    "huggingface": ("huggingface", {"patch": 8, "shown": EVALUATED_SHARE}),
    "python": ("theirs.py:build", {"findings": FINDINGS, "size": SIZE, "answers": "logits"} | ONE_CHANNEL),
    "onnx": ("theirs.onnx", THREE_CHANNELS),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_network_scores_the_same_whatever_wraps_it(way, home):
    location, options = WAYS[way]
    model = opened(way, home / location, **options)
    assert (model.findings, model.input.size) == (FINDINGS, SIZE)
    assert model.input.shown == pytest.approx(EVALUATED_SHARE)
    wanted = opened("chexmsn", home / "ours").scores(IMAGES)
    torch.testing.assert_close(model.scores(IMAGES), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "chexmsn"])
def test_the_whole_stress_test_gives_the_same_scores(way, home, tmp_path):
    pixels = ("patches-black:0.5", "gaussian-noise:3")
    location, options = WAYS[way]
    for name, place, told in (("ours", "ours", {}), (way, location, {"adapter": way})):
        told = told | ({"options": adapter(way).Config(**options)} if told else {})
        stress(asked(home, model=home / place, out=tmp_path / name, conditions=pixels, **told))
    ours, theirs = (
        pd.read_parquet(tmp_path / name / "scores.parquet").set_index(["corruption", "image_key"]).filter(like="score:")
        for name in ("ours", way)
    )
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-5, rtol=0)


def asked(home: Path, **changes) -> StressConfig:
    return StressConfig(
        **{"data": home / "data" / "pack", "resamples": 20, "device": "cpu", "conditions": FEW} | changes
    )


def test_tokens_of_a_foreign_transformer_are_cells_that_say_so_beside_black_pixels(home, tmp_path):
    options = adapter("timm").Config(patch=8, answers="logits", corruptions_seen=("gaussian-blur",))
    stress(asked(home, model=home / "timm", out=tmp_path / "run", adapter="timm", options=options))
    results = pd.read_parquet(tmp_path / "run" / "results.parquet").set_index("corruption")
    assert results.loc["tokens-removed", "status"].str.contains("keeps its tokens to itself").all()
    assert results.loc["patches-black", "value"].notna().any()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["model"]["adapter"] == "timm" and record["model"]["input"]["mean"] == pytest.approx([0.45] * 3)
    assert record["seen_in_training"] == ["gaussian-blur"] and isinstance(record["doubts"], list)
    assert results.loc["gaussian-blur", "seen_in_training"].all()


def test_another_way_of_feeding_is_another_configuration(home, tmp_path):
    options = {"patch": 8, "answers": "logits"}
    config = asked(home, model=home / "timm", out=tmp_path / "run", adapter="timm")
    stress(dataclasses.replace(config, options=adapter("timm").Config(**options)))
    with pytest.raises(UserError, match=r"options\.std: null before, \[0\.3\] now"):
        stress(dataclasses.replace(config, options=adapter("timm").Config(**options, std=(0.3,))))


# --- every file of the folder


@pytest.mark.parametrize("name", names(ADAPTERS))
def test_every_adapter_keeps_the_contract(name, tmp_path):
    offered = adapter(name)
    assert offered.TITLE and offered.__doc__
    assert dataclasses.is_dataclass(offered.Config) and (name == "chexmsn" or issubclass(offered.Config, Options))
    assert f"--adapter {name}" in DOCS.read_text() or name == "chexmsn"
    with pytest.raises(UserError, match=r"nowhere"):
        offered.open(tmp_path / "nowhere", offered.Config())
    damaged = tmp_path / "nowhere.onnx"
    damaged.write_bytes(b"no network")
    with pytest.raises(UserError, match=r"nowhere"):
        offered.open(damaged, offered.Config())


def test_examples_of_the_documentation_are_understood():
    lines = [line.strip() for line in DOCS.read_text().replace("\\\n", " ").splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("chexmsn ")]
    assert len(commands) >= len(names(ADAPTERS))
    for command, *words in commands:
        parse(command, [word.strip("'") for word in words])


@pytest.mark.parametrize("options", [{"size": 0}, {"shown": 0.0}, {"std": (0.0,)}, {"patch": 0}])
def test_options_have_limits(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Options(**options)


def test_an_unknown_adapter_names_those_there_are(home):
    with pytest.raises(UserError, match=r"no adapter called 'tim' \(did you mean timm\?\)"):
        asked(home, model=home, out=home, adapter="tim")


# --- what a network is fed


def test_black_and_white_become_what_they_are_said_to_be():
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    fed = Input(size=3, value_range=(0.0, 255.0), mean=(100.0, 110.0, 120.0), std=(50.0,)).feed(images)
    np.testing.assert_allclose(fed[0, 1, 0], [-2.2, 0.35, 2.9], rtol=1e-6)
    assert torch.equal(Input(size=3, channels=1).feed(images), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "1 or 3 channels, not 2"),
        ({"channels": 1, "mean": (0.4, 0.5, 0.6)}, "one number or one per channel"),
        ({"value_range": (1.0, 1.0)}, "two different numbers"),
    ],
)
def test_input_that_makes_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        Input(size=8, **options)


def test_a_share_of_the_image_is_shown():
    images = torch.rand(1, 1, 40, 40)
    assert torch.equal(evaluation_view(images, 20, 0.5), images[:, :, 10:30, 10:30])
    assert torch.equal(evaluation_view(images, 40, 1.0), images)


def a_model(call, findings=("Effusion", "Cardiomegaly", "Mass"), **changes) -> Model:
    """A function as a model of the small pack."""
    about = {"name": "theirs", "adapter": "python", "network": "f", "kind": "callable", "patch": 8, "fingerprint": "0"}
    feed = changes.pop("input", Input(size=SIZE, channels=1))
    return Model(**about, findings=findings, input=feed, answers=changes.pop("answers", "probabilities"), call=call)


def test_squares_that_do_not_fill_the_image_name_those_that_do():
    with pytest.raises(UserError, match=r"squares of 16 px.*images of 299 px: choose --options.patch 13"):
        dataclasses.replace(a_model(torch.sigmoid), input=Input(size=299), patch=16)


def test_what_is_not_known_to_have_tokens_has_none_to_remove():
    (condition,) = chosen(["tokens-removed:0.5"])[1:]
    assert "f is not known to have tokens" in why_not(condition, a_model(torch.sigmoid))


# --- checks on clean images


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    """Sixty images of which the bright ones have an Effusion."""
    from chexmsn.data.collection import Collection
    from chexmsn.data.labels import Policy
    from chexmsn.evaluation.result_folder import labels_table

    pack = write_pack(tmp_path_factory.mktemp("sample"), images=180)
    images = Collection([pack], ["test"])
    findings = ("Pleural Effusion", "Cardiomegaly", "Mass")
    return Sample.of(images, labels_table(images, findings, Policy()), (0, 1, 2), 16)


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(1, 2, 3))[:, None].expand(-1, 3)


def told_by_the_first(images: torch.Tensor) -> torch.Tensor:
    """Effusion by brightness; the others by nothing in particular, but not the same for all."""
    bright = brightness(images).clone()
    bright[:, 1:] = images[:, 0, 3, 5:7].sigmoid()
    return bright


def test_a_sound_model_leaves_no_doubt(sample):
    assert doubts(a_model(told_by_the_first), sample) == []
    assert input_doubts(a_model(told_by_the_first), sample) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: 20 * brightness(x) - 10, r"no probabilities: if these are logits, set the option answers"),
        (lambda x: brightness(x) * float("nan"), "not numbers"),
        (lambda x: torch.full((len(x), 3), 0.2), r"60 different images alike \(0.2, 0.2, 0.2\).*see value_range"),
        (lambda x: brightness(x)[:, :2], r"numbers of shape \(1, 2\), and has 3 names"),
        (lambda x: brightness(x)[:, 0], r"numbers of shape \(1,\)"),
        (lambda x: brightness(x).tolist(), "answers with a list"),
        (lambda x: nn.Conv2d(3, 3, 1)(x), r"does not take an image of 1 x 32 x 32 \(.*channels"),
        (lambda x: brightness(x) * torch.rand(len(x), 1), "differently.*when it comes alone"),
        (lambda x: (brightness(x) - brightness(x).mean()).sigmoid(), "differently.*when it comes alone"),
    ],
)
def test_what_cannot_be_right_is_refused(call, message, sample):
    with pytest.raises(UserError, match=message):
        doubts(a_model(call), sample)


@pytest.mark.parametrize(
    ("call", "answers", "message"),
    [
        (lambda x: 1 - brightness(x), "probabilities", "worse than chance.*black and white exchanged"),
        (brightness, "logits", "probabilities already"),
        (lambda x: brightness(x) * torch.tensor([1.0, 0, 1]), "probabilities", "one score of Cardiomegaly"),
    ],
)
def test_what_may_be_right_and_rarely_is_becomes_a_doubt(call, answers, message, sample):
    # all three findings are told by brightness, so that ranking it the wrong way round is below chance for the macro
    effusion = sample.labels["label:Pleural Effusion"]
    same = dataclasses.replace(
        sample, labels=sample.labels.assign(**{"label:Cardiomegaly": effusion, "label:Mass": effusion})
    )
    found = doubts(a_model(call, answers=answers), same)
    assert len(found) == 1 and message.partition(".*")[0] in found[0] and message.partition(".*")[2] in found[0]


def test_a_model_made_for_other_numbers_is_found_out(sample):
    """It tells bright from dark where white is 255, and nothing where white is 1."""

    def call(images):
        fed = images.mean(dim=(1, 2, 3))[:, None].expand(-1, 3)
        noise = (images[:, 0, 3, 5:8] * 1e4).sin()
        return ((fed - 110) / 10 + (fed < 2) * noise).sigmoid()

    effusion = sample.labels["label:Pleural Effusion"]
    same = dataclasses.replace(
        sample, labels=sample.labels.assign(**{"label:Cardiomegaly": effusion, "label:Mass": effusion})
    )
    (doubt,) = input_doubts(a_model(call), same)
    assert "fed with pixels of 0 to 255" in doubt and "as stated (black 0, white 1)" in doubt
    assert input_doubts(a_model(call, input=Input(size=SIZE, channels=1, value_range=(0.0, 255.0))), same) == []


def test_nothing_is_left_behind_where_a_model_is_refused(home, tmp_path):
    options = adapter("python").Config(findings=FINDINGS, size=SIZE, **ONE_CHANNEL)
    with pytest.raises(UserError, match="no probabilities"):
        stress(asked(home, model=home / "theirs.py:build", out=tmp_path / "run", adapter="python", options=options))
    assert not (tmp_path / "run").exists()


def test_the_input_is_checked_before_saliency_is_asked_for(home, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(7, 3), nn.Sigmoid())\n"
    )
    options = adapter("python").Config(findings=FINDINGS, size=SIZE, **ONE_CHANNEL)
    told = {"adapter": "python", "options": options, "conditions": ("patches-black/salient:0.5",)}
    with pytest.raises(UserError, match=r"does not take an image of 1 x 32 x 32"):
        stress(asked(home, model=tmp_path / "net.py:build", out=tmp_path / "run", **told))


# --- names of findings


def test_names_that_are_almost_the_same_are_proposed(home, tmp_path):
    findings = ("Cardiomegalia", "Oedema", "Pleural Effusions")
    options = adapter("python").Config(findings=findings, size=SIZE, answers="logits", **ONE_CHANNEL)
    with pytest.raises(UserError, match=r"share no finding.*is Cardiomegalia Cardiomegaly, Pleural Effusions Pleural"):
        stress(asked(home, model=home / "theirs.py:build", out=tmp_path / "run", adapter="python", options=options))


def test_outputs_are_found_by_name_and_empty_ones_left(home, tmp_path, caplog):
    options = adapter("python").Config(
        findings=("", "Pleural Efusion", "effusion"), size=SIZE, answers="logits", **ONE_CHANNEL
    )
    stress(asked(home, model=home / "theirs.py:build", out=tmp_path / "run", adapter="python", options=options))
    labels = pd.read_parquet(tmp_path / "run" / "labels.parquet")
    assert [column for column in labels if column.startswith("label:")] == ["label:Pleural Effusion"]
    with pytest.raises(UserError, match="different names"):
        opened("python", home / "theirs.py:build", findings=("Edema", "Edema", ""), size=SIZE, **ONE_CHANNEL)


# --- each software


def test_python_puts_a_network_into_evaluation_mode_and_hands_arguments_on(home):
    model = opened(
        "python", home / "theirs.py:build", findings=FINDINGS, size=SIZE, arguments={"folder": "ours"}, **ONE_CHANNEL
    )
    assert not model.call.training and model.kind == "callable"
    assert model.fingerprint == opened("chexmsn", home / "ours").fingerprint


def test_python_reads_what_a_function_says_of_itself(tmp_path):
    (tmp_path / "a.py").write_text(
        "def build():\n    def f(x):\n        return x.mean(dim=(1, 2, 3))[:, None]\n"
        "    f.findings, f.size, f.channels = ('Edema',), 8, 1\n    f.patch = 4\n    return f\n"
    )
    model = opened("python", f"{tmp_path / 'a.py'}:build")
    assert (model.findings, model.input.size, model.input.channels, model.patch) == (("Edema",), 8, 1, 4)
    torch.testing.assert_close(model.scores(torch.full((2, 1, 8, 8), 0.25)), torch.full((2, 1), 0.25))
    (tmp_path / "b.py").write_text((tmp_path / "a.py").read_text() + "# changed\n")
    assert model.fingerprint != opened("python", f"{tmp_path / 'b.py'}:build").fingerprint


def test_python_leaves_the_path_as_it_was_and_lets_a_file_have_dataclasses_and_neighbours(tmp_path):
    (tmp_path / "neighbour_of_a_model.py").write_text("FINDINGS = ('Edema',)\n")
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Mean:\n    findings: tuple\n    size: int = 16\n"
        "    def __call__(self, x):\n        return x.mean(dim=(1, 2, 3))[:, None]\n"
        "def build():\n    from neighbour_of_a_model import FINDINGS\n    return Mean(FINDINGS)\n"
        "def fail():\n    raise ZeroDivisionError\n"
    )
    before = list(sys.path)
    assert opened("python", f"{tmp_path / 'json.py'}:build").findings == ("Edema",)
    with pytest.raises(UserError, match=r"json.py:fail fails at .*json.py, line 13: ZeroDivisionError: no message$"):
        opened("python", f"{tmp_path / 'json.py'}:fail")
    assert sys.path == before and sys.modules["json"] is json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(:\n", r"a.py:build fails at .*a.py, line 1: SyntaxError"),
        ("import no_such_library\ndef build():\n    pass\n", r"line 1: ModuleNotFoundError: No module named 'no_such"),
        ("import torch\ndef build():\n    return torch.load('no.pt')\n", r"fails at .*a.py, line 3: FileNotFoundError"),
        ("def build(name, size):\n    pass\n", r"a.py:build needs name, size: give them with --options.arguments"),
        ("class build:\n    def __init__(self, name):\n        pass\n", r"a.py:build needs name: give them with"),
        ("def build():\n    return 3\n", "returns a int: a torch.nn.Module or a function"),
        ("import sys\ndef build():\n    sys.exit(0)\n", r"fails at .*a.py, line 3: SystemExit: 0$"),
    ],
)
def test_python_tells_in_one_line_what_code_raises(text, message, tmp_path):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        opened("python", f"{tmp_path / 'a.py'}:build", findings=("Edema",), size=8)
    assert "\n" not in str(caught.value)


def test_python_refuses_arguments_that_a_function_does_not_take(home):
    with pytest.raises(UserError, match=r"unexpected keyword argument 'place'; it takes \(folder='ours'\)"):
        opened("python", home / "theirs.py:build", findings=FINDINGS, size=SIZE, arguments={"place": "ours"})


SCORERS = (
    "import numpy as np\nimport torch\nfrom torch import nn\n"
    "def score(images):\n    return images.mean(dim=(1, 2, 3))[:, None]\n"
    "score.findings, score.size, score.channels, score.patch = ('Edema',), 8, 1, 4\n"
    "def as_array(images, power):\n    return images.mean(dim=(1, 2, 3))[:, None].numpy() ** power\n"
    "network = nn.Sequential(nn.Flatten(), nn.AvgPool1d(64))\n"
    "def wrong(images):\n    return {}['Edema']\n"
    "def late(name):\n    return nn.Linear(2, 2)\n"
)


@pytest.mark.parametrize(("name", "arguments"), [("score", {}), ("as_array", {"power": 1}), ("network", {})])
def test_python_takes_the_scoring_function_itself(name, arguments, tmp_path):
    (tmp_path / "scorers.py").write_text(SCORERS)
    told = {} if name == "score" else {"findings": ("Edema",), "size": 8, "channels": 1, "patch": 4}
    model = opened("python", f"{tmp_path / 'scorers.py'}:{name}", arguments=arguments, **told)
    assert (model.name, model.findings, model.input.size) == (name, ("Edema",), 8)
    torch.testing.assert_close(model.scores(torch.full((2, 1, 8, 8), 0.25)), torch.full((2, 1), 0.25))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", r"scorers.py:wrong fails at .*scorers.py, line 11: KeyError: 'Edema'"),
        ("late", r"returns a Linear when it is given images: if it builds a network, give what it needs"),
    ],
)
def test_python_tells_what_a_scoring_function_does_wrong(name, message, tmp_path, sample):
    (tmp_path / "scorers.py").write_text(SCORERS)
    options = {"findings": ("Edema", "Mass", "Hernia"), "size": SIZE, "channels": 1, "patch": 8}
    model = opened("python", f"{tmp_path / 'scorers.py'}:{name}", **options)
    with pytest.raises(UserError, match=message):
        doubts(model, sample)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("theirs.py", "file.py:function or module:function"),
        ("no.py:build", "there is no file no.py"),
        ("no_such_module_here:build", "no module no_such_module_here: install it"),
        ("json:nothing", "json has no function nothing: it has .*dumps"),
        ("json:JSONDecoder", "returns a JSONDecoder: a torch.nn.Module or a function is needed"),
    ],
)
def test_python_refuses_what_is_no_function(location, message):
    with pytest.raises(UserError, match=message):
        opened("python", location)


def test_a_folder_that_timm_itself_saved_is_read(tmp_path):
    """It names channels and outputs among the arguments of the network."""
    network = timm.create_model("resnet10t", in_chans=1, num_classes=len(FINDINGS)).eval()
    seen = {"input_size": (1, SIZE, SIZE), "crop_pct": EVALUATED_SHARE, "mean": (0.4,), "std": (0.2,)}
    save_for_hf(network, tmp_path, {"label_names": FINDINGS}, safe_serialization=True, data_config=seen)
    model = opened("timm", tmp_path, answers="logits")
    assert (model.findings, model.input.size, model.input.channels) == (FINDINGS, SIZE, 1)
    assert model.input.shown == pytest.approx(EVALUATED_SHARE)
    with torch.inference_mode():
        torch.testing.assert_close(model.scores(IMAGES), network((IMAGES - 0.4) / 0.2).sigmoid())
    with pytest.raises(UserError, match=r"timm cannot build resnet10t \(.*depths.*\): see --options.arguments"):
        opened("timm", tmp_path, answers="logits", arguments={"depths": 3})


def test_a_bare_file_of_timms_names_needs_its_architecture(home):
    weights = home / "timm" / "model.safetensors"
    with pytest.raises(UserError, match=r"give --options.architecture"):
        opened("timm", weights, findings=FINDINGS)
    with pytest.raises(UserError, match=r"timm has no vit_tini \(it has"):
        opened("timm", weights, findings=FINDINGS, architecture="vit_tini")
    with pytest.raises(UserError, match=r"do not fit resnet18 \(missing: conv1.weight"):
        opened("timm", weights, findings=FINDINGS, architecture="resnet18")
    with pytest.raises(UserError, match=r"give --options.findings"):
        opened("timm", weights, architecture="resnet18")
    described = json.loads((home / "timm" / "config.json").read_text())
    model = opened(
        "timm",
        weights,
        findings=FINDINGS,
        architecture=described["architecture"],
        arguments=described["model_args"],
        mean=(0.45,),
        std=(0.2,),
        shown=EVALUATED_SHARE,
        patch=8,
        answers="logits",
    )
    torch.testing.assert_close(model.scores(IMAGES), opened("chexmsn", home / "ours").scores(IMAGES), atol=1e-5, rtol=0)


def test_a_network_of_timm_with_one_channel(tmp_path):
    network = timm.create_model("test_resnet", num_classes=2, in_chans=1).eval()
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, tmp_path / "a.pt"
    )
    options = {"architecture": "test_resnet", "channels": 1, "findings": ("Edema", "Mass"), "size": 64}
    with pytest.raises(UserError, match=r"does not say its answers: give --options\.answers, logits for findings"):
        opened("timm", tmp_path / "a.pt", **options)
    model = opened("timm", tmp_path / "a.pt", answers="logits", **options)
    assert model.kind == "cnn" and len(model.input.mean) == 1
    images = torch.rand(2, 1, 64, 64)
    (mean,), (std,) = model.input.mean, model.input.std
    torch.testing.assert_close(model.scores(images), network((images - mean) / std).sigmoid().detach())


def test_the_processor_of_hugging_face_is_honoured(home, tmp_path):
    folder = copied(home / "huggingface", tmp_path / "a")
    change(folder / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3])
    model = opened("huggingface", folder, patch=8)
    assert model.input.mean == pytest.approx((0.4, 0.5, 0.6)) and model.input.std == pytest.approx((0.2, 0.25, 0.3))
    change(
        folder / "preprocessor_config.json", do_normalize=False, do_center_crop=False, size={"height": 32, "width": 32}
    )
    change(folder / "preprocessor_config.json", rescale_factor=1.0)
    model = opened("huggingface", folder, patch=8)
    assert model.input.shown == 1 and model.input.mean == pytest.approx((0.0,) * 3)
    assert model.input.std == pytest.approx((1 / 255,) * 3)  # 0 to 255, said otherwise
    change(folder / "preprocessor_config.json", size={"height": 32, "width": 48})
    with pytest.raises(UserError, match="32 x 48"):
        opened("huggingface", folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"does not say its size: give --options.size"):
        opened("huggingface", folder)


def test_hugging_face_is_quiet_and_tells_its_warnings(home, capfd):
    logging = pytest.importorskip("transformers").utils.logging
    logging.enable_progress_bar()
    opened("huggingface", home / "huggingface", patch=8)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


def test_hugging_face_says_what_its_outputs_are(home, tmp_path):
    folder = copied(home / "huggingface", tmp_path / "a")
    assert opened("huggingface", folder, patch=8).answers == "logits"
    change(folder / "config.json", problem_type=None)
    with pytest.raises(UserError, match=r"does not say its answers: give --options\.answers"):
        opened("huggingface", folder, patch=8)
    assert opened("huggingface", folder, patch=8, answers="softmax").answers == "softmax"
    change(folder / "config.json", problem_type="single_label_classification")
    assert opened("huggingface", folder, patch=8).answers == "softmax"
    change(folder / "config.json", id2label={str(place): f"LABEL_{place}" for place in range(3)})
    with pytest.raises(UserError, match="does not say its findings"):
        opened("huggingface", folder, patch=8)


def test_an_encoder_of_hugging_face_is_no_classifier(home, tmp_path):
    export_model(ExportConfig(model=home / "ours", to="huggingface", out=tmp_path / "whole"))
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "whole" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, tmp_path / "whole" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks the weights classifier.*is it an encoder"):
        opened("huggingface", tmp_path / "whole")


def copied(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to))


def change(file: Path, **entries) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def test_onnx_says_its_size_and_is_not_contradicted(home):
    with pytest.raises(UserError, match=r"takes images of size 32, not 64: leave size out"):
        opened("onnx", home / "theirs.onnx", findings=FINDINGS, size=64)
    with pytest.raises(UserError, match=r"has the outputs y: choose one with --options.output"):
        opened("onnx", home / "theirs.onnx", findings=FINDINGS, output="z")
    with pytest.raises(UserError, match=r"does not say its findings"):
        opened("onnx", home / "theirs.onnx")
    first = opened("onnx", home / "theirs.onnx", **THREE_CHANNELS)
    assert first.fingerprint != opened("chexmsn", home / "ours").fingerprint


def test_an_onnx_file_made_for_one_image_takes_them_one_by_one(tmp_path):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2), nn.Sigmoid()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(1, 3, 16, 16),), tmp_path / "one.onnx", dynamo=False)
    model = opened("onnx", tmp_path / "one.onnx", findings=("Edema", "Mass"))
    images = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(model.scores(images), network(images.expand(-1, 3, -1, -1)).detach())


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_an_onnx_file_of_another_precision_gets_it(kind, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2), nn.Sigmoid()).to(kind).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(1, 3, 16, 16, dtype=kind),), tmp_path / "one.onnx", dynamo=False)
    model, images = opened("onnx", tmp_path / "one.onnx", findings=("Edema", "Mass")), torch.rand(1, 1, 16, 16)
    wanted = network(images.expand(-1, 3, -1, -1).to(kind)).detach().float()
    torch.testing.assert_close(model.scores(images), wanted, atol=2e-3, rtol=0)


def test_an_onnx_file_of_whole_numbers_is_refused(tmp_path):
    class Whole(nn.Module):
        def forward(self, x):
            return x.float().mean(dim=(2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Whole(), (torch.ones(1, 3, 16, 16, dtype=torch.uint8),), tmp_path / "one.onnx", dynamo=False)
    with pytest.raises(UserError, match=r"takes tensor\(uint8\): export it"):
        opened("onnx", tmp_path / "one.onnx", findings=("Edema", "Mass", "Fracture"))


# --- TorchXRayVision


@pytest.fixture(scope="module")
def xrv(tmp_path_factory) -> Path:
    """A DenseNet of the library with drawn weights: its published ones cannot be had here."""
    from chexmsn.core.libraries import library

    models = library("torchxrayvision", "torchxrayvision").models
    folder = tmp_path_factory.mktemp("xrv")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.DenseNet(num_classes=18).eval()
    torch.save(network, folder / Path(models.model_urls["densenet121-res224-all"]["weights_url"]).name)
    torch.save(network.state_dict(), folder / "weights.pt")
    return folder


def published(xrv: Path) -> Path:
    (file,) = xrv.glob("nih-*.pt")
    return file


def test_torchxrayvision_gets_its_range_and_gives_what_the_library_gives(xrv):
    from chexmsn.core.libraries import library

    models = library("torchxrayvision", "torchxrayvision").models
    about = models.model_urls["densenet121-res224-all"]
    model = opened("torchxrayvision", published(xrv), size=64)
    assert model.findings == tuple(about["labels"]) and model.input.value_range == (-1024.0, 1024.0)
    theirs = models.DenseNet(num_classes=18, op_threshs=torch.tensor(about["op_threshs"]))
    theirs.load_state_dict(torch.load(xrv / "weights.pt"), strict=False)
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(model.scores(images), theirs.eval()(images * 2048 - 1024).detach(), atol=1e-6, rtol=0)


def test_torchxrayvision_by_name_or_with_findings_of_ones_own(xrv):
    with pytest.raises(UserError, match=r"give --options.published.*or --options.findings"):
        opened("torchxrayvision", xrv / "weights.pt")
    with pytest.raises(UserError, match=r"no weights called 'all-of-it': choose one of densenet121-res224-all"):
        opened("torchxrayvision", xrv / "weights.pt", published="all-of-it")
    nih = opened("torchxrayvision", xrv / "weights.pt", published="densenet121-res224-nih")
    assert nih.findings[-1] == "" and nih.answers == "probabilities" and nih.input.size == 224
    own = opened("torchxrayvision", xrv / "weights.pt", findings=tuple("abcdefghijklmnopqr"))
    assert own.answers == "logits"
    with pytest.raises(UserError, match=r"do not fit.*classifier.weight \(18x1024, not 2x1024\)"):
        opened("torchxrayvision", xrv / "weights.pt", findings=("Edema", "Mass"))


def test_torchxrayvision_runs_no_code_of_a_file(tmp_path, xrv):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save(Harmful(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="save its state_dict"):
        opened("torchxrayvision", tmp_path / "a.pt")
    assert not (tmp_path / "harm").exists()


def test_a_missing_library_is_named_with_its_remedy():
    from chexmsn.core.libraries import library

    with pytest.raises(UserError, match=r"library no_such_library, which is missing: pip install 'chexmsn\[onnx\]'"):
        library("no_such_library", "onnx")
