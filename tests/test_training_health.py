"""A run that is well stays silent, one that is not says so once; and watching changes nothing."""

import importlib.util
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.cli.main import main
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names
from chexmsn.data.collection import Collection
from chexmsn.data.pack import open_pack
from chexmsn.models.encoder import EncoderConfig, build_encoder
from chexmsn.training.config import HealthConfig, PretrainConfig, ProbeConfig
from chexmsn.training.health import FeatureBank
from chexmsn.training.meter import LAG, Means, Meter
from chexmsn.training.probe import epochs_between, features, labelled
from chexmsn.training.run import _probe, pretrain
from chexmsn.training.run_folder import RunFolder
from chexmsn.training.symptoms import RULES, Course, not_finite

ENCODER = EncoderConfig(name="vit_micro", patch=16, size=48)
MSN = {"prototypes": 8, "head_hidden": 16, "head_out": 8, "focal_views": 1, "focal_size": 32}
SMALL = {  # for speed alone
    "msn": MSN,
    "pmsn": MSN,
    "dino": {"outputs": 64, "head_hidden": 32, "head_bottleneck": 16},
    "lejepa": {"head_hidden": 32, "head_out": 16, "slices": 64},
}
PRETRAINING = [name for name in names("chexmsn.methods") if load("chexmsn.methods", name).Method.kind == "pretraining"]
NOTICED = HealthConfig(every=2, images=32)
CLOCK = "train/images_per_second"

WELL = {  # a reading of MSN that is well: nih14 and kermany, step 200
    "train/loss": 4.11,
    "train/gradient_norm": 0.17,
    "train/agreement": 0.52,
    "train/prototypes_used": 28.0,
    "train/prototype_entropy": 4.158,
    "health/effective_rank": 4.5,
}
SYMPTOMS = {  # what each rule is to find
    "one-prototype": {"train/prototypes_used": 1.0, "train/prototype_entropy": 0.08},
    "low-rank": {"health/effective_rank": 1.2},
    "all-alike": {"train/agreement": 0.9999},
    "gradient": {"train/gradient_norm": 40.0},
    "no-progress": {"train/loss": 4.22},
}


def pretraining(pack: Path, out: Path, method: str = "msn", **changes) -> PretrainConfig:
    options = load("chexmsn.methods", method).Config(**SMALL.get(method, {}))
    settings = {"epochs": 2, "batch_size": 16, "device": "cpu", "health": NOTICED, "probe": None} | changes
    return PretrainConfig(data=(pack,), out=out, method=method, options=options, encoder=ENCODER, **settings)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def course_of(readings, of=4000, every=50):
    """The course of these readings, and the names of the symptoms after each."""
    course, found = Course(), []
    for number, reading in enumerate(readings, start=1):
        course = course.after(reading, step=number * every, of=of)
        found.append({symptom.name for symptom in course.symptoms()})
    return course, found


# the rules


def test_a_run_that_is_well_has_no_symptom():
    falling = [WELL | {"train/loss": 4.22 - 0.002 * step} for step in range(80)]
    assert not any(course_of(falling)[1])


@pytest.mark.parametrize("name", sorted(SYMPTOMS))
def test_each_symptom_is_found_after_several_readings_and_told_in_one_sentence(name):
    (rule,) = (rule for rule in RULES if rule.name == name)
    course, found = course_of([*[WELL | {"train/loss": 4.22}] * 20, *[WELL | SYMPTOMS[name]] * 30], of=4000)
    onset = 20 if name != "no-progress" else 39  # 2,000 steps are long
    first = next((number for number, names in enumerate(found) if names), None)
    assert first == onset + rule.readings - 1
    assert found[first] == {name}
    said = rule.says(course)
    assert said.startswith("training ") and "; likely causes: " in said and "\n" not in said


def test_a_bad_moment_is_no_symptom():
    course, found = course_of([WELL, WELL | SYMPTOMS["low-rank"] | SYMPTOMS["one-prototype"], WELL] * 10)
    assert not any(found)
    assert course.held == {}


