"""One HTML page that needs nothing but itself: on a screen, light or dark, large or small, and on paper."""

from collections.abc import Iterable, Sequence
from html import escape

# Okabe and Ito's palette, safe for the colour-blind; each colour a little darker on white, lighter on black.
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b2127; --quiet: #5d6874; --line: #e3e7eb; --soft: #f5f7f8;
  --c1: #0069a8; --c2: #c65200; --c3: #00805e; --c4: #a8588a; --c5: #b07d00; --c6: #2f8fc4; --cmuted: #98a2ac; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e6eaee; --quiet: #9aa6b1;
  --line: #2b333b; --soft: #1b2126; --c1: #5ab4ea; --c2: #f08a3c; --c3: #2fc298; --c4: #dc94c0; --c5: #e6b432;
  --c6: #9ad2f2; --cmuted: #6d7883; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif;
  -webkit-text-size-adjust: 100%; }
header p.kind { margin: 0; color: var(--quiet); font-size: .875rem; letter-spacing: .02em; }
h1 { margin: .1rem 0 .6rem; font-size: 1.9rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { margin: 2.8rem 0 .5rem; font-size: 1.2rem; font-weight: 650; letter-spacing: -.005em; }
p { margin: .4rem 0 .8rem; max-width: 44rem; }
p.verdict { font-size: 1.12rem; line-height: 1.5; max-width: 46rem; }
p.quiet, li.quiet, .quiet { color: var(--quiet); }
dl.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 1.6rem 0 0;
  background: var(--line); border: 1px solid var(--line); }
dl.figures div { background: var(--paper); padding: .7rem .9rem; }
dl.figures dt { color: var(--quiet); font-size: .8125rem; }
dl.figures dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem 2rem; }
figure { margin: .6rem 0 0; break-inside: avoid; }
figcaption { font-weight: 600; font-size: .9375rem; margin-bottom: .35rem; }
figcaption span { display: block; font-weight: 400; font-size: .875rem; color: var(--quiet); }
svg { display: block; width: 100%; height: auto; overflow: visible; font: 12px system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); } svg text.quiet { fill: var(--quiet); } svg text.strong { font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--cmuted); stroke-width: 1; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.ring { stroke: var(--paper); stroke-width: 1.5; } .faint { opacity: .38; }
.scroll { overflow-x: auto; margin: .6rem 0; }
.charts + .scroll { margin-top: 1.6rem; } .scroll + .charts { margin-top: 1.4rem; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { font-weight: 600; font-size: .8125rem; color: var(--quiet); border-bottom-color: var(--cmuted);
  vertical-align: bottom; }
th:first-child, td:first-child, th.text, td.text { text-align: left; white-space: normal; }
th { white-space: normal; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
tr.strong td { font-weight: 650; background: var(--soft); } tr { break-inside: avoid; }
td.text { overflow-wrap: break-word; min-width: 7rem; }
.bar { display: flex; align-items: center; justify-content: flex-end; gap: .6rem; }
.bar i { flex: 1; min-width: 3rem; max-width: 9rem; height: .5rem; background: var(--line); }
.bar span { min-width: 4.4em; }
.bar i b { display: block; height: 100%; background: var(--c1); }
td.text:last-child { min-width: 14rem; }
table.matrix { width: auto; } table.matrix td, table.matrix th { text-align: center; }
td.shade:last-child { padding-right: .7rem; }
td.shade { background: color-mix(in srgb, var(--c1) var(--p), var(--paper)); }
pre { background: var(--soft); border: 1px solid var(--line); padding: .9rem 1rem; overflow-x: auto;
  font: .8125rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
code { font: .875em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--quiet);
  font-size: .8125rem; }
@media (max-width: 34rem) { body { padding-top: 1.4rem; } h1 { font-size: 1.5rem; }
  dl.figures { grid-template-columns: 1fr 1fr; } }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } h2 { break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; } .scroll { overflow: visible; } pre { background: none; } }
"""
_STYLES = "".join(
    f".s{name} {{ stroke: var(--c{name}); }} .f{name} {{ fill: var(--c{name}); }} "
    f"svg text.t{name} {{ fill: var(--c{name}); }}\n"
    for name in (*range(1, 7), "muted")
)


def page(title: str, kind: str, body: Iterable[str], footer: str) -> str:
    """Return a whole page.

    Args:
        title: of the page; text.
        kind: what kind of page it is, in a few words above the title; text.
        body: its sections; HTML.
        footer: what stands at its foot; text.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Even text that escaped escaping could neither run nor fetch anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{_STYLES}</style>\n</head>\n<body>\n"
        f'<header><p class="kind">{escape(kind)}</p><h1>{escape(title)}</h1></header>\n'
        f"{chr(10).join(body)}\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a section; nothing if it has no parts."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a few numbers with their names, side by side."""
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="figures">{inside}</dl>'


def charts(*drawn: tuple[str, str, str] | None) -> str:
    """Return charts side by side: each a title, a sentence that says how to read it, and SVG."""
    inside = "".join(
        f"<figure><figcaption>{escape(title)}<span>{escape(text)}</span></figcaption>{svg}</figure>"
        for title, text, svg in filter(None, drawn)
    )
    return f'<div class="charts">{inside}</div>' if inside else ""


class Cell(str):
    """A table's cell that is HTML already."""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    text_columns: Iterable[int] = (0,),
    strong: Iterable[int] = (),
    kind: str = "",
) -> str:
    """Return a table.

    Args:
        head: the columns' names; text.
        rows: their cells: text, or a `Cell`.
        text_columns: the columns that are words, not numbers.
        strong: the rows to be seen first.
        kind: a class of the page.
    """
    words, bold = set(text_columns), set(strong)

    def mark(column: int) -> str:
        return ' class="text"' if column in words else ""

    top = "".join(f"<th{mark(column)}>{escape(name)}</th>" for column, name in enumerate(head))
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(
            cell if isinstance(cell, Cell) else f"<td{mark(column)}>{escape(cell)}</td>"
            for column, cell in enumerate(row)
        )
        lines.append(f"<tr{_class('strong' if place in bold else '')}>{cells}</tr>")
    return (
        f'<div class="scroll"><table{_class(kind)}><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def bar_cell(text: str, share: float) -> Cell:
    """Return a cell with a value and a bar whose length is a share from 0 to 1."""
    width = 100 * min(1.0, max(0.0, share))
    return Cell(
        f'<td><div class="bar"><i><b style="width:{width:.1f}%"></b></i><span>{escape(text)}</span></div></td>'
    )


def shaded_cell(text: str, share: float) -> Cell:
    """Return a cell whose ground is the darker the nearer a share is to 1."""
    return Cell(f'<td class="shade" style="--p:{60 * min(1.0, max(0.0, share)):.0f}%">{escape(text)}</td>')


def code(text: str) -> str:
    """Return text as it is typed."""
    return f"<pre>{escape(text)}</pre>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
