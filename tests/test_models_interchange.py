"""Models mean the same in timm, torchvision and Hugging Face, there and back, by the libraries themselves."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

import chexmsn
from chexmsn.cli.main import main
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names
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
from chexmsn.models.exporting import ExportConfig, export_model, targets
from chexmsn.models.hubs._portable import HUBS, IMAGENET_MEAN, IMAGENET_STD, Found, to_ours, to_theirs
from chexmsn.models.importing import ImportConfig, import_model
from chexmsn.models.vit import interpolate_positions
from chexmsn.recipes.arguments import run_command
from chexmsn.views import evaluation_view

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
import transformers

transformers.utils.logging.disable_progress_bar()

GOLDEN = Path(__file__).parent / "golden"
VIT = EncoderConfig(name="vit_micro", size=64, mean=0.41, std=0.22)
RESNET = replace(VIT, name="resnet18")
FINDINGS = ("Pneumothorax", "Edema", "No Finding")
THRESHOLDS = {"Edema": 0.3}
PROVENANCE = {"corruptions_seen": [{"name": "gaussian-noise"}]}
GRAY = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def colours(images, mean, std):
    """What a network of three channels is given of gray images."""
    mean, std = (torch.tensor(v).expand(3).view(3, 1, 1) for v in (mean, std))
    return (images - mean) / std


@torch.no_grad()
def trained(module, seed=0):
    """Weights and running statistics that no layer could have at its start; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def new_encoder(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trained(build_encoder(config))


def saved(folder, model):
    if isinstance(model, Classifier):
        save_classifier(folder / "classifier", model, thresholds=THRESHOLDS, provenance=PROVENANCE)
    else:
        save_encoder(folder / "encoder", model, PROVENANCE)
    return folder


def exported(folder, model, to, **options):
    return export_model(ExportConfig(model=saved(folder / "run", model), to=to, out=folder / to, **options))


def imported(source, layout, out, **options):
    return import_model(layout, ImportConfig(source=source, out=out, **options))


def refused(message, work, *words, **options):
    with pytest.raises(UserError, match=message) as caught:
        work(*words, **options)
    assert "\n" not in str(caught.value)


def follow_the_readme(folder, monkeypatch):
    """Run the lines that an exported folder gives its reader, in the folder."""
    [lines] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    made = {}
    exec(lines, made)
    return made


# --- every file of the folder


@pytest.mark.parametrize("hub", names(HUBS))
@pytest.mark.parametrize("classifier", [False, True])
def test_names_are_translated_without_loss(hub, classifier):
    weights = {name.removeprefix("vit."): w for name, w in new_encoder(VIT).state_dict().items()}
    module = load(HUBS, hub)
    theirs = to_theirs(weights, module.theirs, classifier)
    assert sum(w.numel() for w in theirs.values()) == sum(w.numel() for w in weights.values())
    back = to_ours(Found(weights=theirs, classifier=classifier), weights, module.theirs, Path("x"))
    assert all(torch.equal(back[name], w) for name, w in weights.items())
    assert module.TITLE


CASES = [(to, config) for to in targets() for config in (VIT, RESNET) if (to, config) != ("huggingface", RESNET)]


@pytest.mark.parametrize(("to", "config"), CASES, ids=lambda value: getattr(value, "name", value))
def test_encoder_goes_there_and_back(to, config, tmp_path, monkeypatch):
    encoder = new_encoder(config)
    folder = exported(tmp_path, encoder, to)
    made = follow_the_readme(folder, monkeypatch)
    close(encoder(made["images"]).pooled, made["outputs"])
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1
    back = imported(folder, to, tmp_path / "back")
    assert load_encoder(back).config == config
    close(load_encoder(back).eval()(GRAY).pooled, encoder(GRAY).pooled)
    assert provenance_of(back)["corruptions_seen"] == PROVENANCE["corruptions_seen"]
    assert provenance_of(back)["imported"].keys() == {"layout", "source", "sha256"}


@pytest.mark.parametrize(("to", "config"), [case for case in CASES if case != ("torchvision", RESNET)])
def test_classifier_goes_there_and_back(to, config, tmp_path, monkeypatch):
    classifier = trained(Classifier(new_encoder(config), FINDINGS))
    folder = exported(tmp_path, classifier, to)
    made = follow_the_readme(folder, monkeypatch)
    close(classifier(made["images"]), made["outputs"])
    back = load_classifier(imported(folder, to, tmp_path / "back"))
    assert (back.findings, back.thresholds) == (FINDINGS, THRESHOLDS)
    close(back.classifier(GRAY), classifier(GRAY))
    other = imported(folder, to, tmp_path / "other", findings=("a", "b", "c"))
    assert (load_classifier(other).findings, load_classifier(other).thresholds) == (("a", "b", "c"), {})


@pytest.mark.parametrize("to", targets())
def test_weights_that_do_not_fit_are_named(to, tmp_path):
    folder, hub = exported(tmp_path, new_encoder(VIT), to), load(HUBS, to)
    file, out = folder / "model.safetensors", tmp_path / "out"
    weights = load_file(file)
    lost = hub.theirs("blocks.1.mlp.fc1.bias", False)
    save_file({name: w for name, w in weights.items() if name != lost}, file)
    refused(f"missing: {re.escape(lost)}. Was another", imported, folder, to, out)
    save_file(weights | {"ls1.gamma": torch.ones(1)}, file)
    refused(r"unexpected: ls1.gamma. Was another", imported, folder, to, out)
    save_file(weights | {lost: torch.ones(3)}, file)
    refused(r"of another shape: vit.blocks.1.mlp.fc1.bias \(3, not 512\)", imported, folder, to, out)
    save_file({"something.weight": torch.ones(1)}, file)
    refused("choose another --from", imported, folder, to, out)
    file.write_bytes(b"no weights at all")
    refused("cannot be read", imported, folder, to, out)
    file.unlink()
    refused("holds no weights", imported, folder, to, out)
    assert not out.exists()


@pytest.mark.parametrize("hub", names(HUBS))
def test_what_is_no_model_is_refused(hub, tmp_path):
    refused("there is no .*nowhere", imported, tmp_path / "nowhere", hub, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        imported(tmp_path / "empty", hub, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- tokens, by the libraries


def timm_tokens(folder, pixels):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval().forward_features(pixels)


def torchvision_tokens(folder, pixels):
    arguments = json.loads((folder / "config.json").read_text())["arguments"]
    model = torchvision.models.VisionTransformer(**arguments)
    model.heads = torch.nn.Identity()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    patches = model.eval()._process_input(pixels)
    return model.encoder(torch.cat([model.class_token.expand(len(pixels), -1, -1), patches], dim=1))


def huggingface_tokens(folder, pixels):
    return transformers.ViTMSNModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("to", "tokens"),
    [("timm", timm_tokens), ("torchvision", torchvision_tokens), ("huggingface", huggingface_tokens)],
)
def test_tokens_are_the_libraries(to, tokens, channels, tmp_path):
    encoder = new_encoder(replace(VIT, channels=channels))
    folder = exported(tmp_path, encoder, to)
    close(tokens(folder, colours(GRAY, VIT.mean, VIT.std)), encoder.tokens(encoder.normalise(GRAY)))


@torch.no_grad()
def test_hugging_face_interpolates_positions_as_we_do(tmp_path):
    encoder = new_encoder(VIT)
    model = transformers.ViTMSNModel.from_pretrained(exported(tmp_path, encoder, "huggingface")).eval()
    larger = torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    theirs = model(pixel_values=colours(larger, VIT.mean, VIT.std), interpolate_pos_encoding=True).last_hidden_state
    close(theirs, encoder.tokens(encoder.normalise(larger)))


@torch.no_grad()
def test_hugging_face_takes_a_classifier_apart(tmp_path):
    classifier = trained(Classifier(new_encoder(replace(VIT, size=112)), FINDINGS))
    folder = exported(tmp_path, classifier, "huggingface")
    model, told = transformers.ViTMSNForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values())
    assert model.config.problem_type == "multi_label_classification"
    assert [model.config.id2label[i] for i in range(3)] == list(FINDINGS)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    picture = np.random.default_rng(0).integers(0, 255, (128, 150), dtype=np.uint8)
    pixels = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    framed = evaluation_view(torch.tensor(picture[:, 11:139]).float().view(1, 1, 128, 128) / 255, 112)
    close(pixels, colours(framed, VIT.mean, VIT.std))
    close(model.eval()(pixel_values=pixels).logits, classifier(framed))


@torch.no_grad()
def test_golden_names_and_numbers():
    with np.load(GOLDEN / "vit_key_conversion_a.npz") as file:
        arrays = {name: torch.as_tensor(file[name]) for name in file.files}

    def below(prefix):
        return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}

    for hub, prefix in {"huggingface": "out_hf4.", "torchvision": "out_tv.", "timm": "msn.", "msn": "msn."}.items():
        theirs = to_theirs(below("msn."), load(HUBS, hub).theirs, False)
        assert theirs.keys() == below(prefix).keys()
        assert all(torch.equal(w, theirs[name]) for name, w in below(prefix).items())


