"""Who comes to be radiographed: bodies, courses of disease, studies, reports. Everything is a function of keys."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chexmsn.core.draws import key_of

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
DRAWN = tuple(finding for finding in FINDINGS if finding != "No Finding")

Streams = Callable[..., np.random.Generator]


def streams(*root: str | int) -> Streams:
    """Independent generators by name, the same in any order and process."""
    return lambda *names: np.random.default_rng(key_of("phantom", *root, *names) % 2**64)


@dataclass(frozen=True)
class Body:
    """A patient's build; lengths in mm, the rest relative numbers."""

    sex: str
    age: float
    fat: float
    half_width: float
    lung_height: float
    cavity_depth: float
    depth: float
    wall: float
    breast: float
    heart: float
    aging: float
    mineral: float
    scoliosis: float
    rib_step: float
    rib_slope: float
    dome_gap: float
    dome_curve: float
    lung_density: float
    vessels: float


def body_of(seed: int, patient: int) -> Body:
    """The body of a patient."""
    rng = streams(seed, patient)("body")
    sex = "F" if rng.random() < 0.48 else "M"
    age = float(np.clip(rng.normal(61, 17), 18, 91).round())
    aging = float(np.clip((age - 45) / 40, 0, 1))
    fat = float(rng.beta(2.0, 2.8))
    small = 0.92 if sex == "F" else 1.0
    depth = (196 + 75 * fat) * small
    return Body(
        sex=sex,
        age=age,
        fat=fat,
        half_width=float(rng.normal(134, 6)) * small,
        lung_height=float(rng.normal(216, 13)) * small * (1 - 0.06 * fat),
        cavity_depth=float(rng.normal(158, 7)) * small,
        depth=depth,
        wall=10 + 26 * fat + float(rng.uniform(0, 5)),
        breast=float(rng.uniform(0.3, 1.0) * (0.5 + fat)) if sex == "F" else 0.0,
        heart=float(rng.normal(0.93, 0.05)) + 0.05 * aging,
        aging=aging,
        mineral=float(rng.uniform(0.85, 1.15)) * (1 - 0.25 * aging),
        scoliosis=float(rng.normal(0, 2.0 + 2.5 * aging)),
        rib_step=float(rng.normal(21.5, 0.8)) * small,
        rib_slope=float(rng.normal(1.0, 0.08)),
        dome_gap=float(rng.normal(10, 4)),
        dome_curve=float(rng.uniform(0.8, 1.15)),
        lung_density=float(rng.normal(1.0, 0.07)),
        vessels=float(rng.normal(1.0, 0.08)),
    )


@dataclass(frozen=True)
class Fracture:
    """Broken ribs (numbers from the top), and perhaps the clavicle of that side."""

    side: int
    ribs: tuple[int, ...]
    clavicle: bool
    where: float  # angle round the chest in radians, 0 at the spine
    step: float  # displacement in mm


@dataclass(frozen=True)
class Visit:
    """A study: what the patient has that day (severity 0 absent, 1 florid), and the views taken."""

    patient: int
    number: int
    severities: dict[str, float]
    sides: dict[str, int]
    views: tuple[str, ...]
    age: float

    @property
    def bedside(self) -> bool:
        """Taken lying or sitting in bed, from front to back."""
        return self.views[0] == "AP"

    def severity(self, finding: str) -> float:
        """How marked a finding is: 0 absent, up to 1."""
        return self.severities.get(finding, 0.0)


SPLITS = ("train", "test", "validate", "train", "train", "test", "train", "train", "train", "train")
"""Patients are independent draws, so any fixed pattern is a random split: 70/10/20, all there from three patients."""

HEALTHY = 5
"""Every deck of patients holds one patient led by each of the 13 findings and this many healthy ones."""

# How often a sick patient has each finding besides the leading one. Rare findings (Fracture, Lung Lesion, Pleural
# Other, Pneumothorax, Enlarged Cardiomediastinum) are several times as common as in a hospital, for a few hundred
# patients must do.
ALSO = {
    "Atelectasis": 0.13, "Cardiomegaly": 0.13, "Consolidation": 0.05, "Edema": 0.08, "Enlarged Cardiomediastinum": 0.06,
    "Fracture": 0.08, "Lung Lesion": 0.06, "Lung Opacity": 0.04, "Pleural Effusion": 0.16, "Pleural Other": 0.07,
    "Pneumonia": 0.06, "Pneumothorax": 0.05, "Support Devices": 0.25,
}  # fmt: skip
TOGETHER = {
    "Edema": {"Cardiomegaly": 3.0, "Pleural Effusion": 3.0},
    "Cardiomegaly": {"Edema": 2.0, "Pleural Effusion": 1.7},
    "Pneumothorax": {"Support Devices": 1.7, "Fracture": 2.0},
    "Pleural Effusion": {"Atelectasis": 2.0},
}
LASTING = {"Fracture", "Lung Lesion", "Pleural Other", "Cardiomegaly", "Enlarged Cardiomediastinum"}
FAINT = 0.25
"""Below this severity a finding is subtle: readers hedge (-1), overlook it or mention it."""


