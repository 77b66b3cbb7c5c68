/** The report's own style; uPlot's comes before it. Colours are named once, for light and for dark. */
export const reportStyle = `
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #16202c; --muted: #5f6c7b; --line: #e3e7ec; --grid: #eceff3;
  --loss: #2a6fdb; --eval: #d9590f; --rate: #7a4fd0; --norm: #b8860b; --speed: #0d8a6a; --good: #e9f6f1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10151b; --card: #18202a; --ink: #e6ebf1; --muted: #94a1b1; --line: #2a3542; --grid: #232d39;
    --loss: #6ea4f5; --eval: #ff9a57; --rate: #b195f5; --norm: #e3b94a; --speed: #4cc9a3; --good: #16302a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 56px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 36px 0 12px; }
h3 { font-size: 13px; margin: 0; font-weight: 600; color: var(--muted); }
.sub { color: var(--muted); margin: 4px 0 0; overflow-wrap: anywhere; }
h2 .sub { font-weight: 400; font-size: 14px; }
.note { border-left: 3px solid var(--eval); padding: 8px 14px; margin: 16px 0 0; background: var(--card); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px; min-width: 0; }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.columns { columns: 2 340px; column-gap: 14px; }
.columns > * { break-inside: avoid; margin-bottom: 14px; }
.tiles { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); margin-top: 24px; }
.tile b { display: block; font-size: 22px; line-height: 1.3; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile .from { color: var(--muted); font-weight: 400; font-size: 16px; }
.tile small { color: var(--muted); }
.chart { margin-top: 14px; }
.head { display: flex; justify-content: space-between; align-items: baseline; gap: 12px; margin-bottom: 8px; }
.head button { font: inherit; font-size: 13px; color: var(--muted); background: none; border: 1px solid var(--line); border-radius: 6px; padding: 1px 10px; cursor: pointer; }
.head button[aria-pressed=true] { color: var(--card); background: var(--loss); border-color: var(--loss); }
.plot { min-height: 190px; }
.uplot { font-family: inherit; }
.u-legend { font-size: 13px; text-align: left; color: var(--muted); margin-top: 4px; }
.u-legend th, .u-legend td { font-weight: 400; padding: 2px 4px; }
.u-legend .u-value { color: var(--ink); font-variant-numeric: tabular-nums; min-width: 5em; display: inline-block; }
.u-select { background: color-mix(in srgb, var(--loss) 14%, transparent); }
.u-hz .u-cursor-x, .u-hz .u-cursor-y, .u-vt .u-cursor-x, .u-vt .u-cursor-y { border-color: var(--muted); }
.sample { margin-top: 14px; }
.sample .pair { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 280px), 1fr)); margin-top: 12px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: 13.5px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 4px 0 0; }
.box { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; min-width: 0; }
.after { background: var(--good); border-color: transparent; }
.none { color: var(--muted); font-style: italic; }
table.facts { border-collapse: collapse; width: 100%; margin-top: 6px; }
.facts th, .facts td { padding: 5px 0; border-top: 1px solid var(--line); vertical-align: top; font-size: 14px; }
.facts tr:first-child > * { border-top: 0; }
.facts th { text-align: left; font-weight: 400; color: var(--muted); padding-right: 16px; white-space: nowrap; }
.facts td { text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
footer { margin-top: 40px; color: var(--muted); font-size: 13px; }
@media (max-width: 520px) {
  main { padding: 20px 12px 40px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; }
  .card { padding: 12px; }
  .tile b { font-size: 18px; }
  .tile .from { font-size: 13px; }
}
@media print { .card, .box { break-inside: avoid; } .head button { display: none; } }
`;