# --- weights made by the libraries


def timm_vit(**options):
    measures = {"embed_dim": 128, "depth": 6, "num_heads": 2, "img_size": 64}
    return trained(timm.create_model("vit_tiny_patch16_224", **measures | options))


@torch.no_grad()
@pytest.mark.parametrize("channels", [None, 3])
def test_a_file_of_timm(channels, tmp_path):
    model = timm_vit(num_classes=3)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    how = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "heads": 2, "channels": channels}
    out = imported(tmp_path / "a.pth", "timm", tmp_path / "out", findings=FINDINGS, **how)
    classifier = load_classifier(out).classifier
    assert classifier.encoder.config.channels == (channels or 1)
    close(classifier(GRAY), model(colours(GRAY, IMAGENET_MEAN, IMAGENET_STD)))


@torch.no_grad()
def test_a_timm_network_of_one_channel(tmp_path):
    model = trained(timm.create_model("resnet18", in_chans=1, num_classes=0))
    torch.save({"state_dict": model.half().state_dict()}, tmp_path / "a.bin")
    how = {"mean": (0.5,), "std": (0.25,), "size": 96}
    encoder = chexmsn.load(imported(tmp_path / "a.bin", "timm", tmp_path / "out", **how))
    assert (encoder.config.channels, encoder.config.size) == (1, 96)
    close(encoder(GRAY).pooled, model.float()((GRAY - 0.5) / 0.25))
    refused("has one channel", imported, tmp_path / "a.bin", "timm", tmp_path / "b", channels=3, **how)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_of_torchvision_keeps_its_colours(name, tmp_path):
    model = trained(getattr(torchvision.models, name)())
    torch.save(model.state_dict(), tmp_path / "a.pth")
    encoder = chexmsn.load(imported(tmp_path / "a.pth", "torchvision", tmp_path / "out"))
    assert (encoder.config.name, encoder.config.mean, encoder.config.std) == (name, IMAGENET_MEAN, IMAGENET_STD)
    model.fc = torch.nn.Identity()
    close(encoder(GRAY).pooled, model(colours(GRAY, IMAGENET_MEAN, IMAGENET_STD)))
    again = exported(tmp_path, encoder, "torchvision")
    assert torch.equal(load_file(again / "model.safetensors")["conv1.weight"], model.conv1.weight)
    refused("choose --channels 3", imported, tmp_path / "a.pth", "torchvision", tmp_path / "b", channels=1)