def leading(seed: int, patient: int) -> str | None:
    """The finding a patient is here for (None: healthy), dealt from decks so that every split meets every finding."""
    split, block, place = SPLITS[patient % 10], patient // 10, patient % 10
    rank = block * SPLITS.count(split) + SPLITS[:place].count(split)
    deck, card = divmod(rank, len(DRAWN) + HEALTHY)
    order = streams(seed)("deck", split, deck).permutation(len(DRAWN) + HEALTHY)
    return DRAWN[order[card]] if order[card] < len(DRAWN) else None


def course(seed: int, patient: int) -> list[Visit]:
    """The studies of a patient in order: findings persist, change, heal and appear."""
    rng, lead, body = streams(seed, patient)("course"), leading(seed, patient), body_of(seed, patient)
    sides = {finding: int(rng.choice([-1, 1])) for finding in DRAWN}
    state, visits = _onset(lead, rng), []
    for number in range(1 + min(int(rng.geometric(0.55)) - 1, 3)):
        state = state if number == 0 else _progress(state, rng, sick=lead is not None)
        visits.append(Visit(patient, number, state, sides, _views(state, rng), body.age + number // 2))
    return visits


def _onset(lead: str | None, rng: np.random.Generator) -> dict[str, float]:
    state = {}
    for finding, rate in ALSO.items():
        chance, severity, subtle = rng.random(), rng.uniform(0.35, 1.0), rng.uniform(0.06, 0.18)
        rate *= TOGETHER.get(lead or "", {}).get(finding, 1.0)
        if finding == lead:
            state[finding] = max(severity, 0.5)
        elif lead is not None and chance < rate:
            state[finding] = severity
        elif chance < 1.4 * rate:
            state[finding] = subtle
    return state


def _progress(state: dict[str, float], rng: np.random.Generator, *, sick: bool) -> dict[str, float]:
    after = {}
    for finding, rate in ALSO.items():
        stays, change, new, fresh = rng.random(), rng.uniform(0.7, 1.25), rng.random(), rng.uniform(0.35, 1.0)
        if finding in state and stays < (0.95 if finding in LASTING else 0.7):
            after[finding] = float(np.clip(state[finding] * change, 0.05, 1.0))
        elif finding not in state and sick and new < 0.4 * rate:
            after[finding] = fresh
    return after


def _views(state: dict[str, float], rng: np.random.Generator) -> tuple[str, ...]:
    acute = {"Support Devices", "Edema", "Pneumothorax"} & state.keys()
    bedside, extra = rng.random() < (0.60 if acute else 0.25), rng.random()
    if bedside:
        return ("AP", "AP") if extra < 0.1 else ("AP",)
    return ("PA", "LATERAL") if extra < 0.45 else ("PA",)


# How often an absent finding is denied in the report (0); otherwise it is not mentioned (blank).
DENIED = {
    "Atelectasis": 0.05, "Cardiomegaly": 0.25, "Consolidation": 0.30, "Edema": 0.25, "Enlarged Cardiomediastinum": 0.08,
    "Fracture": 0.06, "Lung Lesion": 0.04, "Lung Opacity": 0.05, "Pleural Effusion": 0.40, "Pleural Other": 0.01,
    "Pneumonia": 0.20, "Pneumothorax": 0.40, "Support Devices": 0.02,
}  # fmt: skip
OPACITIES = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")


def report(seed: int, visit: Visit) -> dict[str, float]:
    """What a reader says of a study: 1 present, 0 denied, -1 uncertain, NaN not mentioned.

    No Finding is 1 when nothing but Support Devices is present or uncertain, and blank otherwise, as
    CheXpert's labeller has it. Lung Opacity, the umbrella, is never denied beside one of its kinds.
    """
    rng = streams(seed, visit.patient)("report", visit.number)
    said = {finding: _said(visit.severity(finding), DENIED[finding], rng.random()) for finding in DRAWN}
    umbrella, hedge = rng.random() < 0.85, rng.random() < 0.3
    if said["Lung Opacity"] != 1 and any(said[finding] == 1 for finding in OPACITIES):
        said["Lung Opacity"] = 1.0 if umbrella else np.nan
    if said["Consolidation"] == 1 and said["Pneumonia"] != 1 and hedge:
        said["Pneumonia"] = -1.0  # the same shadow, if it is infected
    if said["Cardiomegaly"] == 1 and said["Enlarged Cardiomediastinum"] == 0:
        said["Enlarged Cardiomediastinum"] = np.nan
    clear = not any(said[finding] in (1, -1) for finding in DRAWN if finding != "Support Devices")
    return {finding: said.get(finding, 1.0 if clear else np.nan) for finding in FINDINGS}


def _said(severity: float, denied: float, chance: float) -> float:
    if severity >= FAINT:
        return 1.0 if severity >= 0.4 or chance < 0.9 else -1.0
    if severity > 0:
        return -1.0 if chance < 0.6 else 1.0 if chance < 0.75 else np.nan
    return 0.0 if chance < denied else -1.0 if chance > 0.985 else np.nan


def fracture_of(visit: Visit, rng: np.random.Generator) -> Fracture | None:
    """What is broken: a row of ribs, in a third of the patients the clavicle too."""
    severity = visit.severity("Fracture")
    clavicle, first, where = bool(rng.random() < 0.35), int(rng.integers(3, 5)), rng.uniform(0.6, 1.0)
    if not severity:
        return None
    ribs = tuple(range(first, first + (6 if severity > 0.5 else 4)))
    return Fracture(visit.sides["Fracture"], ribs, clavicle, where, 11 + 7 * severity)