@pytest.mark.parametrize("missing", sorted(WELL))
def test_a_method_without_a_number_is_not_judged_by_it(missing):
    readings = [{name: value for name, value in WELL.items() if name != missing or name == "train/loss"}] * 10
    assert not any(course_of(readings)[1])


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 10.0, math.inf, math.nan]), min_size=1, max_size=30))
def test_a_course_survives_its_checkpoint_and_any_number(norms):
    readings = [WELL | {"train/gradient_norm": norm} for norm in norms]
    whole, _ = course_of(readings)
    again = Course(**json.loads(json.dumps(whole.state())))
    after = [c.after(WELL, step=9999, of=10000).symptoms() for c in (whole, again)]
    assert after[0] == after[1]


def test_an_overflow_now_and_then_in_half_precision_is_no_divergence():
    overflow = WELL | {"train/gradient_norm": math.inf}
    assert not any(course_of([WELL, WELL, overflow, WELL, WELL, overflow, WELL, overflow])[1])


@pytest.mark.parametrize("norm", [0.0, math.inf, math.nan])
def test_a_first_gradient_that_is_no_measure_does_not_silence_the_rule(norm):
    first = WELL | {"train/gradient_norm": norm}
    course, found = course_of([first, *[WELL] * 5, *[WELL | SYMPTOMS["gradient"]] * 2])
    assert not any(found[:-1]) and found[-1] == {"gradient"}
    assert course.usual_gradient > 0


# what the rules are fed with


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(2, 7))
def test_the_bank_holds_the_last_images(batches, size):
    bank = FeatureBank(size)
    seen = torch.arange(1, 1 + sum(batches), dtype=torch.float32)[:, None]
    for batch in seen.split(batches):
        bank.add(batch)
    assert bank.full == (len(seen) >= size)
    held = sorted(bank.rows.flatten().tolist())
    assert held == sorted([0.0] * max(0, size - len(seen)) + seen[-size:].flatten().tolist())
    other = FeatureBank(size)
    other.restore(bank.state())
    assert torch.equal(other.rows, bank.rows) and other.seen == bank.seen
    smaller = FeatureBank(size - 1)
    smaller.restore(bank.state())
    assert smaller.rows is None


def test_a_bank_half_full_tells_nothing():
    bank = FeatureBank(8)
    bank.add(torch.eye(4))
    assert bank.measured() == {}
    bank.add(torch.eye(4))
    assert bank.measured()["health/effective_rank"] == pytest.approx(4)


def test_means_count_what_is_there():
    means = Means()
    for value in (1.0, 2.0, 6.0):
        means.add({"a": value} | ({"b": value} if value > 1 else {}))
    assert Means(means.totals).take() == {"a": 3.0, "b": 4.0}


def test_no_step_waits_for_its_own_numbers(small_pack, tmp_path, monkeypatch):
    arrived, steps = [], []

    def note(self, trainer, loop, *arguments):
        real(self, trainer, loop, *arguments)
        steps.append((trainer.global_step, len(arrived)))

    real = Meter.on_train_batch_end
    monkeypatch.setattr(Meter, "on_train_batch_end", note)
    monkeypatch.setattr(Means, "add", lambda self, numbers: arrived.append(numbers))
    monkeypatch.setattr(Means, "take", lambda self: {})
    pretrain(pretraining(small_pack, tmp_path / "run", "mae", epochs=1, health=None))
    assert len(steps) >= LAG
    assert all(count == max(0, step - LAG) for step, count in steps)
    assert len(arrived) == len(steps)


# a run that is watched


@pytest.fixture(scope="module")
def watched(small_pack, tmp_path_factory) -> Path:
    config = pretraining(small_pack, tmp_path_factory.mktemp("runs") / "watched", epochs=3)
    return pretrain(replace(config, probe=ProbeConfig(images=60, every=2)))


def test_the_history_has_every_number(watched):
    history = pd.read_csv(watched / "history.csv")
    terms = ("loss", "cross_entropy", "me_max", "gradient_norm", "prototypes_used", "prototype_entropy", "agreement")
    assert {f"train/{term}" for term in terms} | {CLOCK, "schedule/lr", "train/prototype_agreement"} <= set(history)
    assert history["health/effective_rank"].iloc[-1] > 1
    assert history["probe/knn_macro_auroc"].notna().tolist() == [False, True, False]
    assert history["probe/knn_macro_auroc"].dropna().between(0, 1).all()
    assert (history[CLOCK] > 0).all()
    logged = pd.read_csv(next((watched / "logs").rglob("metrics.csv")))
    assert logged["health/effective_rank_step"].notna().any() and logged["train/loss_step"].notna().any()