@torch.no_grad()
def test_a_transformer_of_torchvision_by_its_older_names(tmp_path):
    model = trained(torchvision.models.VisionTransformer(64, 16, 6, 2, 128, 512))
    older = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): w
        for name, w in model.state_dict().items()
    }
    torch.save(older, tmp_path / "a.pth")
    encoder = chexmsn.load(imported(tmp_path / "a.pth", "torchvision", tmp_path / "out"))
    model.heads = torch.nn.Identity()
    close(encoder(GRAY).pooled, model(colours(GRAY, IMAGENET_MEAN, IMAGENET_STD)))


def huggingface_folder(folder, kind=transformers.ViTMSNModel, **options):
    measures = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 512}
    model = trained(kind(transformers.ViTMSNConfig(image_size=64, **measures | options)))
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_folders_of_hugging_face(tmp_path):
    model = huggingface_folder(tmp_path / "encoder")
    encoder = chexmsn.load(imported(tmp_path / "encoder", "huggingface", tmp_path / "out"))
    theirs = model(pixel_values=colours(GRAY, IMAGENET_MEAN, IMAGENET_STD)).last_hidden_state
    close(encoder.tokens(encoder.normalise(GRAY)), theirs)

    labels = {"id2label": dict(enumerate(FINDINGS)), "label2id": {f: i for i, f in enumerate(FINDINGS)}}
    for problem, findings in {"multi_label_classification": FINDINGS, "single_label_classification": None}.items():
        kind = transformers.ViTMSNForImageClassification
        model = huggingface_folder(tmp_path / problem, kind, problem_type=problem, **labels)
        out = imported(tmp_path / problem, "huggingface", tmp_path / f"out-{problem}")
        if findings:
            logits = model(pixel_values=colours(GRAY, IMAGENET_MEAN, IMAGENET_STD)).logits
            close(chexmsn.load_classifier(out)(GRAY), logits)
        else:
            refused("no classifier", load_classifier, out)


