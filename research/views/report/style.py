"""The style of the page: one column on a phone, contents at the side on a laptop, and the same on paper."""

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5c6675; --line: #dfe4ea; --shade: #f5f7f9; --accent: #1f5fa8; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.layout { max-width: 1240px; margin: 0 auto; padding: 0 16px 48px; }
header h1 { font-size: 1.6rem; line-height: 1.25; margin: 24px 0 4px; overflow-wrap: anywhere; }
header p { margin: 0 0 12px; color: var(--soft); overflow-wrap: anywhere; max-width: none; }
nav { font-size: .9rem; border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; margin: 0 0 16px; }
nav strong { display: block; color: var(--soft); font-weight: 600; }
nav ul { list-style: none; margin: 0; padding: 0; columns: 2; }
nav li { break-inside: avoid; padding: 2px 0; }
nav li.sweep { font-weight: 600; margin-top: 6px; }
main { min-width: 0; }
section { border-top: 1px solid var(--line); padding: 8px 0 12px; scroll-margin-top: 8px; }
h2 { font-size: 1.2rem; margin: 12px 0 8px; } h3 { font-size: 1rem; margin: 16px 0 6px; }
p { margin: 8px 0; max-width: 76ch; }
.note { background: #fff8e6; border-left: 3px solid #d9a520; padding: 8px 12px; border-radius: 0 4px 4px 0; }
.scroll { overflow-x: auto; margin: 8px 0; border: 1px solid var(--line); border-radius: 6px; max-width: 100%;
  /* A shade at an edge behind which there is more. */
  background: linear-gradient(to right, #fff 30%, transparent) left / 40px 100% no-repeat local,
    linear-gradient(to left, #fff 30%, transparent) right / 40px 100% no-repeat local,
    linear-gradient(to right, #0003, transparent) left / 12px 100% no-repeat scroll,
    linear-gradient(to left, #0003, transparent) right / 12px 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th { border-bottom: 2px solid var(--line); font-weight: 600; vertical-align: bottom; }
th.number, td.number { text-align: right; }
td { white-space: nowrap; } td.text { white-space: normal; min-width: 360px; overflow-wrap: anywhere; }
data { cursor: help; }
.parameters { display: inline-block; min-width: 260px; white-space: normal; }
dl { display: grid; grid-template-columns: minmax(120px, 220px) 1fr; gap: 4px 16px; margin: 8px 0; font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.command { overflow-x: auto; background: var(--shade); border-radius: 6px; margin: 8px 0; max-width: 100%; }
.command pre { margin: 0; padding: 6px 12px; font-size: .82rem; color: #33475f; white-space: pre-wrap; }
.command pre, details pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--accent); }
details pre { overflow-x: auto; font-size: .8rem; background: var(--shade); padding: 8px 12px; border-radius: 6px; }
.chart { position: relative; overflow-x: auto; overflow-y: hidden; margin: 8px 0; max-width: 100%; }
.pictures { display: flex; gap: 16px; overflow-x: auto; padding-bottom: 6px; }
.pictures figure { margin: 0; flex: 0 0 auto; max-width: min(640px, 86vw); }
.pictures img { display: block; max-width: 100%; min-width: 200px; height: auto; border: 1px solid var(--line); }
.pictures figcaption { font-size: .85rem; color: var(--soft); }
footer { border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; padding-top: 8px; }
@media (min-width: 1100px) {
  .columns { display: grid; grid-template-columns: 200px minmax(0, 1fr); gap: 32px; }
  nav { position: sticky; top: 16px; align-self: start; max-height: calc(100vh - 32px); overflow-y: auto; }
  nav ul { columns: 1; }
}
@media (max-width: 480px) {
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 6px; }
}
@media print {
  nav { display: none; } .columns { display: block; } .layout { max-width: none; padding: 0; }
  .chart, .scroll, .command { overflow: hidden; } .pictures { overflow: visible; flex-wrap: wrap; }
  .chart > div { min-width: 0 !important; } .pictures figure { max-width: 30%; }
  td, td.text { white-space: normal; min-width: 0; } th, td { padding: 2px 4px; } table { font-size: 8px; }
  .parameters { min-width: 0; } .scroll { background: none; }
  .chart, figure, tr, .note { break-inside: avoid; } h2, h3 { break-after: avoid; }
  body { font-size: 11px; } .modebar { display: none; }
}
"""

# A chart takes the width of paper when it is printed, and that of the screen again afterwards.
SCRIPT = """
for (const when of ["beforeprint", "afterprint"])
  addEventListener(when, () => document.querySelectorAll(".js-plotly-plot").forEach(chart => Plotly.Plots.resize(chart)));
"""
