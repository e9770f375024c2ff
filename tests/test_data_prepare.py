"""Packing: bad images are left out, and no interruption costs more than the chunks in flight."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json
from chexmsn.data import _partial
from chexmsn.data.doctor import examine
from chexmsn.data.pack import IMAGES, INDEX, INFO, LEFT_OUT
from chexmsn.data.prepare import Job, Shard, prepare
from chexmsn.data.sources import csv
from chexmsn.data.squares import Squares
from chexmsn.recipes.arguments import run_command

FILES = (IMAGES, INDEX, INFO, LEFT_OUT)


@pytest.fixture
def folder(tmp_path):
    csv.fake(tmp_path / "folder", patients=10, size=40)
    return tmp_path / "folder"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("chexmsn.data.prepare.CHUNK", 3)


def pack(folder, out, **how):
    return prepare("csv", folder, out, **({"size": 16, "workers": 1} | how))


def content(out):
    return {name: (out / name).read_bytes() for name in FILES}


def test_what_a_kill_left_behind_a_finished_pack_is_cleared_away(folder, tmp_path):
    """Killed between the last two steps: the pack has its name, the shards are still there."""
    pack(folder, tmp_path / "pack")
    shard = tmp_path / "pack.partial" / "shard-1-of-2"
    shard.mkdir(parents=True)
    (shard / "lock").touch()
    pack(folder, tmp_path / "pack")
    assert not (tmp_path / "pack.partial").exists()


def test_a_pack_with_another_split_is_not_taken_for_the_source_s_own(folder, tmp_path):
    pack(folder, tmp_path / "pack")
    run_command("split", ["shares", str(tmp_path / "pack"), "--shares", "{train: 1.0}", "--out", str(tmp_path / "new")])
    with pytest.raises(UserError, match=r"new is a pack that `chexmsn split` made .*: choose another folder"):
        pack(folder, tmp_path / "new")


def test_unreadable_images_are_listed_and_the_rest_goes_on(folder, tmp_path, caplog):
    whole = pack(folder, tmp_path / "whole")
    images = folder / "images"
    (images / "0000.jpg").write_bytes((images / "0000.jpg").read_bytes()[:300])
    (images / "0004.png").write_bytes(b"")
    (images / "0007.png").write_text("no image")
    (images / "0011.png").unlink()
    rest = pack(folder, tmp_path / "rest")
    left_out = pd.read_csv(tmp_path / "rest" / LEFT_OUT)
    assert left_out["image_key"].tolist() == [
        f"images/{name}" for name in ("0000.jpg", "0004.png", "0007.png", "0011.png")
    ]
    assert left_out["file"].tolist() == left_out["image_key"].tolist()
    assert left_out["reason"].tolist()[1:] == ["empty file", "neither JPEG, PNG nor DICOM", "No such file or directory"]
    assert rest.info["left_out"] == 4
    assert rest.info["images"] == len(rest.index) == len(rest.images) == 16
    kept = ~whole.index["image_key"].isin(left_out["image_key"])
    assert np.array_equal(rest.images, whole.images[kept.to_numpy()])
    assert rest.index["content_hash"].tolist() == whole.index.loc[kept, "content_hash"].tolist()
    assert "4 images cannot be read and are left out: see left_out.csv" in caplog.text


def test_16_bit_images_are_packed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(folder / "a.png")
    (folder / "labels.csv").write_text("image,patient_id\na.png,1\n")
    packed = pack(folder, tmp_path / "pack")
    assert packed.images.min() < 10
    assert packed.images.max() > 245


def deep_folder(tmp_path):
    """One 16-bit and one 8-bit PNG of the same ramp, the latter with an alpha channel."""
    folder = tmp_path / "folder"
    folder.mkdir()
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    Image.fromarray(ramp.astype(np.uint16) * 100).save(folder / "deep.png")
    Image.fromarray(ramp).convert("LA").save(folder / "flat.png")
    (folder / "labels.csv").write_text("image,patient_id\ndeep.png,1\nflat.png,2\n")
    return folder


def test_a_pack_of_16_bits_keeps_the_depth_and_scales_the_rest(tmp_path):
    folder = deep_folder(tmp_path)
    deep = pack(folder, tmp_path / "deep", dtype="uint16")
    flat = pack(folder, tmp_path / "flat")
    assert deep.images.dtype == np.uint16
    assert (deep.info["dtype"], flat.info["dtype"]) == ("uint16", "uint8")
    assert np.abs(deep.images / 257 - flat.images).max() <= 1.01, "the depth changes nothing else"
    assert (deep.images[1] % 257 == 0).all(), "8 bits times 257"
    assert (deep.images[0] % 257 != 0).any()
    assert deep.mean == pytest.approx(deep.images.mean() / 65535, abs=1e-9)
    assert deep.std == pytest.approx(deep.images.std() / 65535, abs=1e-9)
    with pytest.raises(UserError, match='dtype: "uint16" before, "uint8" now'):
        pack(folder, tmp_path / "deep")
    with pytest.raises(UserError, match="the dtype of a pack must be one of uint8, uint16, not 'float'"):
        pack(folder, tmp_path / "other", dtype="float")


def test_dropped_alpha_is_told_once(tmp_path, caplog):
    caplog.set_level("INFO")
    pack(deep_folder(tmp_path), tmp_path / "pack")
    assert "1 image has an alpha channel, which is dropped" in caplog.text


def test_a_link_out_of_the_folder_is_not_followed_unless_asked_for(folder, tmp_path):
    secret = shutil.move(folder / "images" / "0001.png", tmp_path / "secret.png")
    (folder / "images" / "0001.png").symlink_to(secret)
    (folder / "inside.png").write_bytes((folder / "images" / "0002.png").read_bytes())
    (folder / "images" / "0002.png").unlink()
    (folder / "images" / "0002.png").symlink_to("../inside.png")
    pack(folder, tmp_path / "pack")
    left_out = pd.read_csv(tmp_path / "pack" / LEFT_OUT)
    assert left_out["image_key"].tolist() == ["images/0001.png"]
    assert left_out["reason"].tolist() == ["a link that leads out of the folder (follow_links reads it)"]
    assert len(pack(folder, tmp_path / "all", follow_links=True)) == 20
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be one
    assert len(pack(tmp_path / "link", tmp_path / "linked")) == 19
    for out, links in (("pack", True), ("all", False)):  # the finished pack is another one
        with pytest.raises(UserError, match="follow_links"):
            pack(folder, tmp_path / out, follow_links=links)


def test_what_it_needs_is_told_before_it_starts(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    pack(folder, tmp_path / "pack", size=1024)
    told = next(message for message in caplog.messages if "GB" in message)
    assert told.startswith(f"20 images for {tmp_path / 'pack'}: 0.1 GB, of ")


def test_a_folder_without_one_readable_image(folder, tmp_path):
    for file in (folder / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 20 images in .* can be read; the first: images/.*: empty file"):
        pack(folder, tmp_path / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_finished_pack_is_opened_as_it_is(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    first = pack(folder, tmp_path / "pack")
    written = (tmp_path / "pack" / IMAGES).stat().st_mtime_ns
    shutil.rmtree(folder / "images")  # nothing is read again
    assert pack(folder, tmp_path / "pack").fingerprint == first.fingerprint
    assert (tmp_path / "pack" / IMAGES).stat().st_mtime_ns == written
    assert "is finished and has this configuration: nothing to do" in caplog.text


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"size": 32}, "size: 16 before, 32 now"),
        ({"fit": "pad"}, 'fit: "crop" before, "pad" now'),
        ({"options": {"key_prefix": "x/"}}, r'options.key_prefix: "" before, "x/" now'),
    ],
)
def test_another_configuration_is_refused_with_the_differences(folder, tmp_path, how, told):
    pack(folder, tmp_path / "pack")
    before = content(tmp_path / "pack")
    with pytest.raises(UserError, match=f"another configuration .*{told}"):
        pack(folder, tmp_path / "pack", **how)
    assert content(tmp_path / "pack") == before


def test_a_changed_table_is_another_configuration(folder, tmp_path):
    pack(folder, tmp_path / "pack")
    table = pd.read_csv(folder / "labels.csv")
    table.iloc[:-1].to_csv(folder / "labels.csv", index=False)
    with pytest.raises(UserError, match=r"table.images: 20 before, 19 now"):
        pack(folder, tmp_path / "pack")


def test_a_folder_that_is_no_pack_is_not_touched(folder, tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is no pack"):
        pack(folder, tmp_path / "pack")
    assert (tmp_path / "pack" / "thesis.txt").read_text() == "mine"


def test_the_current_folder_may_become_the_pack_if_it_is_empty(folder, tmp_path, monkeypatch):
    (tmp_path / "pack").mkdir()
    monkeypatch.chdir(tmp_path / "pack")
    pack(folder, Path())
    assert (tmp_path / "pack" / INFO).is_file()
    monkeypatch.chdir(tmp_path)
    for out in (".", "/"):
        with pytest.raises(UserError, match="is no pack"):
            pack(folder, Path(out))


@pytest.mark.parametrize(("how", "told"), [({"fit": "squeeze"}, "fit must be one of"), ({"size": 0}, "between 16 and")])
def test_impossible_squares(folder, tmp_path, how, told):
    with pytest.raises(UserError, match=told):
        pack(folder, tmp_path / "pack", **how)


def test_an_option_of_the_wrong_kind(folder, tmp_path):
    with pytest.raises(UserError, match=r"source csv: .*options\.table") as raised:
        pack(folder, tmp_path / "pack", options={"table": 3})
    assert "\n" not in str(raised.value)


def fill_the_disk_after(monkeypatch, writes):
    """The write that follows so many good ones gets half of its bytes out and then finds the disk full."""
    left, write = [writes], _partial._write

    def failing(file, content):
        if not left[0]:
            file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        write(file, content)

    monkeypatch.setattr(_partial, "_write", failing)


@pytest.mark.parametrize("writes", [0, 5, 6])
def test_a_full_disk_is_told_and_nothing_is_lost(folder, tmp_path, monkeypatch, writes):
    expected = content(pack(folder, tmp_path / "expected").folder)
    with monkeypatch.context() as patch:
        fill_the_disk_after(patch, writes)
        with pytest.raises(UserError, match=rf"is full: {writes // 2 * 3} of 20 images .*the same command continues"):
            pack(folder, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    assert content(pack(folder, tmp_path / "pack").folder) == expected


def test_room_is_checked_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"needs .* GB more, but its disk has 0.0 GB free"):
            pack(folder, tmp_path / "pack")
    assert pack(folder, tmp_path / "pack", size=32).size == 32, "nothing was begun, so a smaller size may be chosen"


def test_a_place_that_cannot_be_written(folder, tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*: Not a directory"):
        pack(folder, folder / "labels.csv" / "pack")


def test_an_unfinished_pack_of_another_configuration(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_the_disk_after(patch, 4)
        with pytest.raises(UserError, match="full"):
            pack(folder, tmp_path / "pack")
    with pytest.raises(UserError, match=r'begun with another configuration \(fit: "crop" before, "stretch" now\)'):
        pack(folder, tmp_path / "pack", fit="stretch")
    assert len(pack(folder, tmp_path / "pack")) == 20


def test_what_is_done_is_not_done_again(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_the_disk_after(patch, 8)
        with pytest.raises(UserError, match="12 of 20"):
            pack(folder, tmp_path / "pack")
    asked = []
    make = Squares.__call__
    monkeypatch.setattr(Squares, "__call__", lambda self, records: asked.extend(records) or make(self, records))
    pack(folder, tmp_path / "pack")
    assert [record["image_key"] for record in asked] == [
        f"images/{i:04d}.{'png' if i % 3 else 'jpg'}" for i in range(12, 20)
    ]


@pytest.mark.parametrize("shards", [1, 3, 25])
def test_merged_shards_are_byte_for_byte_the_pack_of_one_process(folder, tmp_path, shards):
    (folder / "images" / "0004.png").write_bytes(b"")
    expected = content(pack(folder, tmp_path / "expected").folder)
    job = Job("csv", folder, tmp_path / "pack", size=16, workers=1)
    for number in reversed(range(1, shards + 1)):
        job.make_shard(Shard(number, shards))
        job.make_shard(Shard(number, shards))  # is whole: nothing to do
    assert content(job.merge(shards).folder) == expected
    assert not (tmp_path / "pack.partial").exists()
    assert len(job.merge(shards)) == 19, "is finished: nothing to do"
    job.make_shard(Shard(1, shards))
    assert not (tmp_path / "pack.partial").exists()


def test_missing_and_unfinished_shards_are_named(folder, tmp_path, monkeypatch):
    job = Job("csv", folder, tmp_path / "pack", size=16, workers=1)
    with pytest.raises(UserError, match=r"these are not whole: 1/3 \(0 of 6\), 2/3 \(0 of 7\), 3/3 \(0 of 7\) images"):
        job.merge(3)
    job.make_shard(Shard(1, 3))
    with monkeypatch.context() as patch:
        fill_the_disk_after(patch, 2)
        with pytest.raises(UserError, match="3 of 7 images are done"):
            job.make_shard(Shard(3, 3))
    with pytest.raises(
        UserError, match=r"not whole: 2/3 \(0 of 7\), 3/3 \(3 of 7\) images; give the command with --shard"
    ):
        job.merge(3)
    assert not (tmp_path / "pack").exists()
    for number in (2, 3):
        job.make_shard(Shard(number, 3))
    with monkeypatch.context() as patch:
        patch.setattr("chexmsn.data.prepare.COPIED", 4)
        fill_the_disk_after(patch, 6)
        with pytest.raises(UserError, match="full"):
            job.merge(3)
    assert content(job.merge(3).folder) == content(pack(folder, tmp_path / "expected").folder)


def test_shards_of_another_configuration_are_not_merged(folder, tmp_path):
    for number in (1, 2):
        Job("csv", folder, tmp_path / "pack", size=16, fit=("crop", "pad")[number - 1], workers=1).make_shard(
            Shard(number, 2)
        )
    with pytest.raises(UserError, match=r'shard-2-of-2 was begun with another configuration .*fit: "pad" before'):
        Job("csv", folder, tmp_path / "pack", size=16, workers=1).merge(2)


def test_shards_as_jobs_and_no_jobs_where_there_is_no_slurm(folder, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}")
    expected = content(pack(folder, tmp_path / "expected").folder)
    words = ["csv", str(folder), str(tmp_path / "pack"), "--size", "16", "--workers", "1", "--slurm", "2"]
    with pytest.raises(UserError, match="with sbatch, and there is none on this machine: leave it out"):
        run_command("prepare", words)
    assert not list(tmp_path.glob("pack*"))
    (tmp_path / "bin" / "sbatch").touch(mode=0o755)  # and no srun: submitit then makes processes of this machine
    run_command("prepare", words)
    assert content(tmp_path / "pack") == expected
    assert not (tmp_path / "pack.jobs").exists(), "the pack is whole: nobody needs the logs"
    run_command("prepare", words)  # finished: nothing is submitted
    assert not (tmp_path / "pack.jobs").exists()
    (tmp_path / "pack.jobs").mkdir()  # as a command leaves it that was stopped while it waited for its jobs
    run_command("prepare", [*words[:-2], "--merge", "2"])
    assert not (tmp_path / "pack.jobs").exists()
    with pytest.raises(UserError, match="give one of --shard, --merge and --slurm"):
        run_command("prepare", [*words, "--merge", "2"])


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3"])
def test_shards_that_are_none(text):
    with pytest.raises(UserError, match="shard is"):
        Shard.parse(text)


SLOW = """
import logging, signal, sys, time
from pathlib import Path
from chexmsn.data import _partial, prepare

