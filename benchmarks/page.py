"""Figures → tables on the terminal, and the page `docs/benchmarks.md` with its charts.

`python -m benchmarks.page` makes the page again from the stored figures. In: results, each with its part, label, loop,
client and rounds. Out: text, Markdown, SVG. Never touched: measuring.
"""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .clients import CLIENTS
from .parts import BARS, PARTS, Bar, Part

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
FOLDER = DOCS / "benchmarks"
FIGURES = FOLDER / "figures.json"
BASES = ("plain", "tuned")
IMPORT = Part("What an import costs, cold", "ms beyond a bare interpreter", {}, columns={"modules": "modules"})
WIRE = Part(
    "The decoders by themselves",
    "µs per chunk",
    {},
    columns={"rate": "MB/s", "instructions": "instructions per chunk"},
    note="The same stream of 2,000 chunks, without the network, in pieces of several sizes. `split and orjson` is "
    "right for this stream only: it knows no comments, no other line ends, no errors, no tool calls.",
)
INSTRUCTIONS = Part(
    "Instructions, counted",
    "instructions per request, chunk or prompt",
    {},
    note="Times differ with what the machine's neighbours do to its caches, instructions hardly do. They tell how much "
    "work there is, and nothing of what the system does for it, nor of how far the work lies apart in memory.",
)
OTHERS = {"import": IMPORT, "wire": WIRE, "instructions": INSTRUCTIONS}
Results = list[dict[str, Any]]


def median(result: dict[str, Any], figure: str = "cost") -> float:
    """A figure's median over the rounds."""
    values: list[float] = [row[figure] for row in result["rounds"]]
    return statistics.median(values)


def ratio(one: dict[str, Any], other: dict[str, Any], figure: str = "cost") -> float:
    """The median of the ratios of each round."""
    pairs = zip(one["rounds"], other["rounds"], strict=True)
    ratios: list[float] = [a[figure] / b[figure] for a, b in pairs if b[figure]]
    return statistics.median(ratios)


