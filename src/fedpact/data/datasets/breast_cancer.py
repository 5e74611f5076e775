"""Breast cancer: 569 fine-needle aspirates, spread over four hospitals that see different patients."""

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DependencyError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.datasets.about import About
from fedpact.data.federation import Federation
from fedpact.data.partition import federate

ABOUT = About(
    name="breast_cancer",
    clients=4,
    rows=569,
    task="classification, 2 classes, from 30 measurements",
    source=(
        "Breast Cancer Wisconsin (Diagnostic), W. Wolberg, N. Street and O. Mangasarian, 1995, "
        "UCI Machine Learning Repository, doi 10.24432/C5DW2B; the copy in scikit-learn"
    ),
    terms="CC BY 4.0",
    download_bytes=0,
)

# Hospital → how many patients it draws, and how that changes with the size of the tumour: the weight of
# hospital h for a tumour of radius r is intake_h · exp(pull_h · z), z = (r - 13) / 3, near the data's
# median and quartiles.
_HOSPITALS = {
    "Northgate Cancer Centre": (0.6, 1.2),
    "Harbour Screening Clinic": (0.6, -1.2),
    "Eastfield General": (1.0, 0.0),
    "Westbrook General": (0.6, 0.0),
}


def breast_cancer(seed: int = 0, test: float = 0.25) -> Federation:
    """Load the breast-cancer data of Wisconsin as four hospitals, offline.

    The rows are real, the hospitals are simulated: a referral centre that sees mostly large, late tumours,
    a screening clinic that sees mostly small ones, and two general hospitals that see all sizes, one larger
    than the other. Each row goes to a hospital with probabilities that depend on its "mean radius".

    Features: 30 measurements of the cell nuclei in an image of the aspirate (mean, standard error and worst
    of radius, texture, perimeter, …), float64, as a DataFrame. Label: 1 malignant (212 rows), 0 benign
    (357); scikit-learn codes them the other way round.

    Source: Wolberg, Street and Mangasarian, UCI Machine Learning Repository, 1995; the copy in scikit-learn.
    Terms: CC BY 4.0.

    Args:
        seed: draws each row's hospital, and the test rows.
        test: the share of each hospital's rows that become its test rows; 0 for none.

    Raises:
        DependencyError: scikit-learn is not installed.
        ConfigError: a share that is none.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise DependencyError(
            "The breast_cancer data come with scikit-learn: install scikit-learn."
        ) from error
    bunch = load_breast_cancer(as_frame=True)
    rows = Rows(bunch.data, 1 - bunch.target.to_numpy())
    hospital = _hospitals(bunch.data["mean radius"].to_numpy(), Seed.of(seed).child("breast_cancer"))
    return federate(
        rows,
        {id: np.flatnonzero(hospital == number) for number, id in enumerate(_HOSPITALS)},
        test=test,
        seed=seed,
        name=ABOUT.name,
        source=ABOUT.source,
        terms=ABOUT.terms,
        note="Real rows, simulated hospitals: drawn by tumour size (mean radius).",
        label="1 malignant, 0 benign",
        reads={"name": ABOUT.name},
    )


def _hospitals(radius: NDArray[np.float64], seed: Seed) -> NDArray[np.intp]:
    intake, pull = np.array(list(_HOSPITALS.values())).T
    weights = intake * np.exp(pull * (radius[:, None] - 13) / 3)
    up_to = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    drawn = seed.generator().random(len(radius))
    # The last bound is 1 but for rounding, and is left out so that a draw above it has a hospital too.
    hospital: NDArray[np.intp] = np.sum(drawn[:, None] > up_to[:, :-1], axis=1)
    return hospital
