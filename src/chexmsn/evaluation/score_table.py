"""Scores made elsewhere: a table instead of a model, judged by the same statistics into the same folder."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float32

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy, apply_policy, canonical
from chexmsn.data.pack import open_pack
from chexmsn.data.source import LABEL, index_by, read_labels, read_text_table
from chexmsn.evaluation.adapters._model import Answers, probabilities_of
from chexmsn.evaluation.conditions import CLEAN, Condition, broken_rule
from chexmsn.evaluation.findings import match
from chexmsn.evaluation.model_check import (
    already_probabilities,
    check_probabilities,
    check_varied,
    few_patients,
    ranking_doubts,
)
from chexmsn.evaluation.result_folder import RAW, Terms, Tested, check_policy, fill, labels_table, record
from chexmsn.evaluation.thresholds import Thresholds, asked_thresholds, find_thresholds
from chexmsn.training.run_folder import check_place, open_run

log = logging.getLogger(__name__)

ABOUT = ("sex", "age", "view")
LONGEST_NAME = 40  # characters: what fits beside an axis
CELL = ["corruption", "severity", "repeat"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreTableConfig:
    """A table of scores, and what they are judged by.

    Attributes:
        scores: CSV or Parquet file: one row per image and condition, one column per finding.
        data: pack with the labels, or a CSV file with one row per image: image, patient_id, one column per finding (1,
            0, -1 or blank) and, if known, sex, age and view.
        out: folder for scores and results.
        name: what tables and figures call the model; the name of the file when empty.
        findings: columns of scores by finding, {Effusion: p_effusion}; every column that is called as a label when
            empty.
        image: column with the image, in both tables; in a pack it is the image key.
        patient: column of a CSV file of labels with the patient.
        condition: column of scores with what was done to the image; all are clean where there is none.
        severity: column of scores with how much of it.
        repeat: column of scores that tells several draws of one condition apart.
        answers: what the scores are: probabilities, logits, or softmax (logits of classes that exclude each other).
        split: split of a pack whose labels are used.
        labels: what uncertain (-1) and blank labels count as.
        thresholds: from which probability on a finding counts as present: a split of the pack (not the tested one) on
            whose clean images that is chosen, or a CSV file with the columns finding and threshold. When empty, the
            split validate, where the table has scores of it.
        corruptions_seen: conditions that the model was trained on.
        resamples: how often the patients are resampled for the intervals.
        seed: the resamples follow from it.
    """

    scores: Path
    data: Path
    out: Path
    name: str | None = None
    findings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image: str = "image"
    patient: str = "patient_id"
    condition: str = "condition"
    severity: str = "severity"
    repeat: str = "repeat"
    answers: Answers = "probabilities"
    split: str = "test"
    labels: Policy = dataclasses.field(default_factory=Policy)
    thresholds: str | None = None
    corruptions_seen: tuple[str, ...] = ()
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, resamples="[1, inf)")
        check_policy(self.labels)


def judge_scores(config: ScoreTableConfig) -> Path:
    """Judge a table of scores; returns the folder of the results.

    The same configuration and tables: nothing to do.

    Raises:
        UserError: a table that cannot be read or lacks a column; scores that are no numbers or no probabilities, that
            are there twice or not for every image; images or findings without labels; a folder of another
            configuration.
    """
    check_place(config.out, "stress")
    _check_there(config.data)
    rows = _read(config.scores, config.image)
    columns = _columns(rows, _labelled(config, rows), config)
    everything = _scores(rows, columns, config)
    labels, told = _labels(config, everything)
    table, labels = _joined(everything, labels, config)
    tested = Tested.of(told, labels, config.labels)
    doubts = [*_unused(rows, columns, config), *_misread(rows, columns, config), *_clean_doubts(table, tested, config)]
    terms = Terms(
        model=config.name or config.scores.stem,
        conditions=_conditions(table),
        not_applicable={},
        seen=config.corruptions_seen,
        resamples=config.resamples,
        seed=config.seed,
        thresholds=_thresholds(everything, tested.findings, config),
    )
    run = open_run(config.out, "stress", _asked(config, told), _facts(config, table, tested, terms, doubts))
    if run.finished:
        log.info("%s is finished: nothing to do", run.path)
        return run.path
    with run.alone():
        fill(run, tested, terms, torch.device("cpu"), curves={}, score=lambda parts: table)
    return run.path


def _check_there(data: Path) -> None:
    if not data.exists():
        raise UserError(f"{data} is not there: name a pack, or a CSV file of labels with a row per image")
    if data.is_dir() and not (data / "pack.json").is_file():
        raise UserError(
            f"{data} is a folder and no pack (it has no pack.json): name a pack, or a CSV file of labels with a row "
            "per image"
        )


# --- the scores


def _scores(rows: pd.DataFrame, columns: Mapping[str, str], config: ScoreTableConfig) -> pd.DataFrame:
    """The table with the columns of `scores.parquet`, still with the model's own names of findings."""
    keys = pd.DataFrame({"image_key": rows[config.image].astype(str)} | _cells(rows, config))
    _check_once(keys, config)
    values = pd.DataFrame(_values(rows, list(columns), config), columns=[f"score:{name}" for name in columns.values()])
    return keys.join(values)


