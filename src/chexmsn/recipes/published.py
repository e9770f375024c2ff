"""The command lines of the published system, as fronts over our recipes.

Flags keep their published names; what each becomes is in the help. Where the published system is silent, the recipe
named on top of each script decides.
"""

import argparse
import dataclasses
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load
from chexmsn.data.pack import open_pack
from chexmsn.data.prepare import prepare
from chexmsn.models.artefact import load_encoder
from chexmsn.models.encoder import VIT_SIZES, Encoder
from chexmsn.recipes.arguments import check_command, parse, run_command
from chexmsn.recipes.recipe import read_stages
from chexmsn.training.run import methods_of

log = logging.getLogger(__name__)

DEVICES = {"gpu": "gpu", "cuda": "gpu", "cpu": "cpu", "auto": "auto"}


class Flags(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> None:
        """Raise UserError instead of printing usage and leaving."""
        raise UserError(f"{message} (see {self.prog} --help)")


def truth(word: str) -> bool:
    """True or False, as the published flags spell them."""
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"takes True or False, not {word!r}")
    return word.lower() == "true"


def _shared_flags(description: str) -> Flags:
    flags = Flags(description=description)
    flags.add_argument("-d", "--data-dir", type=Path, required=True, help="a MIMIC-CXR-JPG folder, or a pack")
    flags.add_argument("-b", "--batch-size", type=int, default=128, help="images per step, over all devices")
    flags.add_argument("--pm", type=truth, default=True, help="pinned memory")
    flags.add_argument(
        "-w",
        "--workers",
        type=int,
        default=0,
        help="processes that decode images while packing; training reads the pack from memory",
    )
    flags.add_argument("--lr", type=float, help="learning rate at its peak")
    flags.add_argument("--wd", type=float, help="weight decay")
    flags.add_argument("--ngpus", type=int, default=1, help="number of devices, of each node")
    flags.add_argument("--nodes", type=int, default=1, help="machines, where torchrun or Slurm starts the run")
    flags.add_argument("--acc", choices=sorted(DEVICES), default="auto", help="gpu, cpu or auto")
    flags.add_argument("-e", "--epochs", type=int, default=100)
    flags.add_argument("-p", "--precision", choices=("16", "32", "bf16", "auto"), default="auto")
    flags.add_argument("--esd", type=float, default=1e-4, help="smallest improvement that early stopping counts")
    flags.add_argument("--patience", type=int, default=10, help="epochs without it before stopping")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--out", type=Path, help="run folder (default: runs/<what it is>)")
    return flags


def pretrain_as_published(words: Sequence[str], recipe: Path) -> None:
    """`ssl-trainer.py`: pretraining. Raises UserError for bad flags, data or device."""
    flags = _shared_flags("Pretrain an encoder on chest radiographs (published flags).")
    flags.add_argument("-m", "--method", choices=methods_of("pretraining"), default="msn")
    flags.add_argument("--mr", type=float, help="the method's mask ratio")
    flags.add_argument("--pn", type=int, help="number of prototypes (msn, pmsn)")
    flags.add_argument("--encoder", help="another encoder than the recipe's, for example vit_tiny")
    flags.add_argument("--size", type=int, help="another image size than the recipe's, in pixels")
    given = flags.parse_args(words)
    stage = read_stages(recipe)["pretrain"]
    options = dict(stage.values["options"]) if given.method == stage.values["method"] else {}
    encoder = dict(stage.values["encoder"]) | _known(name=given.encoder, size=given.size)
    options |= _known(lr=given.lr, weight_decay=given.wd) | _method_options(given, encoder["name"])
    values = _run_values(given, out=given.out or Path("runs") / f"{given.method}-{encoder['name']}")
    values |= {"method": given.method, "options": options, "encoder": encoder}
    run_command("pretrain", values | _packed("pretrain", values, given))