@pytest.mark.parametrize("method", PRETRAINING)
def test_a_short_run_of_any_method_is_silent(method, small_pack, tmp_path):
    run = pretrain(pretraining(small_pack, tmp_path / "run", method, seed=1))
    assert "symptoms" not in RunFolder(run).record
    assert pd.read_csv(run / "history.csv")["health/effective_rank"].iloc[-1] > 1


def test_watching_changes_no_weight_and_no_number(watched, small_pack, tmp_path):
    alone = pretrain(pretraining(small_pack, tmp_path / "alone", epochs=3, health=None))
    assert same(weights(watched), weights(alone))
    histories = [pd.read_csv(run / "history.csv") for run in (watched, alone)]
    shared = [name for name in histories[1] if name != CLOCK]
    assert not any(name.startswith(("health/", "probe/")) for name in shared)
    pd.testing.assert_frame_equal(histories[0][shared], histories[1][shared])


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_stopped_run_goes_on_with_all_it_knew(minutes, watched, small_pack, tmp_path, monkeypatch):
    from chexmsn.methods.msn import Method

    step, calls = Method.step, []

    def stops(self, *arguments):
        calls.append(self.training)
        if sum(calls) == 6:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Method, "step", stops)
    settings = {"epochs": 3, "probe": ProbeConfig(images=60, every=2), "checkpoint_minutes": minutes}
    config = pretraining(small_pack, tmp_path / "run", **settings)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config)
    monkeypatch.setattr(Method, "step", step)
    resumed = pretrain(config)
    assert same(weights(watched), weights(resumed))
    whole, again = (pd.read_csv(run / "history.csv").drop(columns=CLOCK) for run in (watched, resumed))
    pd.testing.assert_frame_equal(whole, again)
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"] for run in (watched, resumed)
    ]
    health = [next(state for name, state in found.items() if name.startswith("Health")) for found in states]
    assert health[0]["course"] == health[1]["course"] and health[0]["window"] == health[1]["window"]
    assert torch.equal(health[0]["bank"]["rows"], health[1]["bank"]["rows"])


def breaking(monkeypatch, at: int):
    """From this training step on, the loss of MSN is not a number."""
    from chexmsn.methods.msn import Method

    step, calls = Method.step, []

    def broken(self, *arguments):
        calls.append(self.training)
        result = step(self, *arguments)
        return result._replace(loss=result.loss * math.nan) if sum(calls) >= at else result

    monkeypatch.setattr(Method, "step", broken)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(
    small_pack, tmp_path, monkeypatch, caplog
):
    breaking(monkeypatch, at=6)
    config = pretraining(small_pack, tmp_path / "run", epochs=4, health=replace(NOTICED, on_collapse="stop"))
    with pytest.raises(UserError, match=r"diverges: the loss is not finite at step 6; likely causes.*stopped"):
        pretrain(config)
    assert "not finite" not in caplog.text, "the error says it"
    kept = weights(config.out)
    assert all(weight.isfinite().all() for weight in kept.values())
    record = RunFolder(config.out).record
    assert record["status"] != "finished" and record["symptoms"][0]["symptom"] == "not-finite"


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_warning_is_told_once_and_weights_that_are_no_numbers_are_never_saved(
    minutes, small_pack, tmp_path, monkeypatch, caplog
):
    breaking(monkeypatch, at=6)
    config = pretraining(small_pack, tmp_path / "run", epochs=4, checkpoint_minutes=minutes)
    with pytest.raises(UserError, match="weights are no longer numbers"):  # there is nothing to go on with
        pretrain(config)
    assert caplog.text.count("the loss is not finite at step 6") == 1
    assert all(weight.isfinite().all() for weight in weights(config.out).values())


def test_the_command_line_leaves_with_an_error(small_pack, tmp_path, monkeypatch, capsys):
    breaking(monkeypatch, at=3)
    words = (
        f"pretrain --data {small_pack} --out {tmp_path / 'run'} --epochs 1 --batch_size 16 --device cpu --probe null "
        "--encoder.name vit_micro --encoder.size 48 --options.prototypes 8 --options.focal_views 1 "
        "--health.on_collapse stop"
    )
    assert main(words.split()) == 2
    assert "not finite at step 3" in capsys.readouterr().err.splitlines()[-1]


