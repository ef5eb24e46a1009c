"""index.html: everything to look at in one file that needs no other and no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluxvae.records.roundtrip import Metric, Picture
from fluxvae.report.figures import (
    AGAINST,
    DASH,
    MISSING,
    Against,
    Report,
    badness,
    number,
    on_front,
    shorten,
    size_words,
    with_unit,
)
from fluxvae.report.html import Entry, dump_page, sortable, themed
from fluxvae.report.roundtrip.ablation import attributions
from fluxvae.report.roundtrip.embed import LIMIT, Embedded, embed
from fluxvae.report.roundtrip.plot import plot_svg, title

CASES = 20  # rows of the table of cases before "show all"


def write_page(report: Report, path: Path, plot: str, limit: int = LIMIT) -> None:
    """Write the page to ``path``, with ``plot`` of ``plot_svg`` in it.

    ``limit`` in bytes bounds the embedded pictures.

    The same record and pictures give the same bytes. Raises ReportError when a picture is missing
    or damaged.
    """
    embedded, left_out = embed(report, limit)
    dump_page(
        path,
        "page.html",
        styles=("base.css", "page.css"),
        scripts=("tables.js", "page.js"),
        report=report,
        record=report.record,
        against=AGAINST,
        title=title(report),
        wide=themed(plot),
        narrow=themed(plot_svg(report, narrow=True)),
        view=viewer_data(report, embedded),
        embedded=embedded,
        sources=_sources(embedded),
        strip=_strip(report, embedded),
        undefined=tuple(report.undefined()),
        left_out=left_out,
        limit_words=size_words(limit),
        variants=_variant_rows(report),
        cases=_case_rows(report),
        first_cases=CASES,
        attributions=attributions(report),
        number=number,
        size_words=size_words,
        missing=MISSING,
    )


def viewer_data(report: Report, embedded: tuple[Embedded, ...]) -> dict[str, Any]:
    """What the script reads. Sides are the original, then the variants; the pictures' data are
    elsewhere in the page, under the ids given here."""
    variants = report.record.variants
    return {
        "gain": report.record.gain,
        "sides": ["original", *(v.label for v in variants)],
        "metrics": [{"label": m.label, "unit": m.unit, "better": m.better} for m in report.metrics],
        "pictures": [
            {
                "name": e.picture.name,
                "width": e.picture.width,
                "height": e.picture.height,
                "worst": _worst_side(report, e.picture),
                "crop": [e.picture.crop.left, e.picture.crop.top, e.picture.crop.side],
                "images": _ids("i", n, e.images),
                "flips": _ids("f", n, e.flips),
                **{against: _figures(report, e, against) for against in AGAINST},
            }
            for n, e in enumerate(embedded)
        ],
    }


def _worst_side(report: Report, picture: Picture) -> int:
    """The side to begin with: the variant that does worst on this picture."""
    main, labels = report.main, [v.label for v in report.record.variants]
    if main is None:
        return len(labels)
    found = [(badness(value, main), side) for side, label in enumerate(labels, start=1)
             if (value := report.value(picture.name, label, main, "loss")) is not None]  # fmt: skip
    return max(found, default=(0.0, len(labels)))[1]


def _ids(kind: str, picture: int, uris: tuple[str | None, ...]) -> list[str | None]:
    return [None if u is None else f"{kind}{picture}-{side}" for side, u in enumerate(uris)]


def _figures(report: Report, embedded: Embedded, against: Against) -> list[list[str]]:
    """By side and metric, as text; the original has none."""
    name = embedded.picture.name
    return [
        [MISSING] * len(report.metrics),
        *(
            [number(report.value(name, v.label, m, against), m) for m in report.metrics]
            for v in report.record.variants
        ),
    ]


def _sources(embedded: tuple[Embedded, ...]) -> Iterator[tuple[str, str]]:
    """Ids and data URIs, as ``viewer_data`` names them."""
    for n, e in enumerate(embedded):
        for kind, uris in (("i", e.images), ("f", e.flips)):
            for name, uri in zip(_ids(kind, n, uris), uris, strict=True):
                if name is not None and uri is not None:
                    yield name, uri


def _strip(report: Report, embedded: tuple[Embedded, ...]) -> list[tuple[str, str]]:
    """Names of embedded pictures, each with its worst main figure."""
    main = report.main
    if main is None:
        return [(e.picture.name, "") for e in embedded]
    found = []
    for e in embedded:
        values = [report.value(e.picture.name, v.label, main, "loss") for v in report.candidates]
        known = [v for v in values if v is not None]
        worst = max(known, key=lambda v: badness(v, main)) if known else None
        found.append((e.picture.name, with_unit(worst, main)))
    return found


def _variant_rows(report: Report) -> list[dict[str, Any]]:
    front = on_front(report)
    return [
        {
            "variant": v,
            "front": front.get(v.label, False),
            "bytes": Entry(size_words(v.bytes), None if v.bytes is None else str(v.bytes),
                          "" if v.fraction is None else f"{v.fraction:.1%} of fp16"),
            **{against: [_spread_cell(report, v.label, m, against) for m in report.metrics]
               for against in AGAINST},
            "worst": {against: _worst_cell(report, v.label, against) for against in AGAINST},
        }
        for v in report.record.variants
    ]  # fmt: skip


def _spread_cell(report: Report, label: str, metric: Metric, against: Against) -> Entry:
    spread = report.spread(label, metric, against)
    if spread is None:
        return Entry(MISSING, None)
    note = f"{number(spread.p10, metric)}{DASH}{number(spread.p90, metric)}"
    return Entry(number(spread.median, metric), sortable(spread.median), note)


def _worst_cell(report: Report, label: str, against: Against) -> Entry:
    main = report.main
    spread = None if main is None else report.spread(label, main, against)
    if main is None or spread is None:
        return Entry(MISSING, None)
    value = sortable(badness(spread.worst_value, main))
    return Entry(shorten(spread.worst, 60), value, with_unit(spread.worst_value, main))


def _case_rows(report: Report) -> list[dict[str, Any]]:
    indices = {v.label: n for n, v in enumerate(report.record.variants, start=1)}
    order = {p.name: n for n, p in enumerate(report.worst_first)}
    return [
        {
            "picture": picture.name,
            "index": order[picture.name],
            "variant": variant.label,
            "side": indices[variant.label],
            **{
                against: [
                    Entry(number(value, m), None if value is None else sortable(value))
                    for m in report.metrics
                    for value in [report.value(picture.name, variant.label, m, against)]
                ]
                for against in AGAINST
            },
        }
        for picture, variant in report.cases()
    ]
