"""Write which stages may stand behind which into the documentation: `python scripts/channel_rules.py`.

The tables stand between two comments in docs/guide/channel.md and docs/zh/guide/channel.md, and are made from the rules
that a channel is checked by.
"""

from pathlib import Path

from fedpact.channel import TRANSFORMS
from fedpact.channel.rules import KINDS, refusal
from fedpact.channel.transform import Kind

ROOT = Path(__file__).parents[1]
START, END = "<!-- scripts/channel_rules.py writes this -->", "<!-- and up to here -->"
PAGES = {
    ROOT / "docs" / "guide" / "channel.md": ("first ↓, behind it →", "stages"),
    ROOT / "docs" / "zh" / "guide" / "channel.md": ("前 ↓，后 →", "阶段"),
}
# Of each kind one that stands for all of them in a sentence.
ONE_OF: dict[Kind, str] = {
    "clip": "Clip",
    "compress": "RandomK",
    "pack": "TopK",
    "quantize": "Quantize",
    "noise": "GaussianNoise",
    "mask": "SecureSum",
    "download": "SendQuantized",
}


def tables(corner: str, stages: str) -> str:
    """Return the table of kinds and stages, the matrix of legal pairs, and why the others are refused, as Markdown."""
    kinds = {kind: [name for name in TRANSFORMS if TRANSFORMS.load(name).kind == kind] for kind in KINDS}
    lines = [f"| | {stages} |", "|---|---|"]
    lines += [f"| {kind} | {', '.join(f'`{name}`' for name in names)} |" for kind, names in kinds.items()]
    lines += ["", f"| {corner} | {' | '.join(KINDS)} |", "|---|" + ":---:|" * len(KINDS)]
    reasons: list[str] = []
    for first in KINDS:
        cells = []
        for second in KINDS:
            why = refusal(first, second)
            if why is not None:
                a, b = f"`{ONE_OF[first]}`", f"`{ONE_OF[second]}`"
                reasons.append(f"{b} behind {a}: {why.format(a=a, b=b)}.")
            cells.append("✓" if why is None else f"({len(reasons)})")
        lines.append(f"| {first} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))])


def rewritten(page: Path) -> str:
    """Return a page with the tables of today."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n\n{tables(*PAGES[page])}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page), encoding="utf-8")