@torch.no_grad()
def test_a_checkpoint_of_msn(tmp_path):
    model = timm_vit(num_classes=0)
    target = {f"module.{name}": w for name, w in model.state_dict().items()}
    head = {"module.fc.fc1.weight": torch.ones(2, 2), "module.fc.bn1.num_batches_tracked": torch.tensor(3)}
    rest = {"encoder": {}, "opt": {"state": {}, "param_groups": [{"lr": 0.1}]}, "prototypes": torch.ones(2), "epoch": 8}
    torch.save(rest | {"target_encoder": target | head}, tmp_path / "a.pth.tar")
    encoder = chexmsn.load(imported(tmp_path / "a.pth.tar", "msn", tmp_path / "out"))
    close(encoder(GRAY).pooled, model(colours(GRAY, IMAGENET_MEAN, IMAGENET_STD)))
    torch.save(rest, tmp_path / "b.pth.tar")
    refused("has no target_encoder", imported, tmp_path / "b.pth.tar", "msn", tmp_path / "c")


# --- sizes, readouts, records


@pytest.mark.parametrize("way", ["export", "import"])
def test_positions_are_resized_when_asked(way, tmp_path):
    encoder = new_encoder(VIT)
    folder = exported(tmp_path, encoder, "timm", size=96 if way == "export" else None)
    back = load_encoder(imported(folder, "timm", tmp_path / "back", size=96 if way == "import" else None))
    assert back.config.size == 96
    assert torch.equal(back.vit.pos_embed, interpolate_positions(encoder.vit.pos_embed, (6, 6)))
    refused("multiple of the patch size", imported, folder, "timm", tmp_path / "odd", size=70)


@torch.no_grad()
def test_a_linear_probe_is_one_linear_layer_elsewhere(tmp_path, monkeypatch):
    classifier = trained(Classifier(new_encoder(VIT), FINDINGS, "batch-norm"))
    made = follow_the_readme(exported(tmp_path, classifier, "timm"), monkeypatch)
    close(classifier(made["images"]), made["outputs"])


def test_other_readouts_have_no_class_elsewhere(tmp_path):
    classifier = Classifier(new_encoder(VIT), FINDINGS, "attentive")
    refused("by attentive, .*: export the encoder that it was trained on", exported, tmp_path, classifier, "timm")
    assert not (tmp_path / "timm").exists()


def test_a_run_tells_how_it_was_made_and_no_place(small_run, tmp_path):
    folder = export_model(ExportConfig(model=small_run.classifier, to="huggingface", out=tmp_path / "a"))
    text = (folder / "chexmsn.json").read_text()
    told = json.loads(text)["provenance"]
    assert told["pretraining"]["config"]["method"] == "msn"
    assert told["training"]["data"]["fingerprint"] in (folder / "README.md").read_text()
    assert "torch" in told["training"]["versions"]
    for file in folder.glob("*.*"):
        assert str(small_run.pack.parent).encode() not in file.read_bytes()
    back = load_classifier(imported(folder, "huggingface", tmp_path / "b"))
    assert back.provenance["corruptions_seen"] == load_classifier(small_run.classifier).provenance["corruptions_seen"]


def test_commands_and_stages_of_recipes(tmp_path, capsys):
    run, back = saved(tmp_path / "run", new_encoder(VIT)), tmp_path / "back"
    assert main(["export", str(run), "--to", "torchvision", "--out", str(tmp_path / "tv")]) == 0
    run_command("import", {"source": str(tmp_path / "tv"), "from": "torchvision", "out": str(back)})
    assert load_encoder(back).config == VIT
    capsys.readouterr()
    for words, said in [
        (["export", str(run), "--to", "msn", "--out", str(tmp_path / "x")], "facebookresearch/msn, not written"),
        (["export", str(run), "--to", "keras", "--out", str(tmp_path / "x")], "there is no hub called 'keras'"),
        (["export", str(run), "--to", "timm", "--out", str(tmp_path / "tv")], "is there already and not empty"),
        (["export", str(tmp_path / "tv"), "--to", "timm", "--out", str(tmp_path / "x")], "holds no trained model"),
        (["import", str(tmp_path / "tv"), "--from", "torchvision", "--out", str(back)], "is there already"),
        (["import", str(tmp_path / "tv"), "--from", "keras", "--out", str(tmp_path / "x")], "called 'keras'"),
        (["import", str(tmp_path / "tv"), "--out", str(tmp_path / "x")], "from"),
    ]:  # fmt: skip
        assert main(words) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and said in lines[0], (words, lines)
    assert not (tmp_path / "x").exists()