def _columns(table: pd.DataFrame, labelled: Sequence[str], config: ScoreTableConfig) -> dict[str, str]:
    """The columns of scores with their findings: those that were named, else those that are called as a label.

    Other numbers, such as an age, are no scores. What is in a column does not matter here: text is an error later.
    """
    if config.findings:
        if missing := [column for column in config.findings.values() if column not in table]:
            raise UserError(f"{config.scores} lacks the column {', '.join(missing)}: it has {', '.join(table.columns)}")
        return {column: name for name, column in config.findings.items()}
    called = {canonical(name) for name in labelled}
    numbers = set(table.select_dtypes("number"))
    offered = [
        column
        for column in table
        if column not in _about(config)
        and (column in numbers or canonical(str(column).removeprefix("score:")) in called)
    ]
    if not offered:
        raise UserError(f"{config.scores} has no column of numbers: one per finding is needed")
    names = [str(column).removeprefix("score:") for column in offered]
    shared = match(names, labelled, str(config.scores), str(config.data)).values()
    columns = {offered[place]: names[place] for place in shared}
    if config.answers == "softmax" and (others := _other_numbers(table, columns, config)):
        raise UserError(
            f"softmax needs every class and no other column, and {config.scores} has {', '.join(others)} that no label "
            "is called as: name the column of each class with --findings"
        )
    return columns


def _about(config: ScoreTableConfig) -> set[str]:
    """The columns that say something else than a score."""
    return {config.image, config.patient, config.condition, config.severity, config.repeat}


def _other_numbers(table: pd.DataFrame, columns: Mapping[str, str], config: ScoreTableConfig) -> list[str]:
    return [column for column in table.select_dtypes("number") if column not in {*columns, *_about(config)}]


def _unused(table: pd.DataFrame, columns: Mapping[str, str], config: ScoreTableConfig) -> list[str]:
    """Columns of numbers that may have been meant as scores; whoever names the columns has said which are."""
    if config.findings or not (others := [c for c in _other_numbers(table, columns, config) if c not in ABOUT]):
        return []
    return [
        f"columns of {config.scores.name} that no label is called as, and that are not judged: {', '.join(others)}; if "
        "one holds scores, call it as its label or name it with findings"
    ]


def _misread(table: pd.DataFrame, columns: Mapping[str, str], config: ScoreTableConfig) -> list[str]:
    there = config.condition in table
    clean = table[table[config.condition].fillna(CLEAN.corruption) == CLEAN.corruption] if there else table
    return already_probabilities(clean[list(columns)].to_numpy(np.float32), config.answers)


def _read(file: Path, image: str) -> pd.DataFrame:
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise UserError(f"{file} {what}: name a CSV or Parquet file with a row per image and a column per finding")
    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype={image: str})
    except (OSError, ValueError, pa.ArrowInvalid) as error:  # errors of parsing and of decoding are ValueErrors
        raise UserError(
            f"{file} cannot be read as a table: {' '.join(str(error).split())}; name a CSV or Parquet file"
        ) from None
    if image not in table:
        raise UserError(
            f"{file} lacks the column {image}: it has {', '.join(map(str, table.columns))}; "
            "name the column of the images by --image"
        )
    return table.reset_index(drop=True)


