"""Every recipe is built; a recipe's mistakes are found before its first stage runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import build_encoder
from chexmsn.recipes.arguments import parse
from chexmsn.recipes.recipe import read_recipe, run_recipe
from chexmsn.training.run_folder import plain

ROOT = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(ROOT.glob("*.yaml"))
FINDINGS = tuple(f"finding {number}" for number in range(14))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_built(path, tmp_path):
    variables = {"data": str(tmp_path)} if "  data:\n" in path.read_text() else {}
    encoders = {}
    for stage in read_recipe(path, tmp_path, variables):
        config = parse(stage.command, stage.values)
        if stage.command not in ("pretrain", "train"):
            continue
        encoder = config.encoder or encoders[str(config.encoder_from)]
        encoders[str(config.out)] = encoder
        setting = Setting(size=encoder.size, batch_size=config.batch_size, findings=FINDINGS, positives=(0.1,) * 14)
        module = load("chexmsn.methods", config.method)
        method = module.Method(config.options, build_encoder(encoder), setting)
        assert {"lr", "weight_decay"} <= set(method.schedules())
    assert encoders


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_opens_with_command_cost_and_expectation(path):
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for word in ("# command ", "# cost ", "# expected "):
        assert word in head
    assert "MEASURED" not in head


def test_published_and_corrected_differ_in_what_is_said_and_in_nothing_else(tmp_path):
    def parts(value: dict, depth: int, prefix: str = "") -> dict[str, Any]:
        deeper = {k: v for k, v in value.items() if isinstance(v, dict) and depth}
        flat = {f"{prefix}{k}": v for k, v in value.items() if k not in deeper}
        return flat | {k: v for name, v in deeper.items() for k, v in parts(v, depth - 1, f"{prefix}{name}.").items()}

    def options(name: str) -> dict[str, Any]:
        stages = read_recipe(ROOT / f"mimic-cxr-{name}.yaml", tmp_path, {"data": "data"})
        return parts({stage.name: plain(vars(parse(stage.command, stage.values))) for stage in stages}, depth=2)

    published, corrected = options("published"), options("corrected")
    assert published.keys() == corrected.keys()
    changed = {name: (published[name], corrected[name]) for name in published if published[name] != corrected[name]}
    assert changed.pop("report.title")
    said = re.findall(
        r"^#   (\S+) +(.+?) -> (\[.*?\]|\{.*?\}|\S+)", (ROOT / "mimic-cxr-corrected.yaml").read_text(), re.M
    )
    assert {name: tuple(map(yaml.safe_load, values)) for name, *values in said} == changed


def test_a_recipe_runs_its_stages_and_passes_over_finished_ones(tmp_path, caplog):
    caplog.set_level("INFO")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "vars: {patients: 6}\n"
        "stages:\n"
        "  - {name: draw, command: fake,\n"
        "     with: {source: phantom, folder: '${out}/a', patients: '${patients}', size: 64}}\n"
        "  - {name: pack, command: prepare, with: {source: phantom, folder: '${out}/a', out: '${out}/b', size: 64}}\n"
    )
    run_recipe(recipe, tmp_path / "out", {"patients": "5"}, only="draw")
    assert not (tmp_path / "out" / "b").exists()
    run_recipe(recipe, tmp_path / "out", {"patients": "5"})
    assert (tmp_path / "out" / "b" / "pack.json").is_file()
    caplog.clear()
    run_recipe(recipe, tmp_path / "out", {"patients": "5"})
    assert caplog.text.count("nothing to do") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: 3\nextra: 1\n", "not extra"),
        ("vars: {data: }\nstages: []\n", "--set data="),
        ("stages: [{name: a, command: fake}]\n", "a stage has name, command and with"),
        ("stages: [{name: a, command: fly, with: {}}]\n", "stage a: there is no command called 'fly'"),
        ("stages: [{name: a, command: fake, with: {source: phantom, folder: '${where}'}}]\n", "where"),
        ("stages: [{name: a, command: fake, with: {source: phantom, folder: x, wings: 2}}]\n", "stage a: "),
        ("- 1\n", "options by name"),
        ("stages: 3\n", "stages a list"),
        ("stages: [draw]\n", "a stage has name, command and with"),
        ("stages: [{name: a, command: fake, with: }]\n", "a stage has name, command and with"),
        ("stages: [{name: a, for: x in y, command: fake, with: {}}]\n", "`name in variable`"),
        ("stages: [{name: a, for: , command: fake, with: {}}]\n", "`name in variable`"),
        ("vars: {y: 3}\nstages: [{name: a, for: x in y, command: fake, with: {}}]\n", "`name in variable`"),
        ("vars: {y: {a: 1}}\nstages: [{name: a, for: x of y, command: fake, with: {}}]\n", "`name in variable`"),
        ("base: other.yaml\nstages: []\n", "both a base and stages"),
        ("base: other.yaml\n", "cannot read .*other.yaml"),
    ],
)
def test_a_broken_recipe_is_refused_in_one_line(text, said, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(UserError, match="(?s).*" + said.replace("{", r"\{")) as error:
        run_recipe(recipe, tmp_path / "out", {})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_value_that_is_no_yaml_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--set patients=\[1"):
        run_recipe(ROOT / "demo.yaml", tmp_path / "out", {"patients": "[1"})


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no stage 'fly': it has draw, pack"):
        run_recipe(ROOT / "demo.yaml", tmp_path / "out", {}, only="fly")


def test_a_stage_is_repeated_for_every_entry_of_a_variable(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "vars: {arms: {small: {side: 32, told: {seed: 1}}, large: {side: 64, told: {seed: 2}}}}\n"
        "stages:\n"
        "  - name: draw-${arm}\n"
        "    for: arm in arms\n"
        "    command: fake\n"
        "    with: {folder: '${out}/${arm}', size: '${arm.side}', told: '${arm.told}', text: 'side ${arm.side}'}\n"
    )
    stages = read_recipe(recipe, Path("out"), {})
    assert [stage.name for stage in stages] == ["draw-small", "draw-large"]
    assert stages[1].values == {"folder": "out/large", "size": 64, "told": {"seed": 2}, "text": "side 64"}


def test_a_recipe_takes_the_stages_of_its_base_with_variables_of_its_own(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "vars: {a: 1, b: 2}\nstages: [{name: s, command: fake, with: {a: '${a}', b: '${b}'}}]\n"
    )
    (tmp_path / "derived.yaml").write_text("base: base.yaml\nvars: {b: 3}\n")
    assert read_recipe(tmp_path / "derived.yaml", Path("out"), {"a": "4"})[0].values == {"a": 4, "b": 3}


def test_an_option_of_several_values_given_twice_keeps_both():
    words = ["recipe.yaml", "--out", "out", "--set", "a=1", "--set", "b=2", "c=3"]
    assert parse("run", words).set == ["a=1", "b=2", "c=3"]
    assert parse("run", words[:3]).set == []
    config = parse("pretrain", ["--data", "a", "--data=b", "--out", "c", "--train_splits", "x"])
    assert [str(path) for path in config.data] == ["a", "b"]
    assert config.train_splits == ["x"]


def test_a_stage_by_itself_says_which_stage_must_come_before(tmp_path):
    told = r"stage train-msn takes .*packs/nih14, which is not there: run stage pack-nih14 first"
    with pytest.raises(UserError, match=told):
        run_recipe(ROOT / "real-cpu.yaml", tmp_path / "out", {"data": str(tmp_path)}, only="train-msn")
