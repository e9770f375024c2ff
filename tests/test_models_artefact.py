"""Models come back bit for bit, and what is not one of ours is refused in one clear line."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import chexmsn
from chexmsn.core.errors import UserError
from chexmsn.models import artefact
from chexmsn.models.artefact import (
    fingerprint,
    load_classifier,
    load_encoder,
    provenance_of,
    save_classifier,
    save_encoder,
)
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.models.vit import interpolate_positions

CONFIG = EncoderConfig(name="vit_micro", size=64, mean=0.41, std=0.22, drop_path=0.1)
PROVENANCE = {"method": "msn", "seed": 3, "corruptions": []}
FINDINGS = ("Pneumothorax", "Edema")
IMAGES = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def new_encoder(config=CONFIG, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(config)


def new_classifier(config=CONFIG):
    return Classifier(new_encoder(config), FINDINGS)


def refused(path, message, load=load_encoder, **options):
    with pytest.raises(UserError, match=message) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


# --- there and back


@pytest.mark.parametrize("name", ["vit_micro", "resnet18"])
def test_an_encoder_comes_back_bit_for_bit(tmp_path, name):
    encoder = new_encoder(replace(CONFIG, name=name))
    encoder(IMAGES)  # moves the running statistics of BatchNorm
    save_encoder(tmp_path / "run" / "encoder", encoder, PROVENANCE)
    for path in (tmp_path / "run" / "encoder", tmp_path / "run"):
        loaded = load_encoder(path)
        assert loaded.config == encoder.config
        assert loaded.training
        assert fingerprint(loaded) == fingerprint(encoder)
        assert torch.equal(loaded.eval()(IMAGES).pooled, encoder.eval()(IMAGES).pooled)
        assert all(p.requires_grad for p in loaded.parameters())
        assert provenance_of(path) == PROVENANCE
        encoder.train()


@pytest.mark.parametrize("name", ["vit_micro", "resnet18"])
def test_a_classifier_comes_back_bit_for_bit(tmp_path, name):
    classifier = new_classifier(replace(CONFIG, name=name))
    thresholds = {"Edema": 1 / 3}
    save_classifier(tmp_path / "run" / "classifier", classifier, thresholds=thresholds, provenance=PROVENANCE)
    for path in (tmp_path / "run" / "classifier", tmp_path / "run"):
        loaded = load_classifier(path)
        assert (loaded.findings, loaded.thresholds, loaded.provenance) == (FINDINGS, thresholds, PROVENANCE)
        assert loaded.path == tmp_path / "run" / "classifier"
        assert not loaded.classifier.training
        assert fingerprint(loaded.classifier) == fingerprint(classifier)
        assert torch.equal(loaded.classifier(IMAGES), classifier.eval()(IMAGES))
        assert fingerprint(load_encoder(path)) == fingerprint(classifier.encoder)


def test_of_a_run_with_both_each_finds_its_own(tmp_path):
    encoder, classifier = new_encoder(seed=1), new_classifier()
    save_encoder(tmp_path / "encoder", encoder, {})
    save_classifier(tmp_path / "classifier", classifier, thresholds={}, provenance={})
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(encoder)
    assert fingerprint(load_classifier(tmp_path).classifier) == fingerprint(classifier)


def save_checkpoint(file, method, prefix, findings=()):
    run = nn.ModuleDict({"method": method})
    told = {"encoder": asdict(CONFIG), "method": "msn", "findings": list(findings), "downstream_prefix": prefix}
    torch.save({"state_dict": run.state_dict(), "hyper_parameters": told, "epoch": 3}, file)


def test_a_checkpoint_gives_its_downstream_model(tmp_path):
    target, classifier = new_encoder(seed=1), new_classifier()
    file = tmp_path / "last.ckpt"
    save_checkpoint(file, nn.ModuleDict({"online": new_encoder(seed=2), "target": target}), "method.target.")
    assert fingerprint(load_encoder(file)) == fingerprint(target)
    assert provenance_of(file) == {"checkpoint": "last.ckpt", "method": "msn"}

    save_checkpoint(file, nn.ModuleDict({"model": classifier, "other": target}), "method.model.", FINDINGS)
    loaded = load_classifier(file)
    assert (loaded.findings, loaded.thresholds) == (FINDINGS, {})
    assert fingerprint(loaded.classifier) == fingerprint(classifier)
    assert fingerprint(load_encoder(file)) == fingerprint(classifier.encoder)


def test_load_is_the_encoder_in_one_line(tmp_path):
    encoder = new_encoder()
    save_encoder(tmp_path / "encoder", encoder, {})
    loaded = chexmsn.load(str(tmp_path))
    assert not loaded.training
    assert torch.equal(loaded(IMAGES).pooled, encoder.eval()(IMAGES).pooled)


def test_importing_the_package_imports_no_torch():
    code = "import sys, chexmsn; assert chexmsn.__version__ and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_encoder_comes_back_for_another_image_size(tmp_path):
    encoder = new_encoder()
    save_encoder(tmp_path, encoder, {})
    larger = replace(CONFIG, size=96, drop_path=0.0)
    loaded = load_encoder(tmp_path, larger)
    assert loaded.config == larger
    assert torch.equal(loaded.vit.pos_embed, interpolate_positions(encoder.vit.pos_embed, (6, 6)))


def test_loading_draws_no_random_number(tmp_path):
    save_classifier(tmp_path, new_classifier(), thresholds={}, provenance={})
    before = torch.get_rng_state()
    load_classifier(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_the_fingerprint_knows_values_names_types_and_shapes():
    layer = nn.Linear(2, 2)
    prints = {fingerprint(layer)}
    prints.add(fingerprint(nn.Sequential(layer)))
    prints.add(fingerprint(layer.bfloat16()))
    layer.weight = nn.Parameter(layer.weight.reshape(4, 1))
    prints.add(fingerprint(layer))
    layer.weight.data[0] += 1
    prints.add(fingerprint(layer))
    assert len(prints) == 5


def test_config_tells_other_software_all_it_needs(tmp_path):
    save_classifier(tmp_path, new_classifier(), thresholds={"Edema": 0.5}, provenance=PROVENANCE)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["findings"] == list(FINDINGS)
    assert described["encoder"]["name"] == "vit_micro"
    assert {"size": 64, "mean": 0.41, "std": 0.22, "channels": 1}.items() <= described["preprocessing"].items()
    assert set(load_file(tmp_path / "classifier.safetensors")) == set(new_classifier().state_dict())


# --- whole or not at all


def test_saving_again_replaces_the_folder(tmp_path):
    save_encoder(tmp_path / "encoder", new_encoder(seed=1), {"epoch": 1})
    (tmp_path / ".encoder.partial" / "new").mkdir(parents=True)  # what a killed run left
    save_encoder(tmp_path / "encoder", new_encoder(seed=2), {"epoch": 2})
    assert provenance_of(tmp_path) == {"epoch": 2}
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(new_encoder(seed=2))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == ["config.json", "encoder.safetensors"]


def test_whoever_may_read_the_description_may_read_the_weights(tmp_path):
    save_encoder(tmp_path / "encoder", new_encoder(), {})
    assert len({file.stat().st_mode for file in (tmp_path / "encoder").iterdir()}) == 1


@pytest.mark.parametrize("step", ["save_file", "write_json"])
def test_a_failure_while_saving_leaves_the_old_folder(tmp_path, monkeypatch, step):
    save_encoder(tmp_path / "encoder", new_encoder(seed=1), {"epoch": 1})

    def disk_is_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact, step, disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(tmp_path / "encoder", new_encoder(seed=2), {"epoch": 2})
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(new_encoder(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_a_failure_while_the_folder_is_exchanged_leaves_the_old_one(tmp_path, monkeypatch):
    save_encoder(tmp_path / "encoder", new_encoder(seed=1), {"epoch": 1})
    rename = artefact.Path.rename

    def fails_for_the_new(path, target):
        if path.name == "new":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(artefact.Path, "rename", fails_for_the_new)
    with pytest.raises(OSError, match="Input/output"):
        save_encoder(tmp_path / "encoder", new_encoder(seed=2), {"epoch": 2})
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(new_encoder(seed=1))


def test_other_files_are_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"would replace .*, which holds other files .thesis.tex.: choose a new folder"):
        save_encoder(tmp_path, new_encoder(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# --- bad input


def test_another_architecture_is_told_by_what_does_not_fit(tmp_path):
    save_encoder(tmp_path, new_encoder(), {})
    refused(
        tmp_path,
        r"do not fit vit_tiny: missing: vit.blocks.6.norm1.weight, .* and 69 more; "
        r"of another shape: vit.cls_token \(1x1x128, not 1x1x192\), .* and \d+ more",
        config=replace(CONFIG, name="vit_tiny"),
    )
    refused(
        tmp_path,
        r"do not fit resnet18: missing: resnet.conv1.weight, .*; unexpected: vit.",
        config=replace(CONFIG, name="resnet18"),
    )
    refused(
        tmp_path,
        r"do not fit vit_micro: of another shape: vit.patch_embed.proj.weight \(128x1x16x16, not 128x3x16x16\)\. ",
        config=replace(CONFIG, channels=3),
    )


def test_places_without_a_model(tmp_path):
    refused(tmp_path / "nowhere", "there is no .*nowhere: name a run folder")
    refused(tmp_path, "holds no trained model .*: is it a run folder")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    refused(tmp_path, "give the run's command again, or name .*last.ckpt")


def test_an_encoder_is_no_classifier(tmp_path):
    save_encoder(tmp_path, new_encoder(), {})
    refused(tmp_path, "holds an encoder and no classifier", load=load_classifier)


def rewrite(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_damaged_artefacts(tmp_path):
    save_encoder(tmp_path / "a", new_encoder(), {})
    weights, config = tmp_path / "a" / "encoder.safetensors", tmp_path / "a" / "config.json"
    whole, described = weights.read_bytes(), config.read_text()

    weights.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a", "encoder.safetensors cannot be read .*: restore it")
    save_file({name: w + 1 for name, w in new_encoder().state_dict().items()}, weights)
    refused(tmp_path / "a", "is not what .*config.json describes")
    weights.write_bytes(whole)

    config.write_text(described[:-20])
    refused(tmp_path / "a", "is not valid JSON")
    for changes in ({"format": 99}, {"kind": "tokenizer"}):
        config.write_text(described)
        rewrite(config, **changes)
        refused(tmp_path / "a", "does not describe a model in format 1")
    for encoder in ({"name": "vit_micro", "colour": "blue"}, None, "vit_micro"):
        config.write_text(described)
        rewrite(config, encoder=encoder)
        refused(tmp_path / "a", "describes an encoder this version does not know .*(colour|None|vit_micro)")
    config.write_text(described)
    rewrite(config, encoder={"name": "vit_micro", "size": "big"})
    refused(tmp_path / "a", "describes an encoder with values of the wrong kind")
    config.write_text(described)
    assert load_encoder(tmp_path / "a").config == CONFIG


def test_a_full_disk_leaves_nothing_and_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("chexmsn.models.artefact.save_file", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device"):
        save_encoder(tmp_path / "a", new_encoder(), {})
    assert not list(tmp_path.iterdir())


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "epoch": 3}, "no checkpoint of a chexmsn run"),
        ([1, 2], "no checkpoint of a chexmsn run"),
        ({"state_dict": {}, "hyper_parameters": {"lr": 0.1}}, "no checkpoint of a chexmsn run"),
        ({"hyper_parameters": Payload()}, "not a checkpoint that can be read safely"),
    ],
)
def test_checkpoints_of_others(tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", message)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint at all", b"PK\x03\x04 truncated", b"root:x:0:0:root:/root:/bin/sh\n", b"(lp0\n."]
)
def test_files_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    refused(tmp_path / "a.ckpt", "not a checkpoint that can be read safely")


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_refused(tmp_path, content):
    test_files_that_are_no_checkpoint(tmp_path, content)


def test_weights_may_be_named_themselves(tmp_path):
    save_encoder(tmp_path / "a", new_encoder(), PROVENANCE)
    file = tmp_path / "a" / "encoder.safetensors"
    assert fingerprint(load_encoder(file)) == fingerprint(new_encoder())
    file.write_bytes(file.read_bytes()[:500])
    refused(file, "encoder.safetensors cannot be read")


def test_a_truncated_checkpoint(tmp_path):
    file = tmp_path / "a.ckpt"
    save_checkpoint(file, new_encoder(), "method.")
    file.write_bytes(file.read_bytes()[:-1000])
    refused(file, "not a checkpoint that can be read safely")


def test_a_threshold_needs_its_finding(tmp_path):
    with pytest.raises(UserError, match="no output for the threshold of Fracture: findings are Pneumothorax, Edema"):
        save_classifier(tmp_path / "a", new_classifier(), thresholds={"Fracture": 0.5}, provenance={})
    assert not list(tmp_path.iterdir())


def test_what_is_no_path_and_images_of_eight_bit_are_told():
    """In a process of its own: here, annotations are checked before our own words come."""
    code = (
        "import chexmsn, torch\n"
        "from chexmsn.core.errors import UserError\n"
        "from chexmsn.models.encoder import EncoderConfig, build_encoder\n"
        "encoder = build_encoder(EncoderConfig(name='vit_micro', size=32))\n"
        "for what in (lambda: chexmsn.load(3), lambda: encoder(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))):\n"
        "    try:\n        what()\n"
        "    except UserError as error:\n        print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "by its path, not 3" in told and "B x 1 x H x W, not uint8: divide" in told