def _cells(table: pd.DataFrame, config: ScoreTableConfig) -> dict[str, pd.Series]:
    """What was done to each image."""
    if config.condition not in table:
        clean = pd.Series(CLEAN.corruption, index=table.index)
        return {"corruption": clean, "severity": 0.0 * table.index.to_series(), "repeat": 0 * table.index.to_series()}
    corruption = table[config.condition].fillna(CLEAN.corruption).astype(str)
    if config.severity not in table:
        raise UserError(f"{config.scores} has conditions and lacks the column {config.severity}: add how much of each")
    known = pd.to_numeric(table[config.severity], errors="coerce")
    if (told := (corruption == CLEAN.corruption) & (known.fillna(0) != 0)).any():
        row = int(np.flatnonzero(told)[0])
        raise UserError(
            f"{config.scores}: row {row + 1} is clean and has {table[config.severity][row]} as its severity: leave it "
            "blank, or name the condition"
        )
    if blank := int(table[config.condition].isna().sum()):
        log.warning("%d rows without a condition count as clean", blank)
    severity = known.where(corruption != CLEAN.corruption, 0.0).astype(float).round(6)  # as `Condition` keeps them
    _check_severities(corruption, severity, table[config.severity], config)
    return {"corruption": corruption, "severity": severity, "repeat": _repeats(table, config)}


def _check_severities(corruption: pd.Series, severity: pd.Series, told: pd.Series, config: ScoreTableConfig) -> None:
    """Numbers above 0 for all conditions but clean, and within its range for one that is called as one of ours."""
    rows = pd.DataFrame({"corruption": corruption, "severity": severity}).drop_duplicates()
    if len(long := rows[rows["corruption"].str.len() > LONGEST_NAME]):
        name = long["corruption"].iloc[0]
        raise UserError(
            f"{config.scores}: row {long.index[0] + 1} has a condition of {len(name)} characters ({name[:20]} ...): "
            f"figures and tables show its name, so give it one of at most {LONGEST_NAME}"
        )
    for row, condition in rows[rows["corruption"] != CLEAN.corruption].iterrows():
        where = f"{config.scores}: row {row + 1} ({condition['corruption']}) has {told[row]} as its severity"
        if condition["corruption"].strip().lower() == CLEAN.corruption:
            raise UserError(f"{where.partition(' has ')[0]}: untouched images are called {CLEAN.corruption}, so spelt")
        if not 0 < condition["severity"] < np.inf:
            raise UserError(
                f"{where}, which is no number above 0: give one to each condition but clean, larger for more of it"
            )
        if rule := broken_rule(Condition(condition["corruption"], condition["severity"])):
            raise UserError(f"{where}, but {rule}: mend it, or give a condition of your own another name")


def _repeats(table: pd.DataFrame, config: ScoreTableConfig) -> pd.Series:
    """Which draw of its condition each row is of; the first where nothing is said."""
    if config.repeat not in table:
        return 0 * table.index.to_series()
    told = table[config.repeat]
    repeat = pd.to_numeric(told, errors="coerce").astype(float).mask(told.isna() | (told.astype(str) == ""), 0.0)
    if (unfit := repeat % 1 != 0).any():
        row = int(np.flatnonzero(unfit)[0])
        raise UserError(f"{config.scores}: row {row + 1} has {told[row]} as its repeat: number them 0, 1, 2 ...")
    return repeat.astype(int)


def _check_once(keys: pd.DataFrame, config: ScoreTableConfig) -> None:
    if not (keys["corruption"] == CLEAN.corruption).any():
        raise UserError(f"{config.scores} has no rows of the condition clean: every drop is measured against them")
    twice = keys[keys.duplicated()]
    if len(twice):
        image, corruption, severity, repeat = twice.iloc[0]
        raise UserError(
            f"{config.scores} has two rows of {image} under {corruption} at {severity:g}, repeat {repeat}: keep "
            "one, or tell draws apart with the column repeat"
        )


def _values(table: pd.DataFrame, columns: list[str], config: ScoreTableConfig) -> Float32[np.ndarray, "N C"]:
    """Probabilities."""
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32, copy=True)
    if not np.isfinite(values).all():
        row, place = np.argwhere(~np.isfinite(values))[0]
        value, column = table[columns[place]].iloc[row], columns[place]
        raise UserError(
            f"{config.scores}: row {row + 1} has {value} as {column}, which is no number: every image needs one"
        )
    scores = probabilities_of(torch.from_numpy(values), config.answers).numpy()
    check_probabilities(scores, str(config.scores))
    return scores


# --- the labels