def test_the_symptom_without_a_reading_is_a_sentence_too():
    assert not_finite(7).sentence.startswith("training diverges") and "likely causes" in not_finite(7).sentence


@pytest.mark.parametrize("options", [{"every": 0}, {"images": 1}])
def test_a_watch_that_cannot_be_kept_is_refused(options):
    with pytest.raises(UserError, match="health must be at least"):
        HealthConfig(**options)


# made to collapse


def test_msn_made_to_collapse_says_so_and_msn_that_is_well_does_not(small_pack, tmp_path):
    file = Path(__file__).parents[1] / "benchmarks" / "collapse.py"
    spec = importlib.util.spec_from_file_location("collapse", file)
    collapse = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(collapse)
    told, quick = {}, {"prototypes": 16, "focal_views": 1, "lr": 0.003, "ema_start": 0.9}
    for name, options in collapse.RUNS.items():
        how = {"epochs": 4, "size": 32, "batch_size": 8, "every": 4}
        run = collapse.trained((small_pack,), tmp_path / name, options | quick, **how)
        assert collapse.curve(run)["prototypes used"].notna().any()
        told[name] = [symptom["symptom"] for symptom in RunFolder(run).record.get("symptoms", [])]
    assert told == {"well": [], "made to collapse": ["one-prototype"]}


# the online probe


@pytest.fixture(scope="module")
def images(small_pack) -> Collection:
    return Collection([open_pack(small_pack)], ("train", "validate", "test"))


def test_the_probe_shares_no_patient_between_its_sides_and_never_sees_the_test_split(images):
    chosen = labelled(images, ProbeConfig(images=70), seed=0)
    bank, queries = (images.index.iloc[rows] for rows in (chosen.bank, chosen.queries))
    assert not set(bank["patient_id"]) & set(queries["patient_id"])
    assert "test" not in set(bank["split"]) | set(queries["split"])
    assert 0 < len(bank) + len(queries) <= 90
    for labels in (chosen.bank_labels, chosen.query_labels):
        counts = [Counter(column[~np.isnan(column)].tolist()) for column in labels.T]
        assert all(min(count[0.0], count[1.0]) >= 5 for count in counts)
    again = labelled(images, ProbeConfig(images=70), seed=0)
    assert np.array_equal(again.bank, chosen.bank) and np.array_equal(again.queries, chosen.queries)


def test_findings_that_cannot_be_scored_are_told(images):
    with pytest.raises(UserError, match=r"too few for Fracture.*probe\.images"):
        labelled(images, ProbeConfig(images=12, findings=("fracture",)), seed=0)
    assert labelled(images, ProbeConfig(images=8), seed=0) is None


def test_the_probe_looks_as_evaluation_does_and_leaves_the_encoder_as_it_was(images):
    encoder = build_encoder(replace(ENCODER, drop_path=0.5)).train()
    encoder.norm_was = next(encoder.children()).eval()  # a part that is frozen stays so
    before = {name: module.training for name, module in encoder.named_modules()}
    rows = np.arange(70)
    state = torch.get_rng_state()
    first, second = (features(encoder, images, rows, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (70, encoder.width)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in encoder.named_modules()} == before


def test_on_several_devices_the_probe_costs_the_same_share(small_pack, images, tmp_path):
    config = pretraining(small_pack, tmp_path / "run", epochs=400, probe=ProbeConfig(images=60))
    every = [_probe(replace(config, devices=devices), images)[0].every for devices in (1, 2)]
    probed = sum(map(len, (labelled(images, config.probe, 0).bank, labelled(images, config.probe, 0).queries)))
    assert every == [math.ceil(40 * probed / (len(images) // devices)) for devices in (1, 2)]


def test_the_probe_is_as_rare_as_it_has_to_be_to_be_cheap():
    assert epochs_between(ProbeConfig(), 512, 40 * 512) == 1
    assert epochs_between(ProbeConfig(), 512, 40 * 512 - 1) == 2
    assert epochs_between(ProbeConfig(every=3), 512, 10) == 3
