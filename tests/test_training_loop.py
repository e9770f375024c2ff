"""The loop: what it asks of a method, when, and with which values. Its numbers are in `test_methods_golden`."""

import logging
from itertools import pairwise

import pytest
from lightning.pytorch.callbacks import Callback

from chexmsn.training import loop as loops
from chexmsn.training.engine import lightning_told_once
from steps import run_through, some_batch
from test_methods import build

EPOCHS, STEPS = 2, 3


class Heard(Callback):
    """What happens in a run, in order: names, with the schedule values that were given."""

    def __init__(self, method, monkeypatch):
        self.events = []
        for name in ("before_step", "after_step"):
            self._listen(method, name, monkeypatch, of_values=lambda schedule: dict(schedule))
        for name in ("clip_gradients", "apply_schedule"):
            self._listen(loops, name, monkeypatch, of_values=lambda _, schedule=None: schedule)
        step = method.step
        monkeypatch.setattr(method, "step", lambda *a: (self.events.append(("loss", dict(a[3]))), step(*a))[1])

    def _listen(self, where, name, monkeypatch, of_values):
        original = getattr(where, name)

        def heard(*arguments):
            self.events.append((name, of_values(*arguments)))
            return original(*arguments)

        monkeypatch.setattr(where, name, heard)

    def on_after_backward(self, trainer, loop):
        self.events.append(("backward", None))

    def on_train_start(self, trainer, loop):
        (optimiser,) = trainer.optimizers
        optimiser.register_step_post_hook(lambda *_: self.events.append(("step", None)))


@pytest.mark.parametrize("name", ["dino", "msn"])
def test_a_step_asks_everything_once_in_order_with_the_values_of_its_step(name, monkeypatch):
    method = build(name)
    heard = Heard(method, monkeypatch)
    run_through(method, [some_batch(4)] * STEPS, EPOCHS, [heard])
    wanted = []
    for step in range(EPOCHS * STEPS):
        values = {name: s.at(step, EPOCHS * STEPS, STEPS) for name, s in method.schedules().items()}
        wanted += [
            ("apply_schedule", values),
            ("loss", values),
            ("backward", None),
            ("clip_gradients", None),
            ("before_step", values),
            ("step", None),
            ("after_step", values),
        ]
    assert heard.events == wanted


def test_a_method_describes_its_optimiser_once(monkeypatch):
    method, described = build("msn"), []
    optimiser = method.optimiser
    monkeypatch.setattr(method, "optimiser", lambda: (described.append(True), optimiser())[1])
    run_through(method, [some_batch(4)] * STEPS, 1, [])
    assert len(described) == 1


def test_lightning_is_quiet_for_as_long_as_a_run():
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    with lightning_told_once():
        assert [logger.level for logger in loggers] == [logging.WARNING] * 2
    assert [logger.level for logger in loggers] == before != [logging.WARNING] * 2


def test_a_run_freezes_what_its_method_freezes():
    method = build("dino", freeze_last_layer=1.0, lr=0.01)
    last = method.student.head.last_layer.weight
    seen = [last.clone()]

    class Look(Callback):
        def on_train_batch_end(self, *_):
            seen.append(method.student.head.last_layer.weight.clone())

    run_through(method, [some_batch(4)] * STEPS, EPOCHS, [Look()])
    moved = [not before.equal(after) for before, after in pairwise(seen)]
    assert moved == [False] * STEPS + [True] * STEPS
