"""Probes read a frozen encoder as their authors do, and what they train is what is handed on."""

import json

import pytest
import torch

from chexmsn.core.errors import UserError
from chexmsn.corruptions import kept_patches
from chexmsn.methods import attentive_probe, linear_probe
from chexmsn.methods._base import Setting
from chexmsn.models.artefact import load_classifier, save_classifier
from chexmsn.models.classifier import Classifier
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.models.readout import READOUTS
from test_methods import batch_of, build, parameters, step_of
from test_methods_golden import GivenFeatures, as_image, load, params
from test_models_golden import below

PROBES = [("linear-probe", {"readout": name}) for name in ("pooled", "batch-norm", "layer-norm")] + [
    ("attentive-probe", {})
]


def linear_probe_on(p, **options):
    setting = Setting(size=224, batch_size=6, findings=tuple(f"finding {i}" for i in range(p.classes)))
    return linear_probe.Method(linear_probe.Config(**options), GivenFeatures(p.dim), setting).double()


def test_maes_linear_evaluation():
    arrays, close = load("mae_linear_head_a")
    classifier = linear_probe_on(params("mae_linear_head_a"), readout="batch-norm").classifier
    classifier.head.load_state_dict(below("w.", arrays))
    for i in range(2):
        close(classifier(as_image(arrays[f"in_features{i}"])), arrays[f"out_train_logits{i}"])
    close(classifier.readout.norm.running_mean, arrays["out_running_mean"])
    close(classifier.readout.norm.running_var, arrays["out_running_var"])
    close(classifier.eval()(as_image(arrays["in_features_eval"])), arrays["out_eval_logits"])


def test_msns_linear_evaluation(monkeypatch):
    monkeypatch.setattr(GivenFeatures, "kind", "transformer")  # whose class tokens these are
    arrays, close = load("msn_linear_head_a")
    classifier = linear_probe_on(params("msn_linear_head_a"), readout="layer-norm").classifier
    weights = {"readout.norm": "w.norm.", "head": "w.linear."}
    for ours, theirs in weights.items():
        classifier.get_submodule(ours).load_state_dict(below(theirs, arrays))
    close(classifier(as_image(arrays["in_features"])), arrays["out_logits_normalize"])
    close(classifier.head(classifier.readout.norm(arrays["in_features"])), arrays["out_logits_plain"])


def test_msns_readout_stands_in_the_place_of_the_last_layer_norm():
    classifier = build("linear-probe", readout="layer-norm").classifier.eval()
    encoder, images = classifier.encoder, torch.rand(2, 1, 32, 32)
    torch.nn.init.normal_(encoder.vit.norm.weight)
    features = encoder(images)
    torch.testing.assert_close(encoder.vit.norm(features.before_norm), features.pooled)
    read = classifier.readout(features)
    torch.testing.assert_close(read.norm(dim=1), torch.ones(2))
    torch.nn.init.normal_(encoder.vit.norm.weight)
    torch.testing.assert_close(classifier.readout(encoder(images)), read)


@pytest.mark.parametrize(("name", "options"), PROBES)
def test_only_what_reads_the_encoder_is_trained(name, options):
    method = build(name, **options)
    assert not any("encoder" in parameter for parameter in parameters(method))
    assert {"classifier.head.weight", "classifier.head.bias"} <= set(parameters(method))
    before = {name: t.clone() for name, t in method.classifier.encoder.state_dict().items()}
    for mode in (True, False, True):
        method.train(mode)
        assert not any(module.training for module in method.classifier.encoder.modules())
    step_of(method).loss.backward()
    assert all(torch.equal(t, before[name]) for name, t in method.classifier.encoder.state_dict().items())


def test_a_linear_probe_of_a_cnn_leaves_its_statistics_alone():
    method = build("linear-probe", encoder="resnet18")
    before = {name: t.clone() for name, t in method.classifier.encoder.state_dict().items()}
    step_of(method).loss.backward()
    assert all(torch.equal(t, before[name]) for name, t in method.classifier.encoder.state_dict().items())


