"""The style sheet of the page."""

STYLE = """
.headline { display: flex; align-items: center; gap: 14px; font-size: 17px; }
.state { font-weight: 700; font-size: 20px; padding: 6px 16px; border-radius: 6px; white-space: nowrap; }
.status { overflow-wrap: anywhere; }
.small { color: #555; font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tile { border: 1px solid #d0d0d0; border-radius: 6px; padding: 6px 14px; min-width: 92px; background: #fff; }
.tile .name { color: #555; font-size: 13px; }
.tile .value { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile .unit { color: #777; font-size: 12px; min-height: 15px; }
.tile.bad .value { color: #b00000; }
.recipe { margin-top: 8px; font-size: 14px; }
.old { opacity: 0.45; }
h2 { font-size: 17px; font-weight: 600; margin: 0; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th { text-align: left; background: #f0f0f0; padding: 4px 10px; white-space: nowrap; }
td { border-top: 1px solid #e0e0e0; padding: 4px 10px; vertical-align: top; overflow-wrap: anywhere; }
table.failures td:nth-child(1), table.failures td:nth-child(4) { white-space: nowrap; }
table.failures td:nth-child(2) { min-width: 220px; }
table.runs td:not(:first-child), table.runs th:not(:first-child) { text-align: right; }
table.runs td { font-variant-numeric: tabular-nums; }
table.runs { width: auto; min-width: 60%; }
"""
