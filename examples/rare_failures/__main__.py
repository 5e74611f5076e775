"""Print the tables of docs/imbalance.md: what is found of rare failures, with each remedy and without."""

import numpy as np
from rare_failures import METRICS, MODELS, POOLED, REMEDIES, SHARE, measured


def main() -> None:
    """Print them, as Markdown."""
    for model in MODELS:
        print(f"| {model} | {' | '.join(METRICS)} |")
        print(f"|---|{'---:|' * len(METRICS)}")
        lines = [(label, label, False, 0.5) for label in REMEDIES]
        lines.insert(1, (f"nothing, at {SHARE}", "nothing", False, SHARE))
        lines += [(f"pooled: {label}", label, True, 0.5) for label in POOLED]
        for shown, label, pooled, threshold in lines:
            found = np.array(measured(model, REMEDIES[label], pooled, threshold))
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(found.mean(axis=0), found.std(axis=0), strict=True)]
            print(f"| {shown} | {' | '.join(cells)} |", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