@pytest.mark.parametrize("optimiser", ["adamw", "nesterov-sgd", "lars"])
def test_a_linear_probe_is_optimised_as_asked(optimiser):
    assert build("linear-probe", optimiser=optimiser).optimiser().name == optimiser


@pytest.mark.parametrize(("name", "options"), PROBES)
def test_a_probe_comes_back_from_its_folder(name, options, tmp_path):
    method = build(name, **options)
    step_of(method)
    classifier, (views, _, _) = method.downstream().eval(), batch_of(method)
    save_classifier(tmp_path / "classifier", classifier, thresholds={}, provenance={})
    loaded = load_classifier(tmp_path).classifier
    assert loaded.reads == classifier.reads
    assert torch.equal(loaded(views[0]), classifier(views[0]))


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in (config | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_a_folder_from_before_there_were_readouts_is_read_as_before(tmp_path):
    method = build("fine-tune")
    classifier, (views, _, _) = method.downstream().eval(), batch_of(method)
    save_classifier(tmp_path, classifier, thresholds={}, provenance={})
    rewrite(tmp_path, readout=None)
    assert torch.equal(load_classifier(tmp_path).classifier(views[0]), classifier(views[0]))


def test_a_readout_of_another_version_is_told(tmp_path):
    save_classifier(tmp_path, build("attentive-probe").classifier, thresholds={}, provenance={})
    rewrite(tmp_path, readout="telepathic")
    with pytest.raises(UserError, match=r"does not know \(telepathic\): use the version that made it"):
        load_classifier(tmp_path)
    with pytest.raises(UserError, match="no readout called 'telepathic': choose one of pooled, "):
        Classifier(build("fine-tune").classifier.encoder, ["Edema"], "telepathic")


def test_an_attentive_readout_sees_the_tokens_that_there_are():
    classifier = build("attentive-probe").classifier.eval()
    (images,), _, draws = batch_of(build("attentive-probe"))
    kept = kept_patches(draws, 16, 0.5)
    features = classifier.encoder(images, kept)
    assert features.tokens.shape[1] == 8
    torch.testing.assert_close(classifier(images, kept), classifier.head(classifier.readout(features)))
    shuffled = features._replace(tokens=features.tokens.flip(1), pooled=features.pooled * 0)
    torch.testing.assert_close(classifier.readout(shuffled), classifier.readout(features))
    assert not torch.equal(classifier(images, kept), classifier(images))


def test_an_attentive_readout_is_attention_written_out():
    readout = build("attentive-probe").classifier.readout.double()
    tokens = torch.rand(3, 5, 128, dtype=torch.float64)
    attention, heads = readout.attention, readout.attention.num_heads
    biases = attention.in_proj_bias.chunk(3)
    query, key, value = (
        (x @ weight.T + bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(
            (readout.query, tokens, tokens), attention.in_proj_weight.chunk(3), biases, strict=True
        )
    )
    weights = (query @ key.mT / key.shape[-1] ** 0.5).softmax(-1)
    wanted = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))[:, 0]
    pooled = tokens[:, 0]
    features = build("attentive-probe").classifier.encoder(torch.rand(3, 1, 32, 32))
    given = features._replace(pooled=pooled, tokens=tokens, before_norm=pooled)
    torch.testing.assert_close(readout(given), wanted)


def test_a_cnn_has_no_tokens_to_attend_to():
    with pytest.raises(UserError, match="looks at patch tokens, which resnet18 lacks"):
        attentive_probe.Method.check(attentive_probe.Config(), EncoderConfig(name="resnet18"), size=224, batch_size=4)
    with pytest.raises(UserError, match="looks at patch tokens, which resnet18 lacks"):
        READOUTS["attentive"](build("linear-probe", encoder="resnet18").classifier.encoder)


def test_one_image_has_no_batch_statistics():
    with pytest.raises(UserError, match="batch-norm"):
        linear_probe.Method.check(linear_probe.Config(), EncoderConfig(), size=224, batch_size=1)


def test_a_readout_of_class_tokens_is_refused_for_a_cnn():
    with pytest.raises(UserError, match="layer-norm is of a class token, which resnet18 lacks"):
        READOUTS["layer-norm"](build_encoder(EncoderConfig(name="resnet18", size=32)))