logging.basicConfig(level="INFO", format="%(message)s")
prepare.CHUNK = 3
write = _partial._write


def slowly(file, content):
    time.sleep(0.15)
    write(file, content)


_partial._write = slowly
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    prepare.prepare("csv", Path(sys.argv[1]), Path(sys.argv[2]), size=16, workers=2)
"""


def start(tmp_path, folder, out):
    """Pack slowly in another process, and wait until some of it is done."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen([sys.executable, script, folder, out], stderr=subprocess.PIPE, text=True)
    journal = out.with_name(f"{out.name}.partial") / "journal"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


def test_a_killed_run_continues_to_the_same_pack_and_leaves_no_process(folder, tmp_path):
    expected = content(pack(folder, tmp_path / "expected").folder)
    process = start(tmp_path, folder, tmp_path / "pack")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # returns once the last worker has closed the error stream it inherited
    assert not (tmp_path / "pack").exists()
    assert read_json(tmp_path / "pack.partial" / "request.json")["size"] == 16
    assert content(pack(folder, tmp_path / "pack").folder) == expected
    assert not (tmp_path / "pack.partial").exists()


def test_ctrl_c_keeps_what_was_done_and_says_so(folder, tmp_path):
    expected = content(pack(folder, tmp_path / "expected").folder)
    process = start(tmp_path, folder, tmp_path / "pack")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "of 20 images are done and kept in" in told
    assert "the same command continues" in told
    assert content(pack(folder, tmp_path / "pack").folder) == expected


