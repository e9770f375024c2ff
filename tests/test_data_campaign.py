"""Packs of the size of MIMIC-CXR, and packing killed again and again. Long: `make campaign` runs them."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chexmsn.data.collection import Collection
from chexmsn.data.loader import keyed_order, loader
from chexmsn.data.pack import IMAGES, INDEX, INFO, LEFT_OUT, open_pack, verify
from chexmsn.data.prepare import prepare
from chexmsn.data.sources import csv
from chexmsn.data.splits import check_no_leak, grouped_split, share_of_patients
from large_pack import write_pack

pytestmark = pytest.mark.campaign

IMAGES_OF_MIMIC = 400_000


def processor_time(job: Callable[[], object]) -> float:
    started = time.process_time()
    job()
    return time.process_time() - started


def own_megabytes() -> int:
    """Memory of this process that is not a file's: pages of a pack belong to the system's cache."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))


def read_an_epoch(images: Collection) -> int:
    how = {"seed": 0, "epoch": 0, "shuffle": True, "drop_last": False, "workers": 0, "pin_memory": False}
    return sum(len(batch.rows) for batch in loader(images, np.arange(len(images)), None, batch_size=256, **how))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("large") / "pack", IMAGES_OF_MIMIC, 64)


def test_a_pack_of_400_000_images_opens_within_a_second(pack):
    open_pack(pack.folder)  # pyarrow is imported
    assert processor_time(lambda: open_pack(pack.folder)) < 1
    assert open_pack(pack.folder).index["content_hash"].is_unique
    verify(pack)


def test_it_is_shuffled_checked_and_split_within_seconds(pack):
    images = Collection([pack], ["train", "validate", "test"])
    patients = images.patients.tolist()
    jobs = {
        "collection": lambda: Collection([pack], ["train"]),
        "keys": lambda: images.keys,
        "order": lambda: keyed_order(images.keys, 0, 1),
        "share": lambda: share_of_patients(patients, 0.1, 0),
        "split": lambda: grouped_split(patients, {"train": 0.9, "test": 0.1}, 0),
        "leaks": lambda: check_no_leak(pack.index),
    }
    taken = {name: processor_time(job) for name, job in jobs.items()}
    assert max(taken.values()) < 3, taken


def test_an_epoch_holds_no_more_of_a_large_pack_than_of_a_small_one(pack, tmp_path):
    small = Collection([write_pack(tmp_path / "small", 4000, 64)], ["train"])
    large = Collection([pack], ["train"])
    grown = []
    for images in (small, large):
        _ = images.keys, images.index
        before = own_megabytes()
        assert read_an_epoch(images) == len(images)
        grown.append(own_megabytes() - before)
    assert grown[1] < grown[0] + 50, f"{grown} MB: the order of 400,000 rows is 3 MB"


KILLING = """
import os, random, signal, sys, time
from pathlib import Path
from chexmsn.data import _partial, prepare

prepare.CHUNK, prepare.COPIED = 4, 5
write, draw, kills = _partial._write, random.Random(0), 0


def slowly(file, content):
    write(file, content[: len(content) // 2])
    time.sleep(0.02)
    write(file, content[len(content) // 2 :])


def lines(journal):
    return journal.read_bytes().count(b"\\n") if journal.exists() else 0


def until_done(work, journal):
    # a child does it; once it has got on, it is killed at a random moment, and the next one goes on
    global kills
    done = 0
    while True:
        child = os.fork()  # imports take longer than the work
        if not child:
            work()
            os._exit(0)
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and lines(journal) <= done:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(draw.uniform(0, 0.15))
            ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        assert lines(journal) >= done, "what was done stays done"
        done = lines(journal)


_partial._write = slowly
if __name__ == "__main__":
    folder, whole, parts = map(Path, sys.argv[1:])
    how = {"size": 32, "workers": 1}
    until_done(prepare.Job("csv", folder, whole, size=32, workers=2).pack, Path(f"{whole}.partial") / "journal")
    for number in (1, 2, 3):
        shard = prepare.Shard(number, 3)
        make = lambda: prepare.Job("csv", folder, parts, **how).make_shard(shard)
        until_done(make, Path(f"{parts}.partial") / f"shard-{shard}" / "journal")
    until_done(lambda: prepare.Job("csv", folder, parts, **how).merge(3), Path(f"{parts}.partial") / "journal")
    print(kills)
"""


def test_killed_at_random_moments_whole_and_in_shards_it_becomes_the_same_pack(tmp_path):
    folder, script = tmp_path / "folder", tmp_path / "killing.py"
    csv.fake(folder, patients=40, size=64)
    (folder / "images" / "0005.png").write_bytes(b"")
    script.write_text(KILLING)
    expected = prepare("csv", folder, tmp_path / "expected", size=32, workers=1).folder
    words = [sys.executable, script, folder, tmp_path / "whole", tmp_path / "parts"]
    kills = int(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert kills >= 10
    for name in (IMAGES, INDEX, INFO, LEFT_OUT):
        content = (expected / name).read_bytes()
        assert (tmp_path / "whole" / name).read_bytes() == content, name
        assert (tmp_path / "parts" / name).read_bytes() == content, name
    assert not list(tmp_path.glob("*.partial"))
