"""The command line as a user meets it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from chexmsn.cli.main import guarded, main
from chexmsn.core.errors import UserError
from chexmsn.core.lookup import names

COMMANDS = names("chexmsn.recipes.commands")


def test_the_help_tells_the_whole_story_without_loading_torch():
    code = "import sys; from chexmsn.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\S", said, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command, capsys):
    for asks in ("--help", "-h"):
        assert main([command, asks]) == 0
        said = capsys.readouterr().out
        assert f"    chexmsn {command} " in said
        assert "usage:" in said


def test_the_help_of_split_shows_each_kind_and_its_options(capsys):
    assert main(["split", "--help"]) == 0
    said = capsys.readouterr().out
    for kind, option in (("folds", "--count"), ("shares", "--shares"), ("list", "--list"), ("medfuse", "--test_list")):
        [part] = re.findall(rf"^chexmsn split {kind}\n(.*?)(?=^chexmsn split|\Z)", said, re.DOTALL | re.MULTILINE)
        assert option in part
    assert main(["split", "list", "--help"]) == 0
    assert "--count COUNT" not in capsys.readouterr().out


def test_options_may_stand_before_the_source():
    from chexmsn.recipes.arguments import parse

    config = parse("prepare", ["--workers", "2", "csv", "a", "b", "--options.table", "t.csv"])
    assert (config.workers, config.source, config.options.table) == (2, "csv", "t.csv")


def test_every_option_is_explained(capsys):
    for words in (["pretrain"], ["pretrain", "--method", "mae"], ["train"], ["stress"], ["prepare", "csv"]):
        main([*words, "--help"])
        said = capsys.readouterr().out.split("options:", 1)[1]
        entries = re.split(r"\n  (?=-|\w)", said)
        bare = [entry.split()[0] for entry in entries if re.search(r"--[\w.]+ \S+\s+\(type", entry)]
        assert not bare, f"{' '.join(words)}: options without a word of help: {bare}"


def test_bad_words_get_one_line_and_exit_code_2(capsys):
    for words, said in [
        (["fly"], "there is no command called 'fly'"),
        (["pretrain", "--method", "msm"], "did you mean msn?"),
        (["pretrain", "--method", "fine-tune"], "fine-tune is a method of chexmsn train"),
        (["train", "--method", "msn"], "msn is a method of chexmsn pretrain"),
        (["pretrain", "--out", "x"], "data"),
        (["pretrain", "--data", "x", "--out", "x", "--epochs", "many"], "epochs"),
        (["pretrain", "--data", "x", "--out", "x", "--epochs", "2.5"], "epochs takes a whole number, not 2.5"),
        (["pretrain", "--data", "x", "--out", "x", "--patience", "long"], "patience takes a whole number, not long"),
        (["pretrain", "--data", "x", "--out", "x", "--options.ema", "x"], "'scheduled', 'constant', not x"),
        (["pretrain", "--data", "x", "--out", "x", "--options.jitter", "no"], "options.jitter takes options by name"),
        (["pretrain", "--data", "x", "--out", "x", "--options.jitter.hue", "1"], "options.jitter has no option hue"),
        (["pretrain", "--data", "x", "--out", "x", "--options.random_scale", "[1]"], "takes 2 values, not [1]"),
        (["train", "--data", "x", "--out", "x", "--options.corruption.names", "fog"], "a list in brackets, not fog"),
        (["prepare", "csv", "x", "x", "--options.splits", "3"], "options.splits takes values by name, not 3"),
        (["pretrain", "--data", "x", "--out", "x", "--epochs", "0"], "epochs must be at least 1"),
        (["pretrain", "--data", "x", "--out", "x", "--unheard-of", "1"], "unheard-of"),
        (["pretrain", "--data", "nowhere", "--out", "x", "--device", "cpu"], "nowhere"),
        (["pretrain", "--data", "x", "--out", "x", "--options.mask_ratio", "1.2"], "mask_ratio must lie in [0, 1)"),
        (["pretrain", "--data", "x", "--out", "x", "--encoder.name", "vit_huge"], "vit_huge"),
        (["pretrain", "--data", "x", "--out", "x", "--device", "cpu", "--precision", "16"], "-p 32"),
        (["pretrain", "--data", "x", "--out", "x", "--device", "gpu"], "--device cpu"),
        (["train", "--data", "x", "--out", "x", "--options.corruption.names", "[fog]"], "no corruption called 'fog'"),
        (["prepare", "csv", "x", "x", "--table", "t.csv"], "did you mean --options.table?"),
        (["prepare", "csv", "x", "x", "--options", "{tabel: t.csv}"], "csv has no option tabel: did you mean table?"),
        (["prepare"], "needs a source"),
        (["fake", "csv", "x", "--patients", "0"], "patients must be at least 1, not 0"),
        (["fake", "csv", "x", "--size", "8"], "size must be at least 16, not 8"),
        (["predict", "x", "x", "--out", "x", "--workers", "-1"], "workers must be at least 0"),
        (["prepare", "nih15", "a", "b"], "there is no source called 'nih15'"),
        (["prepare", "phantom", "nowhere", "out"], "nowhere"),
        (["report", "nowhere", "--out", "x"], "nowhere"),
        (["stress", "nowhere", "nowhere", "--out", "x"], "nowhere"),
        (["predict", "nowhere", "nowhere", "--out", "x"], "nowhere"),
        (["run", "nowhere.yaml", "--out", "x"], "nowhere.yaml"),
    ]:  # fmt: skip
        assert main(words) == 2, words
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, (words, lines)
        assert said in lines[0], (words, lines[0])


def test_a_stop_is_told_and_has_its_own_exit_code(capsys):
    def stopped() -> None:
        raise KeyboardInterrupt

    assert guarded(stopped) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_a_defect_is_not_taken_for_bad_input():
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(broken)


def test_a_missing_library_is_told_with_the_command_that_installs_it(capsys, monkeypatch):
    def imports(name: str) -> None:
        __import__(name)

    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert guarded(lambda: imports("pydicom")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "this needs the library pydicom, which is missing: pip install chexmsn" in line
    with pytest.raises(ModuleNotFoundError):  # our own mistake
        guarded(lambda: imports("chexmsn.no_such_module"))


def test_too_little_memory_is_told(capsys):
    def large() -> None:
        torch.empty(1 << 60)

    assert guarded(large) == 2
    assert "smaller batch_size" in capsys.readouterr().err


def test_what_the_system_refuses_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    for words in (["fake", "csv", str(tmp_path / "file" / "x")], ["fake", "csv", str(tmp_path / ("x" * 300))]):
        assert main(words) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and str(tmp_path) in lines[0]


def test_an_empty_folder_may_be_given_as_the_new_one(tmp_path):
    for folder in ("raw", "pack"):
        (tmp_path / folder).mkdir()
    assert main(["fake", "csv", str(tmp_path / "raw"), "--patients", "2", "--size", "32"]) == 0
    assert main(["prepare", "csv", str(tmp_path / "raw"), str(tmp_path / "pack"), "--size", "32"]) == 0
    assert (tmp_path / "pack" / "pack.json").is_file()


def test_a_look_alike_is_written_once(tmp_path, capsys):
    words = ["fake", "mimic-cxr-jpg", str(tmp_path / "mimic"), "--patients", "9", "--size", "64"]
    assert main(words) == 0
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main([*words[:-1], "96"]) == 2
    assert "size: 64 before, 96 now" in capsys.readouterr().err


def test_options_may_come_from_a_file(tmp_path):
    from chexmsn.recipes.arguments import parse

    file = tmp_path / "options.yaml"
    file.write_text("data: [a, b]\nout: c\nmethod: mae\noptions: {mask_ratio: 0.6}\nepochs: 7\n")
    config = parse("pretrain", ["--config", str(file), "--epochs", "8"])
    assert (config.method, config.options.mask_ratio, config.epochs) == ("mae", 0.6, 8)
    assert config.data == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("config", "table: a.csv", "has the key table, .*: it goes under `options:`, or give the file as --options"),
        ("config", "sise: 64", r"has the key sise, and there is no such option: did you mean size\?"),
        ("config", "qqq: 64", r"has the key qqq, and there is no such option \(see chexmsn prepare --help\)"),
        ("config", "options: {tabel: a}", r"file.yaml: csv has no option tabel: did you mean table\?"),
        ("config", "7: 64", r"has the key 7, and there is no such option"),
        ("config", "size: many", "file.yaml: size takes a whole number, not many"),
        ("config", "splits: train", "file.yaml: splits takes a list in brackets"),
        ("config", "options: {table: [1]}", "file.yaml: options.table takes text, not"),
        ("options", "tabel: a.csv", r"file.yaml: csv has no option tabel: did you mean table\?"),
        ("options", "options: {table: a.csv}", "holds `options:`, .*: give it as --config"),
        ("options", "table: [1]", "file.yaml: options.table takes text, not"),
    ],
)
def test_a_wrong_key_in_a_file_is_named_with_the_file_and_the_remedy(tmp_path, option, content, message):
    from chexmsn.recipes.arguments import parse

    file = tmp_path / "file.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        parse("prepare", ["csv", "a", "b", f"--{option}", str(file)])
    assert str(file) in str(raised.value)


def test_errors_in_a_config_file_are_told(tmp_path):
    from chexmsn.recipes.arguments import parse

    file = tmp_path / "options.yaml"
    file.write_text("encoder: {patchs: 8}")
    with pytest.raises(UserError, match=r"options.yaml has the key encoder.patchs, .*: did you mean encoder.patch\?"):
        parse("pretrain", ["--config", str(file)])
    with pytest.raises(UserError, match=r"there is no option encoder.patchs: did you mean encoder.patch\?"):
        parse("pretrain", {"data": ["a"], "out": "b", "encoder": {"patchs": 8}})
    file.write_text("data: [a\n")
    with pytest.raises(UserError, match="not valid YAML"):
        parse("pretrain", ["--config", str(file)])
    file.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not valid YAML"):
        parse("pretrain", ["--config", str(file)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "pretrain --method MSN",
            r"no method called 'MSN' \(did you mean msn\?\): choose one of dino, lejepa, mae, msn",
        ),
        (
            "train --method lineer-probe",
            r"no method called .lineer-probe. \(did you mean linear-probe\?\): choose one of attentive-",
        ),
        ("pretrain --method mae --options.entropy 1", r"mae has no option entropy \(msn, pmsn have one\): it has .*lr"),
        ("pretrain --method mae --options.mask_ration 1", r"mae has no option mask_ration: did you mean mask_ratio\?"),
        (
            "stress a b --out c --adapter onnx --options.architecture d",
            r"onnx has no option architecture \(timm has one\)",
        ),
        ("pretrain --epoch 3", r"there is no option --epoch: did you mean --epochs\?"),
    ],
)
def test_names_that_are_not_there_say_which_are(words, message, capsys):
    assert main(words.split()) == 2
    told = capsys.readouterr().err.strip()
    assert re.search(message, told) and "\n" not in told, told