def test_a_second_process_waits_for_the_first(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    process = start(tmp_path, folder, tmp_path / "pack")
    packed = pack(folder, tmp_path / "pack")
    assert "another process is making" in caplog.text
    assert len(packed) == 20
    assert process.wait(timeout=60) == 0
    process.stderr.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from chexmsn.data import prepare, squares

prepare.CHUNK = 3
call = squares.Squares.__call__


def dies(self, records):
    if records[0]["image_key"].startswith("images/0009"):
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory is short
    return call(self, records)


squares.Squares.__call__ = dies
if __name__ == "__main__":
    from chexmsn.core.errors import UserError
    try:
        prepare.prepare("csv", Path(sys.argv[1]), Path(sys.argv[2]), size=16, workers=2)
    except UserError as error:
        print(error)
"""


def test_the_death_of_a_worker_is_told_with_the_remedy_and_loses_nothing(folder, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    words = [sys.executable, tmp_path / "killed.py", folder, tmp_path / "pack"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=120).stdout
    assert "a worker process was killed, perhaps for want of memory: what was done is kept" in told
    assert "give the same command with fewer than 2 workers" in told
    assert content(pack(folder, tmp_path / "pack").folder) == content(pack(folder, tmp_path / "expected").folder)


def test_a_part_is_the_one_that_the_doctor_chooses_and_shares_are_nested(tmp_path):
    folder = tmp_path / "folder"
    run_command("fake", ["csv", str(folder), "--patients", "20", "--size", "24"])
    options = {"shares": {"train": 0.6, "validate": 0.2, "test": 0.2}}
    whole = pack(folder, tmp_path / "whole", options=options, seed=3)
    assert "part" not in whole.info
    few, many = (pack(folder, tmp_path / f"{s}", options=options, share=s, seed=3) for s in (0.25, 0.5))
    assert set(few.index["patient_id"]) < set(many.index["patient_id"]) < set(whole.index["patient_id"])
    assert [p.info["splits"]["train"] for p in (few, many, whole)] == [6, 12, 24]
    assert few.info["splits"]["test"] == whole.info["splits"]["test"] == 8
    assert few.info["part"] == {"share": 0.25, "seed": 3}
    counted = examine("csv", folder, options=options, share=0.25, seed=3).images
    assert {split: number["listed"] for split, number in counted.items()} == few.info["splits"]
    words = ["csv", str(folder), str(tmp_path / "0.25"), "--size", "16", "--workers", "1"]
    words += ["--options.shares", str(options["shares"])]
    run_command("prepare", [*words, "--share", "0.25", "--seed", "3"])  # is finished
    with pytest.raises(UserError, match=r"of another configuration \(part.share: 0.25 before, 0.5 now; table.hash"):
        run_command("prepare", [*words, "--share", "0.5", "--seed", "3"])
    with pytest.raises(UserError, match=r"part.seed: 3 before, absent now; .*table.images: 22 before, 40 now"):
        run_command("prepare", words)


def test_one_split_alone(folder, tmp_path):
    options = {"split": "fold", "splits": {"train": [0, 1, 2], "validate": [3], "test": [4]}}
    some = pack(folder, tmp_path / "some", options=options, splits=["test", "validate"])
    assert some.info["splits"] == {"validate": 4, "test": 4}
    assert some.info["part"] == {"splits": ["validate", "test"]}
    pack(folder, tmp_path / "some", options=options, splits=["validate", "test"])  # is finished
    with pytest.raises(UserError, match="a split is one of train, validate, test, not 'valid'"):
        pack(folder, tmp_path / "some", options=options, splits=["valid"])
    with pytest.raises(UserError, match="no image lies in the split 'test', only in train"):
        pack(folder, tmp_path / "some", splits=["test"])


@pytest.fixture
def stopped(folder, tmp_path, monkeypatch) -> Path:
    """The work folder of a pack that a full disk stopped after a few lines of its journal."""
    with monkeypatch.context() as patch:
        fill_the_disk_after(patch, 8)
        with pytest.raises(UserError, match="full"):
            pack(folder, tmp_path / "pack")
    assert len((tmp_path / "pack.partial" / "journal").read_bytes().splitlines()) > 2
    return tmp_path / "pack.partial"


@pytest.mark.parametrize("damage", [b"no JSON\n", b"\xff\xfe\0\n", b"3\n", b"[3]\n"])
def test_a_damaged_line_of_the_journal_costs_what_follows_it_and_nothing_else(folder, stopped, damage, caplog):
    journal = stopped / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], damage, *lines[2:]]))
    again, expected = (content(pack(folder, stopped.parent / name).folder) for name in ("pack", "expected"))
    assert again == expected
    assert "line 2 is damaged, the images from there on are made anew" in caplog.text


@pytest.mark.parametrize(("lost", "line"), [(1, 4), (900, 3), (None, 1)])
def test_lost_pixels_are_made_anew_and_not_filled_with_zeros(folder, stopped, lost, line, caplog):
    images = stopped / "pack" / IMAGES
    if lost is None:
        shutil.rmtree(images.parent)
    else:
        kept = sum(len(json.loads(notes)) for notes in (stopped / "journal").read_bytes().splitlines())
        os.truncate(images, 128 + kept * 16**2 - lost)
    again, expected = (content(pack(folder, stopped.parent / name).folder) for name in ("pack", "expected"))
    assert again == expected
    assert f"line {line} has lost its pixels, the images from there on are made anew" in caplog.text
