"""The style sheet of report.html: light, printable, wide and narrow."""

VERDICT_COLOURS = {"clean": "#2c6e4f", "backdoored": "#b3361a", "inconclusive": "#8a6a10"}

CSS = """
:root { color-scheme: light; --ink: #1f2a36; --soft: #56636f; --line: #dde3e9; --wash: #f5f7f9; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.5 "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main, header { max-width: 1240px; margin: 0 auto; padding: 0 28px; }
header { display: flex; flex-wrap: wrap; gap: 4px 24px; justify-content: space-between;
  padding-top: 22px; padding-bottom: 14px; font-size: 14px; color: var(--soft); }
header b { color: var(--ink); letter-spacing: .02em; }
.verdict { border: 1px solid var(--line); border-left: 8px solid var(--verdict);
  padding: 22px 28px 24px; }
.tag { color: var(--verdict); font-weight: 700; font-size: 13px; letter-spacing: .09em;
  text-transform: uppercase; }
h1 { font-size: 27px; line-height: 1.28; font-weight: 600; margin: 6px 0 12px; max-width: 34em; }
.verdict p { margin: 6px 0; max-width: 62em; }
.keys { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1px;
  margin: 20px 0 0; background: var(--line); border: 1px solid var(--line); }
.keys div { background: #fff; padding: 10px 14px; }
.keys dt { font-size: 13px; color: var(--soft); }
.keys dd { margin: 2px 0 0; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.keys small { display: block; font-size: 12.5px; font-weight: 400; color: var(--soft); }
.limits { background: var(--wash); padding: 16px 28px 18px; margin: 18px 0 0; }
.limits h2 { margin: 0 0 8px; border: 0; padding: 0; font-size: 17px; }
.limits ul { margin: 0; padding-left: 20px; columns: 2; column-gap: 44px; font-size: 14.5px; }
.limits li { break-inside: avoid; margin-bottom: 6px; }
.warnings { border-left: 4px solid #c9a227; padding: 8px 16px; margin: 18px 0 0; }
.warnings p { margin: 4px 0; overflow-wrap: anywhere; }
h2 { font-size: 20px; font-weight: 600; margin: 44px 0 10px; padding-top: 14px;
  border-top: 1px solid var(--line); break-after: avoid; }
h2 span { color: var(--soft); font-weight: 400; margin-right: 10px; }
h3 { font-size: 15.5px; margin: 26px 0 8px; break-after: avoid; }
section p { max-width: 62em; margin: 0 0 14px; }
.grid { display: grid; gap: 18px 22px; align-items: start; }
.panels { grid-template-columns: repeat(auto-fill, minmax(min(350px, 100%), 1fr)); }
.squares { grid-template-columns: repeat(auto-fill, minmax(min(260px, 46%), 1fr)); }
.faces { grid-template-columns: repeat(6, 1fr); gap: 14px; }
.beside { display: grid; grid-template-columns: 1fr 2fr; gap: 18px 34px; align-items: start; }
.beside p { margin: 0; }
figure { margin: 0; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: 13.5px; line-height: 1.4; color: var(--soft); margin-top: 4px;
  overflow-wrap: anywhere; }
.tables { columns: 2; column-gap: 44px; }
.tables .block { break-inside: avoid; display: inline-block; width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 400; color: var(--soft); width: 34%; }
td { overflow-wrap: anywhere; }
.list td { white-space: nowrap; overflow-wrap: normal; }
ul.plain { padding-left: 20px; max-width: 62em; font-size: 14.5px; }
footer { margin: 44px 0 36px; padding-top: 12px; border-top: 1px solid var(--line);
  font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
@media (max-width: 900px) {
  .faces { grid-template-columns: repeat(3, 1fr); }
  .keys { grid-template-columns: repeat(3, 1fr); }
  .beside { display: block; }
  .beside p { margin-bottom: 14px; }
  .tables, .limits ul { columns: 1; }
}
@media (max-width: 560px) {
  main, header { padding-left: 16px; padding-right: 16px; }
  h1 { font-size: 21px; }
  .verdict, .limits { padding: 16px 16px 18px; }
  .keys { grid-template-columns: 1fr 1fr; }
  .faces { grid-template-columns: repeat(2, 1fr); }
}
@media print {
  @page { size: A4; margin: 14mm; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main, header { max-width: none; padding-left: 0; padding-right: 0; }
  .panels { grid-template-columns: 1fr 1fr; }
  .faces { grid-template-columns: repeat(6, 1fr); gap: 6px; }
  .squares { grid-template-columns: repeat(4, 1fr); }
  .keys { grid-template-columns: repeat(3, 1fr); }
  .tables { columns: 1; }
  .tables .block { display: block; }
  section > p, .beside > p, h3 { break-after: avoid; }
  .verdict, .limits, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  h1 { font-size: 17pt; }
}
"""