def number(value: float) -> str:
    """The value with about three digits."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _spread(result: dict[str, Any]) -> str:
    values = [row["cost"] for row in result["rounds"]]
    return f"{number(min(values))} – {number(max(values))}"


def rows(results: Results, part: Part) -> Iterable[list[str]]:
    """The rows of a table, its heading first."""
    bases = [base for base in BASES if any(result["client"] == base for result in results)]
    with_peak = any("peak" in row for result in results for row in result["rounds"])
    further = {name: title for name, title in part.columns.items() if any(name in r["rounds"][0] for r in results)}
    peak = ["peak, MB"] if with_peak else []
    yield ["", "loop", "client", part.unit, "spread", *(f"× {base}" for base in bases), *further.values(), *peak]
    for result in results:
        others = {other["client"]: other for other in results if _beside(other) == _beside(result)}
        yield [
            result["label"],
            result["loop"],
            result["client"],
            number(median(result)),
            _spread(result),
            *(number(ratio(result, others[base])) if base in others else "" for base in bases),
            *(number(median(result, name)) for name in further),
            *([number(median(result, "peak"))] if with_peak else []),
        ]


def _beside(result: dict[str, Any]) -> tuple[str, str]:
    return result["label"], result["loop"]


def show(results: Results, part: Part | None = None) -> None:
    """Print a table."""
    part = part or OTHERS[results[0]["part"]]
    _print(f"{results[0]['part']}: {part.title}, {part.unit}", list(rows(results, part)))


def _print(title: str, table: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def judged(results: Results) -> Iterable[tuple[Bar, str, float, bool]]:
    """Each bar on each loop: the value, and whether the bar is met. Bars that were not measured are left out."""
    found = {(r["part"], r["label"], r["loop"], r["client"]): r for r in results}
    for bar in BARS:
        for loop in sorted({r["loop"] for r in _of(results, bar.part)}):
            one = found.get((bar.part, bar.label, loop, bar.of))
            place = (bar.part, bar.over_label or bar.label, loop)
            others = [found[(*place, client)] for client in bar.over if (*place, client) in found]
            if one is None or (bar.over and not others):
                continue
            value = median(one, bar.figure)
            if others:
                value = max(ratio(one, other, bar.figure) for other in others)
            met = value <= bar.most if bar.most is not None else value >= (bar.least or 0)
            yield bar, loop, value, met


def bar_rows(results: Results) -> Iterable[list[str]]:
    """The rows of the table of bars."""
    yield ["part", "", "loop", "ratio", "bar", "measured", ""]
    for bar, loop, value, met in judged(results):
        over = " or ".join(bar.over)
        if bar.over_label:
            over = f"{over} ({bar.over_label})"
        unit = {**PARTS, **OTHERS}[bar.part].unit
        figure = {"cost": "" if bar.over else f"{unit}, ", "share": "share of the possible, ", "lag_p99": "lag p99, "}
        wanted = f"≥ {bar.least:g}" if bar.most is None else f"≤ {number(bar.most)}"
        said = number(value)
        if not met and said == number(bar.most or bar.least or 0):  # rounded, a missed bar would look like a met one
            said = f"{value:.3f}"
        if bar.most is not None and bar.most <= 0.5 and bar.over:  # easier to read the other way round
            wanted, said = f"≥ {1 / bar.most:.0f} × less", f"{1 / value:.1f} × less"
        ratio_of = figure[bar.figure] + (f"{bar.of} / {over}" if bar.over else bar.of)
        yield [bar.part, bar.label, loop, ratio_of, wanted, said, "met" if met else "**missed**"]


def show_bars(results: Results) -> None:
    """Print the table of bars."""
    table = list(bar_rows(results))
    if len(table) > 1:
        _print("bars", table)


def _markdown(table: Iterable[list[str]]) -> str:
    heading, *lines = table
    rule = ["---"] * len(heading)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heading, rule, *lines))


def render(found: dict[str, Any]) -> str:
    """The page."""
    results: Results = found["results"]
    sections = []
    for name, part in _measured(results).items():
        note = f"\n{textwrap.fill(part.note, 120)}\n" if part.note else ""
        picture = f"![{part.title}](benchmarks/{name}.svg)"
        table = _markdown(rows(_of(results, name), part))
        sections.append(f"## {name}: {part.title}\n{note}\n{picture}\n\n{table}")
    machine = found["machine"]
    return (
        (Path(__file__).parent / "page.md")
        .read_text()
        .format(
            clients="".join(f"| `{name}` | {_what(client)} |\n" for name, client in CLIENTS.items()),
            bars=_markdown(bar_rows(results)),
            sections="\n".join(sections),
            versions=textwrap.fill(", ".join(map(" ".join, machine["versions"].items())), 116, subsequent_indent="  "),
            rounds=found["rounds"],
            **{name: machine[name] for name in ("when", "processor", "cores", "system", "python", "commit")},
        )
    )


def write(found: dict[str, Any]) -> None:
    """Write the page, its charts, and the figures from which they are made."""
    FOLDER.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    for name, part in _measured(found["results"]).items():
        _chart(FOLDER / f"{name}.svg", _of(found["results"], name), part)
    PAGE.write_text(render(found))


def _of(results: Results, part: str) -> Results:
    return [result for result in results if result["part"] == part]


def _measured(results: Results) -> dict[str, Part]:
    return {name: part for name, part in {**PARTS, **OTHERS}.items() if _of(results, name)}


def _what(client: type) -> str:
    return (client.__doc__ or "").partition("\n")[0].rstrip(".")


def _chart(path: Path, results: Results, part: Part) -> None:
    """Draw bars for each label, on the first loop only; the whiskers show the spread."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures make the same file
    from matplotlib import pyplot

    loop = results[0]["loop"]
    labels = list(dict.fromkeys(result["label"] for result in results))
    figure, axes = pyplot.subplots(len(labels), 1, squeeze=False, figsize=(8, 0.6 + sum(_heights(results, loop))))
    for label, axis in zip(labels, axes[:, 0], strict=True):
        own = [result for result in results if result["label"] == label and result["loop"] == loop][::-1]
        values = [median(result) for result in own]
        lows = [value - min(r["cost"] for r in result["rounds"]) for value, result in zip(values, own, strict=True)]
        highs = [max(r["cost"] for r in result["rounds"]) - value for value, result in zip(values, own, strict=True)]
        colours = ["#c2410c" if result["client"].startswith("ours") else "#94a3b8" for result in own]
        names = [result["client"] for result in own]
        drawn = axis.barh(range(len(own)), values, color=colours, xerr=[lows, highs], ecolor="#475569")
        axis.set_yticks(range(len(own)), names)
        axis.bar_label(drawn, [f" {number(value)}" for value in values], label_type="center", fontsize=8)
        if min(values) > 0 and max(values) > 20 * min(values):
            axis.set_xscale("log")
            label += ", on a logarithmic scale"
        axis.set_title(f"{loop}{', ' if loop else ''}{label}", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(part.unit)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _heights(results: Results, loop: str) -> list[float]:
    labels = dict.fromkeys(result["label"] for result in results)
    return [0.7 + 0.3 * sum(r["label"] == label and r["loop"] == loop for r in results) for label in labels]


if __name__ == "__main__":
    write(json.loads(FIGURES.read_text()))
