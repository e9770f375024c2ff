"""Which figures a report has, the words beside them and the numbers in them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from chexmsn.evaluation.areas import family_of
from chexmsn.report.areas import apart, names_of, overs
from chexmsn.report.comparison import SURE, Comparison, questions
from chexmsn.report.conditions import (
    BLACK,
    CLEAN,
    FAMILIES,
    TOKENS,
    Condition,
    at,
    at_conditions,
    conditions,
    conditions_of,
    corruption_title,
    hard,
    in_sentence,
    is_missing,
    short_label,
)
from chexmsn.report.curves import pretraining_panels, stage_curves, training_panels
from chexmsn.report.figures import curves_figure, findings_figure, missing_figure, reliability_figure, severity_figure
from chexmsn.report.forest import Forest, forest_figure
from chexmsn.report.results import CURVES, StressRun, stack, stack_further
from chexmsn.report.style import Look, looks
from chexmsn.report.tables import MACRO, scores
from chexmsn.report.words import DASH, HARD_SPACE, MINUS, listed

FEW = 16  # conditions in a figure that shows the hardest; all of them are in the tables


class Plan(NamedTuple):
    """A figure of the report: its words, the numbers in it, and how it is drawn for a number of columns."""

    name: str
    section: str
    title: str
    caption: str
    numbers: pd.DataFrame
    columns: int
    draw: Callable[[int], Figure | None]


def plan_figures(runs: Sequence[StressRun]) -> list[Plan]:
    """The figures of these runs, in the order of the page."""
    models = looks(run.label for run in runs)
    return [*_degradation(runs, models), *_judgements(runs, models), *_learning(runs, models)]


def plan_comparison(comparison: Comparison) -> Plan:
    """The primary comparison: every difference with its interval."""
    rows = comparison.primary
    told = rows.assign(
        row=rows.a + f" {MINUS} " + rows.b, series="difference", value=rows.difference, hollow=~(rows.p_holm < SURE)
    )
    panels = [Forest(one.title, "difference", one.of(told), line=0) for one in questions(rows)]
    return Plan(
        "comparison",
        "comparison",
        "Paired differences",
        "What was to be compared was named beforehand. Right of the line the first model is higher; lines are "
        "intervals over patients, the same resamples for both. A full marker stays a difference after Holm's "
        f"correction (p below {SURE}); a hollow one does not.",
        comparison.differences,
        2,
        lambda columns: forest_figure(panels, looks(["difference"]), columns),
    )


def hardest(macro: pd.DataFrame) -> list[Condition]:
    """At most `FEW` of the conditions that stand for a corruption: those that cost most, in the order of the page."""
    rows = at_conditions(macro, hard(macro))
    costs = rows.groupby(["corruption", "severity"]).absolute_drop.mean().dropna().nlargest(FEW)
    return [condition for condition in conditions(rows) if condition in set(costs.index)]


def focus(macro: pd.DataFrame) -> Condition | None:
    """The condition that stands for all where there is room for one, of those that the most models have.

    70 % of the tokens gone, else 70 % of the patches black, else the costliest.
    """
    there = macro[(macro.status == "ok") & macro.absolute_drop.notna()]
    models = Counter(conditions_of(there.drop_duplicates(["model", "corruption", "severity"])))
    candidates = hardest(there)
    shown = [condition for condition in candidates if models[condition] == max(map(models.__getitem__, candidates))]
    costs = there.groupby(["corruption", "severity"]).absolute_drop.mean()
    missing = (c for way in (TOKENS, BLACK) for c in shown if c.corruption == way)
    return next(missing, max(shown, key=lambda c: costs[c], default=None))


def _degradation(runs: Sequence[StressRun], models: Mapping[str, Look]) -> list[Plan]:
    table = stack(runs)
    macro = scores(table)
    bands = _bands(runs)
    missing = macro[(macro.corruption == CLEAN) | macro.corruption.map(is_missing)]
    standing, costly = hard(macro), at_conditions(macro, hardest(macro))
    clean_and_hard = at_conditions(scores(table, finding=None), [Condition(CLEAN, 0.0), *standing])
    drops = Forest("", "drop of macro AUROC", _drops(costly), line=0)
    left_out = len(standing) - len(conditions(costly))
    rest = f" The {FEW} costliest are shown; {left_out} more are in the tables." if left_out else ""
    return [
        Plan(
            "losses",
            "drops",
            "What is lost",
            f"Drop of macro AUROC from the clean images, {at(standing)}. "
            f"Lines are intervals over patients; a hollow marker is a condition the model saw in training.{rest}",
            costly,
            2,
            partial(forest_figure, [drops], models),
        ),
        Plan(
            "missing-regions",
            "missing-regions",
            "When regions of the image are missing",
            f"Macro AUROC against the share of patches that is gone. {_BANDS}{_absent(missing)}",
            missing,
            2,
            partial(missing_figure, missing, bands, models),
        ),
        *(_family(family, macro, bands, models) for family in FAMILIES),
        Plan(
            "findings",
            "findings",
            "Finding by finding",
            f"AUROC of every finding on clean images, {at(standing)}. A dash stands where there is no number.",
            clean_and_hard,
            2,
            partial(findings_figure, clean_and_hard, models),
        ),
    ]


def _bands(runs: Sequence[StressRun]) -> pd.DataFrame:
    """The band of every curve of macro AUROC; of a folder of an earlier version, the intervals of its points."""
    return pd.concat([_bands_of(run) for run in runs], ignore_index=True)


def _bands_of(run: StressRun) -> pd.DataFrame:
    told = stack_further([run], "bands")
    if len(told):
        return told[told.finding == MACRO]
    macro = scores(run.results)
    clean, names = macro[macro.corruption == CLEAN], macro.corruption[macro.value.notna()].unique()
    starts = [clean.assign(corruption=name) for name in names if name != CLEAN]
    return pd.concat([macro[macro.corruption != CLEAN], *starts]).sort_values("severity")


def _drops(rows: pd.DataFrame) -> pd.DataFrame:
    labels = [short_label(condition) for condition in conditions_of(rows)]
    return rows.assign(
        row=labels,
        series=rows.model,
        value=rows.absolute_drop,
        low=rows.absolute_drop_low,
        high=rows.absolute_drop_high,
        hollow=rows.seen_in_training.astype(bool),
    ).sort_values(["corruption", "severity"], key=_page_order(rows))


def _page_order(rows: pd.DataFrame) -> Callable[[pd.Series], pd.Series]:
    """A sorting key for the columns corruption and severity: the order of the page."""
    place = {name: k for k, name in enumerate(dict.fromkeys(c.corruption for c in conditions(rows)))}
    return lambda column: column.map(place) if column.name == "corruption" else column


def _family(family: str, macro: pd.DataFrame, bands: pd.DataFrame, models: Mapping[str, Look]) -> Plan:
    mine = [name for name in macro.corruption.unique() if not is_missing(name) and name != CLEAN]
    rows = macro[macro.corruption.isin([name for name in mine if family_of(name) == family] + [CLEAN])]
    return Plan(
        f"severity-{family}",
        "severity",
        FAMILIES[family],
        "Macro AUROC against severity, where 0 is the clean image; below each severity, what it means in the unit of "
        f"the corruption. Levels that are not in mm are defined at 224{HARD_SPACE}px. {_BANDS}{_absent(rows)}",
        rows if set(rows.corruption) - {CLEAN} else rows.iloc[:0],
        3,
        partial(severity_figure, rows, bands, models),
    )


_BANDS = (
    "A band holds the whole curve, where the intervals in the tables hold each point; a hollow marker is a condition "
    "the model saw in training."
)


def _absent(rows: pd.DataFrame) -> str:
    """A sentence for each reason why a model has no number somewhere in a figure."""
    gone = rows[rows.status != "ok"].groupby(["model", "status"], sort=False).corruption.unique()
    named = {key: listed([in_sentence(corruption_title(name)) for name in names]) for key, names in gone.items()}
    return "".join(f" No value of {model} for {what}: {why.rstrip('.')}." for (model, why), what in named.items())


def _judgements(runs: Sequence[StressRun], models: Mapping[str, Look]) -> list[Plan]:
    """Figures of the further tables, where there are some."""
    macro = scores(stack(runs))
    shown = [Condition(CLEAN, 0.0), *hardest(macro)]
    made = {"calibration": _calibration, "operating": _operating}
    made |= {"subgroups": _subgroups, "group_differences": _group_differences}
    tables = {name: stack_further(runs, name) for name in ("areas", *made)}
    plans = [_areas(tables["areas"], runs, models)] if len(tables["areas"]) else []
    plans += [plan(tables[name], shown, models) for name, plan in made.items() if len(tables[name])]
    reliability = stack_further(runs, "reliability")
    if len(reliability):
        plans.append(_reliability(reliability, macro, runs, models))
    return plans


def _areas(areas: pd.DataFrame, runs: Sequence[StressRun], models: Mapping[str, Look]) -> Plan:
    over = overs(runs)
    names, rows = names_of(over), areas[(areas.finding == MACRO) & (areas.over == "family")]
    keys = zip(rows.over, rows.corruption, rows.model, strict=True)
    told = rows.assign(row=[names[over[key]] for key in keys], series=rows.model, hollow=False)
    titles = {"area": "Mean AUROC over all severities", "area_above_chance": "Share of the clean skill kept"}
    panels = [Forest(title, "", told[told.metric == metric]) for metric, title in titles.items()]
    return Plan(
        "areas",
        "areas",
        "A whole ladder of severities in one number",
        "Area under the degradation curve of the macro AUROC, divided by its width: the mean height of the curve. "
        f"The mean over the corruptions of each kind; every corruption has its own row in the table.{apart(over)}",
        areas,
        2,
        partial(forest_figure, panels, models),
    )


def _under_conditions(table: pd.DataFrame, shown: Sequence[Condition], titles: Mapping[str, str]) -> list[Forest]:
    """A panel for each metric, a row for each condition, of macro values."""
    rows = at_conditions(table[table.finding == MACRO], shown)
    rows = rows.sort_values(["corruption", "severity"], key=_page_order(rows))
    told = rows.assign(row=[short_label(c) for c in conditions_of(rows)], series=rows.model, hollow=False)
    return [Forest(title, "", told[told.metric == metric]) for metric, title in titles.items()]


def _calibration(table: pd.DataFrame, shown: Sequence[Condition], models: Mapping[str, Look]) -> Plan:
    titles = {"ece": "Expected calibration error", "brier": "Brier score"}
    return Plan(
        "calibration",
        "calibration",
        "Whether a probability still means what it says",
        "Both are better when lower. The calibration error is the mean distance between the probability that was said "
        "and how often the finding is there, in 15 bins; the Brier score is the mean squared error of the probability.",
        table,
        2,
        partial(forest_figure, _under_conditions(table, shown, titles), models),
    )


def _operating(table: pd.DataFrame, shown: Sequence[Condition], models: Mapping[str, Look]) -> Plan:
    titles = {"sensitivity": "Sensitivity", "specificity": "Specificity"}
    return Plan(
        "operating",
        "operating",
        "What happens at the threshold that was set",
        "Means over the findings that have a threshold. The thresholds were chosen on clean images and are kept. "
        "Lines are intervals over patients.",
        table,
        2,
        partial(forest_figure, _under_conditions(table, shown, titles), models),
    )


def _subgroups(table: pd.DataFrame, shown: Sequence[Condition], models: Mapping[str, Look]) -> Plan:
    rows = table[table.finding == MACRO]
    told = rows.assign(row=[group_name(*pair) for pair in zip(rows.group, rows.level, strict=True)], series=rows.model)
    told = told.assign(hollow=False)
    clean = Forest("Clean images", "macro AUROC", told[told.corruption == CLEAN])
    panels = [clean, *_drop_under_worst(told, "drop of macro AUROC")]
    return Plan(
        "subgroups",
        "subgroups",
        "Whether some people are served worse",
        "By sex, age and view, where a group has at least ten images with and ten without a finding. Groups of one "
        "kind share one set of findings; groups of different kinds do not compare. Wide lines are small groups, not "
        "unfairness.",
        table,
        2,
        partial(forest_figure, panels, models),
    )


def _drop_under_worst(told: pd.DataFrame, axis: str) -> list[Forest]:
    """A panel of what the condition that stands for all costs; none where no such condition was tested."""
    worst = focus(told)
    if not worst:
        return []
    there = at_conditions(told, [worst])
    ends = {"value": there.absolute_drop, "low": there.absolute_drop_low, "high": there.absolute_drop_high}
    return [Forest(short_label(worst), axis, there.assign(**ends), line=0)]


def _group_differences(table: pd.DataFrame, shown: Sequence[Condition], models: Mapping[str, Look]) -> Plan:
    rows = table[table.finding == MACRO]
    told = rows.assign(row=[group_pair(row) for row in rows.itertuples()], series=rows.model, hollow=False)
    clean = Forest("Clean images", "difference of macro AUROC", told[told.corruption == CLEAN], line=0)
    panels = [clean, *_drop_under_worst(told, "difference of the drops")]
    return Plan(
        "group_differences",
        "subgroups",
        "How far groups differ",
        "Each group less the largest of its kind, over the same resampled patients. Right of the line in the first "
        "panel the group is served better, in the second it loses more. These are many intervals, each for itself: "
        "about one in twenty lies beside the line where no groups differ.",
        table,
        2,
        partial(forest_figure, panels, models),
    )


def group_pair(row) -> str:
    """The two groups of a difference, in words."""
    return f"{group_name(row.group, row.level)} {MINUS} {in_sentence(group_name(row.group, row.against))}"


def group_name(group: str, level: str) -> str:
    """A group of people in words.

    >>> group_name("sex", "F"), group_name("age", "60-79"), group_name("view", "PA")
    ('Women', 'Age 60\\u201379', 'View PA')
    """
    if group == "sex":
        return {"F": "Women", "M": "Men"}.get(level, level)
    return f"{group.capitalize()} {level.replace('-', DASH)}"


def _reliability(
    table: pd.DataFrame, macro: pd.DataFrame, runs: Sequence[StressRun], models: Mapping[str, Look]
) -> Plan:
    chosen = focus(macro)
    shown = [Condition(CLEAN, 0.0), *([chosen] if chosen else [])]
    rows = at_conditions(table, shown)
    left_out = {(run.label, finding) for run in runs for finding in run.get("left_out", default={})}
    kept = rows[[pair not in left_out for pair in zip(rows.model, rows.finding, strict=True)]]
    return Plan(
        "reliability",
        "calibration",
        "Reliability",
        "All findings together, each counting the same. On the dotted diagonal a probability is what it says; below "
        "it the model says too much.",
        kept,
        2,
        partial(reliability_figure, _pooled(kept), shown, models),
    )


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """The bins of all findings taken together, weighted by what each holds."""
    weighted = rows.assign(score=rows.score * rows.weight, positive=rows.positive * rows.weight)
    sums = weighted.groupby(["model", "corruption", "severity", "bin"], as_index=False)[["weight", "score", "positive"]]
    total = sums.sum().query("weight > 0")
    return total.assign(score=total.score / total.weight, positive=total.positive / total.weight)


def _learning(runs: Sequence[StressRun], models: Mapping[str, Look]) -> list[Plan]:
    pretraining, training = (stage_curves(runs, stage) for stage in CURVES)
    return [
        Plan(
            "pretraining-curves",
            "curves",
            "Pretraining",
            "Each method's own loss on its own scale: losses of different methods cannot be compared. Where they were "
            "logged, the effective rank of the features and what their nearest neighbours say of them.",
            pretraining,
            3,
            partial(curves_figure, pretraining_panels(pretraining), models),
        ),
        Plan(
            "training-curves",
            "curves",
            "Training of the classifiers",
            "What was logged while training on labels, the mean of each epoch.",
            training,
            2,
            partial(curves_figure, training_panels(training), models),
        ),
    ]