def train_as_published(words: Sequence[str], recipe: Path) -> None:
    """`downstream-trainer.py`: a classifier on a pretrained encoder. Raises UserError for bad flags, data or device."""
    flags = _shared_flags("Train a 14-finding classifier on a pretrained encoder (published flags).")
    flags.add_argument("--tm", choices=("transformer", "cnn"), default="transformer", help="kind of the encoder")
    flags.add_argument("--ckpt", type=Path, required=True, help="pretraining run, encoder folder or checkpoint")
    flags.add_argument("--dp", type=float, default=1.0, help="share of the training patients")
    flags.add_argument("--mr", type=float, help="share of the patches dropped while fine-tuning")
    flags.add_argument("-c", "--classes", type=int, default=14, help="number of findings; must be that of the data")
    flags.add_argument("-f", "--freeze", type=truth, default=False, help="freeze the encoder: a linear probe")
    given = flags.parse_args(words)
    encoder = load_encoder(given.ckpt)
    _check_kind(given, encoder)
    stage = read_stages(recipe)["train"]
    method = "linear-probe" if given.freeze else "fine-tune"
    options = dict(stage.values["options"]) if method == stage.values["method"] else {}
    options |= _known(lr=given.lr, weight_decay=given.wd, mask_ratio=given.mr)
    if given.freeze or encoder.kind == "cnn":
        options["mask_ratio"] = 0.0
        if given.mr:
            reason = "a frozen encoder sees whole images" if given.freeze else "a CNN has no tokens to drop"
            log.info("--mr %s is not used: %s", given.mr, reason)
    values = _run_values(given, out=given.out or Path("runs") / f"{method}-{given.ckpt.resolve().name}")
    values |= {"method": method, "options": options, "encoder_from": str(given.ckpt), "share": given.dp}
    values |= _packed("train", values, given)
    _check_classes(given.classes, Path(values["data"][0]))
    run_command("train", values)


def _check_classes(classes: int, pack: Path) -> None:
    findings = open_pack(pack).findings
    if len(findings) != classes:
        raise UserError(f"-c {classes}, but {pack} has {len(findings)} findings: give -c {len(findings)}")


def _check_kind(given: argparse.Namespace, encoder: Encoder) -> None:
    if encoder.kind != given.tm:
        found = f"{given.ckpt} holds a {encoder.kind} ({encoder.config.name})"
        raise UserError(f"{found} and --tm asks for a {given.tm}: give --tm {encoder.kind}, or another --ckpt")


def _method_options(given: argparse.Namespace, encoder: str) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(load("chexmsn.methods", given.method).Config)}
    options: dict[str, Any] = {}
    if given.wd is not None and "weight_decay_final" in known:
        options["weight_decay_final"] = None  # --wd is one value
    if given.method == "simsiam" and encoder in VIT_SIZES:
        log.info("SimSiam on a transformer takes AdamW: with the published SGD, meant for ResNets, it hardly learns")
        options["optimiser"] = "adamw"
    for flag, name, what in (("mr", "mask_ratio", "no mask"), ("pn", "prototypes", "no prototypes")):
        value = getattr(given, flag)
        if value is None:
            continue
        if name in known:
            options[name] = value
        else:
            log.info("--%s %s is not used: %s has %s", flag, value, given.method, what)
    return options


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _run_values(given: argparse.Namespace, out: Path) -> dict[str, Any]:
    return {
        "data": [str(given.data_dir)],
        "out": str(out),
        "epochs": given.epochs,
        "batch_size": given.batch_size,
        "patience": given.patience,
        "min_delta": given.esd,
        "precision": given.precision,
        "device": DEVICES[given.acc],
        "devices": given.ngpus,
        "nodes": given.nodes,
        "pin_memory": given.pm,
        "seed": given.seed,
    }


def _packed(command: str, values: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """The pack to run on. Packing takes hours: what cannot work is refused before it."""
    check_command(command, parse(command, values))
    return {"data": [str(pack_of(given.data_dir, given.workers))]}


def pack_of(folder: Path, workers: int) -> Path:
    """The pack behind `-d`: the folder itself, or the one packed from a raw MIMIC-CXR-JPG folder, once, into a cache.

    All view positions are packed, as the published code takes them. The cache is `$CHEXMSN_CACHE`, or
    `~/.cache/chexmsn`.
    """
    if (folder / "pack.json").is_file():
        return folder
    cache = Path(os.environ.get("CHEXMSN_CACHE", Path.home() / ".cache" / "chexmsn"))
    name = f"mimic-cxr-jpg-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"
    log.info("%s is packed once into %s", folder, cache / name)
    return prepare("mimic-cxr-jpg", folder, cache / name, options={"views": "all"}, workers=workers or 1).folder