# --- refusals


def test_a_cnn_has_no_class_in_hugging_face(tmp_path):
    refused("resnet18 has no class in Hugging Face", exported, tmp_path, new_encoder(RESNET), "huggingface")
    assert not (tmp_path / "huggingface").exists()


def test_of_a_run_with_both_the_classifier_goes_with_its_own_record(tmp_path):
    save_encoder(tmp_path / "run" / "encoder", new_encoder(VIT), {"of": "the encoder"})
    classifier = trained(Classifier(new_encoder(VIT), FINDINGS))
    save_classifier(tmp_path / "run" / "classifier", classifier, thresholds={}, provenance={"of": "the classifier"})
    folder = export_model(ExportConfig(model=tmp_path / "run", to="timm", out=tmp_path / "out"))
    record = json.loads((folder / "chexmsn.json").read_text())
    assert (record["kind"], record["provenance"]) == ("classifier", {"of": "the classifier"})


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def disk_is_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chexmsn.models.exporting.write_json", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        exported(tmp_path, new_encoder(VIT), "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def test_what_a_bare_file_does_not_say_must_be_said(tmp_path):
    torch.save(timm_vit(num_classes=3).state_dict(), tmp_path / "a.pth")

    def asked(message, **options):
        refused(message, imported, tmp_path / "a.pth", "timm", tmp_path / "out", **options)

    asked("does not say what mean .* give --mean", heads=2)
    asked("does not say how many attention heads .* give --heads", **IMAGENET)
    asked("has 4 attention heads, ours of its width 2", heads=4, **IMAGENET)
    asked("3 outputs, not the 1 of Edema", heads=2, findings=("Edema",), **IMAGENET)
    asked("mean and std are one number or three", mean=(0.1, 0.2))
    asked("1 or 3 channels, not 2", channels=2)
    refused("no vision transformer or ResNet with the names of torchvision", imported,
            tmp_path / "a.pth", "torchvision", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 5}, "128 wide with 5 blocks, which is none of our transformers: vit_micro"),
        ({"class_token": False, "global_pool": "avg"}, "positions of shape"),
        ({"reg_tokens": 1}, "unexpected: reg_token|positions of shape"),
        ({"init_values": 1e-5}, "unexpected: blocks.0.ls1.gamma"),
        ({"qkv_bias": False}, "missing: blocks.0.attn.qkv.bias"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_transformers_that_are_none_of_ours(options, message, tmp_path):
    save_file(timm_vit(num_classes=0, **options).state_dict(), tmp_path / "a.safetensors")
    refused(message, imported, tmp_path / "a.safetensors", "timm", tmp_path / "out", heads=2, **IMAGENET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "vit"}, "a model of type vit: only vit_msn"),
        ({"layer_norm_eps": 1e-12}, "has layer_norm_eps 1e-12, our encoders 1e-06"),
        ({"hidden_act": "relu"}, "has hidden_act relu"),
        ({"num_attention_heads": 4}, "has 4 attention heads"),
    ],
)
def test_networks_of_hugging_face_that_compute_something_else(changes, message, tmp_path):
    folder = exported(tmp_path, new_encoder(VIT), "huggingface")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    refused(message, imported, folder, "huggingface", tmp_path / "out")


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("layout", ["timm", "torchvision", "msn"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"target_encoder": Payload()}, "not a checkpoint that can be read safely: save its weights alone"),
        ([1, 2], "holds a list, no table of weights"),
        ({"target_encoder": {"epoch": 3}, "epoch": 3}, "no plain table of weights"),
        ({}, "it is empty|has no target_encoder"),
    ],
    ids=["code", "list", "numbers", "empty"],
)
def test_files_that_hold_something_else(layout, content, message, tmp_path, capsys):
    torch.save(content, tmp_path / "a.pth")
    refused(message, imported, tmp_path / "a.pth", layout, tmp_path / "out")
    assert "this ran" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_classifier_in_one_line(tmp_path):
    classifier = trained(Classifier(new_encoder(VIT), FINDINGS))
    loaded = chexmsn.load_classifier(str(saved(tmp_path, classifier)))
    assert not loaded.training
    assert fingerprint(loaded) == fingerprint(classifier)
