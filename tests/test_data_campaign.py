"""Packs of the size of MIMIC-CXR, and packing killed again and again. Long: `make campaign` runs them."""

import random
import signal
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
from chexmsn.data.prepare import Job, Shard, prepare
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


PACKING = """
import sys, time
from pathlib import Path
from chexmsn.data import _partial, prepare

prepare.CHUNK, prepare.COPIED = 4, 5
write = _partial._write


def slowly(file, content):
    write(file, content[:len(content) // 2])
    time.sleep(0.05)
    write(file, content[len(content) // 2:])


_partial._write = slowly
if __name__ == "__main__":
    folder, out, part = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    job = prepare.Job("csv", folder, out, size=32, workers=2)
    if part == "whole":
        job.pack()
    elif part == "merge":
        job.merge(3)
    else:
        job.make_shard(prepare.Shard.parse(part))
"""


def until_done(words: list[object], draw: random.Random, journal: Path) -> int:
    """Give the same command until it ends, and kill it at a random moment each time; how often it was killed."""
    kills, done = 0, 0
    while True:
        process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
        begun, patience = time.monotonic(), draw.uniform(0.0, 0.25)
        while process.poll() is None and not _goes_on(journal, done) and time.monotonic() - begun < 60:
            time.sleep(0.005)
        try:
            assert process.wait(timeout=patience) == 0
            return kills
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        now = journal.read_bytes().count(b"\n") if journal.exists() else 0
        assert now >= done, "what was done stays done"
        done = now


def _goes_on(journal: Path, done: int) -> bool:
    return journal.exists() and journal.read_bytes().count(b"\n") > done


def test_killed_at_random_moments_whole_and_in_shards_it_becomes_the_same_pack(tmp_path):
    folder, script, draw = tmp_path / "folder", tmp_path / "packing.py", random.Random(0)
    csv.fake(folder, patients=24, size=64)
    (folder / "images" / "0005.png").write_bytes(b"")
    script.write_text(PACKING)
    expected = prepare("csv", folder, tmp_path / "expected", size=32, workers=1).folder
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    kills = until_done([script, folder, whole, "whole"], draw, whole.with_name("whole.partial") / "journal")
    for number in (1, 2, 3):
        journal = parts.with_name("parts.partial") / f"shard-{number}-of-3" / "journal"
        kills += until_done([script, folder, parts, f"{number}/3"], draw, journal)
    kills += until_done([script, folder, parts, "merge"], draw, parts.with_name("parts.partial") / "journal")
    print(f"{kills} kills")
    assert kills >= 8
    for name in (IMAGES, INDEX, INFO, LEFT_OUT):
        content = (expected / name).read_bytes()
        assert (whole / name).read_bytes() == content, name
        assert (parts / name).read_bytes() == content, name
    assert not list(tmp_path.glob("*.partial"))
    assert Job("csv", folder, parts, size=32).make_shard(Shard(1, 3)) is None
