"""The models that Fedpact trains: regressions in numpy, naive Bayes, torch modules, scikit-learn estimators."""

from typing import Any

from fedpact.learn import MODELS


def __getattr__(name: str) -> Any:
    if name in MODELS:
        return MODELS.load(name)
    from fedpact.core.errors import suggest

    raise AttributeError(f'there is no model "{name}".{suggest(name, MODELS)} Known: {", ".join(MODELS)}.')


def __dir__() -> list[str]:
    return sorted(MODELS)