def _labelled(config: ScoreTableConfig, scores: pd.DataFrame) -> Sequence[str]:
    """The findings that there are labels of."""
    if config.data.is_dir():
        return Collection([open_pack(config.data)], [config.split]).findings
    rows = read_text_table(config.data, [config.image, config.patient])
    called = {canonical(str(column).removeprefix("score:")) for column in [*scores, *config.findings]}
    return list(_offered(rows, called, config).values())


def _offered(rows: pd.DataFrame, called: set[str], config: ScoreTableConfig) -> dict[str, str]:
    """The columns of a table of labels, with their findings: those that are scored, or that hold a label.

    What is in a column that is scored does not matter here: text is an error later. Other text is no finding.
    """
    about = (config.image, config.patient, *ABOUT)
    names = {column: canonical(column.removeprefix(LABEL)) for column in rows if column not in about}
    return {column: name for column, name in names.items() if name in called or _holds_labels(rows[column])}


def _holds_labels(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").isin([1, 0, -1]).any())


def _labels(config: ScoreTableConfig, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of labels of the findings that there are scores of, and what a record says of where it comes from."""
    told = [column.removeprefix("score:") for column in table if column.startswith("score:")]
    if config.data.is_dir():
        images = Collection([open_pack(config.data)], [config.split])
        findings = tuple(match(told, images.findings, str(config.scores), str(config.data)))
        return labels_table(images, findings, config.labels), Tested.told_of(images)
    rows = read_text_table(config.data, [config.image, config.patient])
    offered = _offered(rows, {canonical(name) for name in told}, config)
    shared = match(told, list(offered.values()), str(config.scores), str(config.data))
    raw = read_labels(rows, {column: name for column, name in offered.items() if name in shared}, config.data)
    return _label_table(rows, raw[[LABEL + name for name in shared]], config), {
        "name": config.data.stem,
        "source": "csv",
        "fingerprint": _digest(config.data),
        "split": None,
    }


def _label_table(rows: pd.DataFrame, raw: pd.DataFrame, config: ScoreTableConfig) -> pd.DataFrame:
    index_by(rows, config.image, config.data)
    findings = [column.removeprefix(LABEL) for column in raw]
    about = {"image_key": rows[config.image], "patient_id": rows[config.patient]}
    about |= {name: rows[name].replace("", None) if name in rows else None for name in ABOUT}
    table = pd.DataFrame(about, index=rows.index).assign(age=lambda known: pd.to_numeric(known["age"], errors="coerce"))
    if unread := sorted(set(rows["age"][(rows["age"] != "") & table["age"].isna()])) if "age" in rows else []:
        log.warning("%s has %s as an age, which is no number: these ages count as unknown", config.data, unread[0])
    if (table["patient_id"] == "").any():
        raise UserError(f"{config.data} has an image without {config.patient}: every image needs a patient")
    values = apply_policy(raw.to_numpy(np.float32), findings, config.labels)
    return table.join(pd.DataFrame(values, columns=raw.columns)).join(raw.set_axis([RAW + f for f in findings], axis=1))


# --- both


def _joined(table: pd.DataFrame, labels: pd.DataFrame, config: ScoreTableConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores and labels of the images that have both, the columns under the labels' names."""
    scored = set(table.loc[table["corruption"] == CLEAN.corruption, "image_key"])
    both = labels["image_key"].isin(scored)
    if not both.any():
        raise UserError(
            f"no image of {config.scores} (such as {min(scored)}) has labels in {config.data} (of "
            f"{labels['image_key'].iloc[0]} ...): give both tables the same names of images"
        )
    if unlabelled := len(scored) - int(both.sum()):
        log.warning("%d images have scores and no labels among those that are tested, and are left out", unlabelled)
    if not both.all():
        log.warning("%d images have labels and no scores, and are left out", int((~both).sum()))
    labels = labels[both].reset_index(drop=True)
    table = table[table["image_key"].isin(labels["image_key"])]
    _check_whole(table, len(labels), config)
    wanted = [column.replace(LABEL, "score:", 1) for column in labels if column.startswith(LABEL)]
    patients = labels.set_index("image_key")["patient_id"]
    keys = table[["image_key", *CELL]].assign(patient_id=table["image_key"].map(patients))
    return pd.concat([keys, _called_as_labels(table)[wanted]], axis=1).reset_index(drop=True), labels


def _called_as_labels(table: pd.DataFrame) -> pd.DataFrame:
    """The scores under the canonical names of their findings."""
    return table.rename(
        columns=lambda c: f"score:{canonical(c.removeprefix('score:'))}" if c.startswith("score:") else c
    )


def _check_whole(table: pd.DataFrame, images: int, config: ScoreTableConfig) -> None:
    for (corruption, severity, repeat), count in table.groupby(CELL, sort=False).size().items():
        if count != images:
            raise UserError(
                f"{config.scores} has {count} of the {images} clean images under {corruption} at {severity:g}, repeat "
                f"{repeat}: every condition needs the same images"
            )


def _conditions(table: pd.DataFrame) -> tuple[Condition, ...]:
    """Clean first, then in the order of the table, each corruption from mild to severe."""
    found = table[["corruption", "severity"]].drop_duplicates()
    order = {name: place for place, name in enumerate(dict.fromkeys([CLEAN.corruption, *found["corruption"]]))}
    return tuple(Condition(*row) for row in sorted(found.itertuples(index=False), key=lambda r: (order[r[0]], r[1])))


def _asked(config: ScoreTableConfig, told: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the results, with the tables by what they hold."""
    by_content = ("scores", "data", "out", "name", "thresholds")
    named = [f.name for f in dataclasses.fields(config) if f.name not in by_content]
    return {
        "model": config.name or config.scores.stem,
        "weights": _digest(config.scores),
        "data": told["fingerprint"],
        **{name: getattr(config, name) for name in named},
        **asked_thresholds(config.thresholds),
    }


def _facts(
    config: ScoreTableConfig, table: pd.DataFrame, tested: Tested, terms: Terms, doubts: list[str]
) -> dict[str, Any]:
    about = {"adapter": "scores", "fingerprint": _digest(config.scores), "answers": config.answers}
    log.info("thresholds: %s", terms.thresholds.origin)
    for doubt in doubts:
        log.warning("%s", doubt)
    conditions = [vars(c) | {"mechanism": "scored elsewhere: not recorded"} for c in terms.conditions]
    made = record(terms, tested, about, [], {"scores": config.scores.name})
    return made | {"conditions": conditions, "repeats": int(table["repeat"].nunique()), "doubts": doubts}


def _clean_doubts(table: pd.DataFrame, tested: Tested, config: ScoreTableConfig) -> list[str]:
    """What the clean scores leave in doubt. Raises UserError where they tell no image from another."""
    scores = _clean(table, tested.labels["image_key"], tested.findings)
    check_varied(scores, str(config.scores), ": nothing can be ranked by them, are these the scores?")
    return [*few_patients(tested.labels), *ranking_doubts(scores, tested.labels)]


def _clean(table: pd.DataFrame, keys: pd.Series, findings: Sequence[str]) -> Float32[np.ndarray, "N C"]:
    """The first clean scores of some images."""
    clean = table[table["corruption"] == CLEAN.corruption]
    first = clean[clean["repeat"] == clean["repeat"].min()].set_index("image_key").loc[keys]
    return first[[f"score:{name}" for name in findings]].to_numpy(np.float32)


def _thresholds(table: pd.DataFrame, findings: Sequence[str], config: ScoreTableConfig) -> Thresholds:
    """Where each finding counts as present. Raises UserError as `find_thresholds` does, and for a split unscored."""
    if not config.data.is_dir():
        return find_thresholds(config.thresholds, {}, findings, (), "", choose=lambda split: Thresholds())
    pack = open_pack(config.data)
    clean = set(table.loc[table["corruption"] == CLEAN.corruption, "image_key"])
    scored = {split: set(pack.index.loc[pack.rows([split]), "image_key"]) <= clean for split in pack.info["splits"]}

    def choose(split: str) -> Thresholds:
        images = Collection([pack], [split])
        labels = labels_table(images, findings, config.labels)
        scores = _clean(_called_as_labels(table), labels["image_key"], findings)
        return Thresholds.chosen(scores, labels, f"the split {split} of {pack.name}")

    splits = [split for split, whole in scored.items() if whole]
    if config.thresholds in scored and config.thresholds not in splits:
        raise UserError(
            f"{config.scores} lacks clean scores of some images of the split {config.thresholds}, which thresholds "
            "are to be chosen on: add them, or give a CSV file of thresholds"
        )
    return find_thresholds(config.thresholds, {}, findings, splits, config.split, choose)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
