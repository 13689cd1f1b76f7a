"""The style sheet of the page."""

STYLE = """
.headline { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; font-size: 17px; }
.state { font-weight: 700; font-size: 20px; padding: 6px 16px; border-radius: 6px; white-space: nowrap; }
.status { flex: 1 1 300px; overflow-wrap: anywhere; }
.small { color: #555; font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tile { flex: 1 1 auto; border: 1px solid #d0d0d0; border-radius: 6px; padding: 6px 14px; min-width: 74px; }
.tile { background: #fff; }
.tile .name { color: #555; font-size: 13px; }
.tile .value { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile .unit { color: #777; font-size: 12px; min-height: 15px; }
.tile.bad .value { color: #b00000; }
.warning { margin-top: 4px; color: #b00000; font-weight: 600; overflow-wrap: anywhere; }
.recipe { margin-top: 8px; font-size: 14px; }
.old { opacity: 0.45; }
.title { overflow-wrap: anywhere; }
h2 { font-size: 17px; font-weight: 600; margin: 0; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th { text-align: left; background: #f0f0f0; padding: 4px 10px; white-space: nowrap; }
td { border-top: 1px solid #e0e0e0; padding: 4px 10px; vertical-align: top; overflow-wrap: anywhere; }
table.failures td:nth-child(1), table.failures td:nth-child(4), table.runs td { white-space: nowrap; }
table.failures td:nth-child(2) { min-width: 220px; }
table.runs td:not(:first-child), table.runs th:not(:first-child) { text-align: right; }
table.runs td { font-variant-numeric: tabular-nums; }
@media (max-width: 1000px) {
  thead { display: none; }
  table, tbody { display: block; }
  tr { display: block; border-top: 1px solid #e0e0e0; padding: 6px 0; }
  td { border: 0; padding: 1px 14px 1px 0; }
  table.failures td, table.corrections td { display: block; }
  table.runs td { display: inline-block; }
  table.runs td:first-child { display: block; font-weight: 600; }
  td:not(:first-child)::before { content: attr(data-name) " "; color: #777; }
}
"""

WIDEST = "720px"
"""The width of an image at the most, with its axis and colour bar."""


def filling(narrowest: int, widest: str = "none") -> dict[str, str]:
    """Return the style of one of several boxes in a row: as wide as there is room, or else a row of its own.

    `narrowest` is the width, in pixels, below which it does so.
    """
    return {"flex": f"1 1 {narrowest}px", "min-width": "0", "max-width": widest}
