"""Findings: one vocabulary across collections, and what uncertain and blank labels become in training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from chexmsn.data.columns import plain

CHEXPERT_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""The findings of the CheXpert labeller (Irvin et al. 2019, arXiv 1901.07031), in MIMIC-CXR-JPG's order."""

NIH_FINDINGS = ("Emphysema", "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural Thickening")
"""What ChestX-ray14 (Wang et al. 2017, arXiv 1705.02315) names beyond CheXpert's list."""

VINDR_FINDINGS = (
    "Aortic Enlargement",
    "COPD",
    "Calcification",
    "Clavicle Fracture",
    "Enlarged PA",
    "ILD",
    "Lung Cavity",
    "Lung Cyst",
    "Lung Tumor",
    "Mediastinal Shift",
    "Nodule/Mass",
    "Other Diseases",
    "Other Lesion",
    "Rib Fracture",
    "Tuberculosis",
)
"""What VinDr-CXR (Nguyen et al. 2022, doi 10.1038/s41597-022-01498-w) names beyond both. Its `Nodule/Mass` is either of
two findings of ChestX-ray14, so it is neither, and keeps its own name."""

_SYNONYMS = {
    "Airspace Opacity": "Lung Opacity",  # the radiologists' file of MIMIC-CXR-JPG 2.1.0
    "Effusion": "Pleural Effusion",  # ChestX-ray14
    "Infiltrate": "Infiltration",  # its table of boxes, and OpenI
    "No Findings": "No Finding",
    "Normal": "No Finding",  # PadChest, OpenI
    "Other Disease": "Other Diseases",  # the test table of VinDr-CXR
    "Interstitial Lung Disease": "ILD",
    "Pulmonary Fibrosis": "Fibrosis",  # VinDr-CXR, PadChest, OpenI
    "Pulmonary Edema": "Edema",  # PadChest, OpenI
    "Infiltrates": "Infiltration",  # PadChest, as the next four
    "Hiatal Hernia": "Hernia",
    "Pulmonary Mass": "Mass",
    "Pulmonary Artery Enlargement": "Enlarged PA",
    "Cavitation": "Lung Cavity",
    "Pulmonary Atelectasis": "Atelectasis",  # OpenI, as the next three: terms of MeSH
    "Pulmonary Emphysema": "Emphysema",
    "Fractures, Bone": "Fracture",
    "Hernia, Hiatal": "Hernia",
}
"""Other names of one and the same finding; docs/labels.md has the whole table, and what only resembles it."""

_VOCABULARY = {plain(name): name for name in CHEXPERT_FINDINGS + NIH_FINDINGS + VINDR_FINDINGS}
_VOCABULARY |= {plain(synonym): name for synonym, name in _SYNONYMS.items()}


def canonical(finding: str) -> str:
    """The one name of a finding, whatever its collection calls it; an unknown one keeps its words.

    >>> canonical("Effusion"), canonical("pleural_thickening"), canonical("Airspace Opacity")
    ('Pleural Effusion', 'Pleural Thickening', 'Lung Opacity')
    >>> canonical("covid_19")
    'Covid 19'
    """
    words = finding.replace("_", " ").split()
    return _VOCABULARY.get(plain(finding)) or " ".join(word[:1].upper() + word[1:] for word in words)


def shared_findings(a: Iterable[str], b: Iterable[str]) -> tuple[str, ...]:
    """The findings both name, in the order of the first.

    >>> shared_findings(["Atelectasis", "Edema", "Pleural Effusion"], ["Effusion", "Mass", "atelectasis"])
    ('Atelectasis', 'Pleural Effusion')
    """
    other = {canonical(finding) for finding in b}
    return tuple(name for name in map(canonical, a) if name in other)


Uncertain = Literal["zeros", "ones", "ignore", "smooth"]
Blank = Literal["zeros", "ignore"]

_MEANING = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan, "smooth": 0.7}
# 0.7 is the middle of the range [0.55, 0.85] that Pham et al. 2021 (arXiv 1911.06475) draw from for U-Ones.


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a label of -1 (uncertain) and a blank one (not mentioned) count as.

    `zeros`: absent, `ones`: present, `ignore`: left out for that image, `smooth`: a target of 0.7. The
    default is the published one: both count as absent.

    Attributes:
        uncertain: what -1 counts as (zeros, ones, ignore or smooth).
        blank: what a blank counts as (zeros or ignore).
        per_finding: other words than `uncertain` for single findings.
    """

    uncertain: Uncertain = "zeros"
    blank: Blank = "zeros"
    per_finding: Mapping[str, Uncertain] = field(default_factory=dict)

    def uncertain_values(self, findings: Sequence[str]) -> Float32[np.ndarray, "C"]:
        """What -1 becomes, per finding."""
        special = {canonical(finding): word for finding, word in self.per_finding.items()}
        words = [special.get(canonical(finding), self.uncertain) for finding in findings]
        return np.array([_MEANING[word] for word in words], dtype=np.float32)


def apply_policy(raw: Float[np.ndarray, "N C"], findings: Sequence[str], policy: Policy) -> Float32[np.ndarray, "N C"]:
    """Training targets in [0, 1] from raw labels (1, 0, -1, NaN for blank); NaN marks what is left out.

    >>> raw = np.array([[1, -1], [np.nan, 0]])
    >>> apply_policy(raw, ["Edema", "Mass"], Policy(blank="ignore", per_finding={"Mass": "ones"})).tolist()
    [[1.0, 1.0], [nan, 0.0]]
    """
    targets = np.where(raw == -1, policy.uncertain_values(findings), raw)
    targets = np.where(np.isnan(raw), _MEANING[policy.blank], targets)
    return targets.astype(np.float32)


VALUES = {"1": 1.0, "0": 0.0, "-1": -1.0, "blank": np.nan}


def count_values(raw: Float[np.ndarray, "N C"], findings: Sequence[str], splits: Sequence[str]) -> pd.DataFrame:
    """How many images have which raw value: one row per finding and split, one column per value.

    >>> count_values(np.array([[1.0], [np.nan]]), ["Edema"], ["train", "train"]).loc[("Edema", "train")].tolist()
    [1, 0, 0, 1]
    """
    counts = {
        (finding, split): [
            int(np.isnan(of_split).sum() if np.isnan(value) else (of_split == value).sum()) for value in VALUES.values()
        ]
        for split in dict.fromkeys(splits)
        for finding, of_split in zip(findings, raw[np.array(splits) == split].T, strict=True)
    }
    index = pd.MultiIndex.from_tuples(counts, names=["finding", "split"])
    return pd.DataFrame(list(counts.values()), index=index, columns=list(VALUES))
