"""The frame of the report page: its style for screens, dark screens, narrow ones and paper."""

from __future__ import annotations

from mibench.leaderboard.language import COLOURS

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title><!--title--></title>
<style>
:root { color-scheme: light dark; --ink: #202024; --paper: #fafaf8; --line: #d8d8d2; --dim: #5c5c64; --raised: #fff;
  --leak: LEAK; --open: OPEN; --calm: CALM; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e2; --paper: #1b1b1e; --line: #3c3c42; --dim: #a2a2aa;
  --raised: #242428; --leak: #f0996b; --open: #e0b45a; --calm: #a9b1b6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; }
p, ul, .legend, .commands { max-width: 46rem; } p, li, dd { overflow-wrap: anywhere; } a { color: inherit; }
header { border-left: .4rem solid var(--calm); padding: .1rem 0 .1rem 1rem; }
header.leak { border-color: var(--leak); } header.open { border-color: var(--open); }
header p { margin: .4rem 0; } header .what { color: var(--dim); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } h4 { font-size: .9rem; margin: 0; flex-basis: 100%; }
.verdict { font-weight: 600; white-space: nowrap; } .leak.verdict { color: var(--leak); }
.open.verdict { color: var(--open); } .calm.verdict { color: var(--calm); }
dl { margin: .5rem 0; } dl div { display: grid; grid-template-columns: 8.5rem 1fr; gap: .8rem; padding: .15rem 0; }
dt { color: var(--dim); } dd { margin: 0; } .legend { font-size: .9rem; margin: 1rem 0; }
.commands dl div { display: block; padding: .4rem 0; }
code { font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.note, caption { color: var(--dim); font-size: .9rem; } caption { text-align: left; padding: .6rem 0 .2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; width: 100%; margin-bottom: .8rem; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .7rem .35rem 0; text-align: left; vertical-align: top; }
th { color: var(--dim); font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
.target { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: .7rem 0; border-bottom: 1px solid var(--line); }
figure { margin: 0; } figcaption, summary { color: var(--dim); font-size: .85rem; } figure div { display: flex; flex-wrap: wrap; gap: .3rem; }
figure p { margin: .2rem 0; max-width: 20rem; } .target img { width: 6rem; height: 6rem; min-width: 96px; min-height: 96px; }
.small { image-rendering: pixelated; } .sheet { overflow-x: auto; } details { margin-top: 2rem; }
@media (max-width: 44rem) {
  .wide table, .wide tbody, .wide tr, .wide caption { display: block; } .wide thead { display: none; }
  .wide tr { border: 1px solid var(--line); border-radius: .3rem; background: var(--raised); margin: .5rem 0; padding: .3rem .6rem; }
  .wide td { display: grid; grid-template-columns: 7rem 1fr; gap: .6rem; border: 0; padding: .1rem 0; text-align: left; overflow-wrap: anywhere; }
  .wide td:empty { display: none; } .wide td::before { content: attr(data-name); color: var(--dim); }
  dl div { grid-template-columns: 1fr; gap: 0; padding: .3rem 0; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --line: #999; --dim: #333; --raised: #fff;
    --leak: LEAK; --open: OPEN; --calm: #444; }
  @page { margin: 16mm 14mm; } html { font-size: 9.5pt; } main { max-width: none; padding: 0; } table { font-size: 8pt; }
  h1, h2, h3, h4 { break-after: avoid; } tr, figure, .target, dl div, header { break-inside: avoid; } thead { display: table-header-group; }
  #pictures, #numbers { break-before: page; } .wide, .sheet { overflow: visible; } .sheet img { max-width: 100%; }
  .target img { width: 22mm; height: 22mm; min-width: 0; min-height: 0; } p, ul, .legend, .commands { max-width: none; }
  a[href]:not([href^="#"])::after { content: " (" attr(href) ")"; } p { orphans: 3; widows: 3; }
  details::details-content { content-visibility: visible; display: block; } summary { list-style: none; font-weight: 600; }
  * { print-color-adjust: exact; }
}
</style>
<main>
<!--body-->
</main>
</html>
"""  # noqa: E501

for _tone, _colour in COLOURS.items():
    PAGE = PAGE.replace(f": {_tone.upper()};", f": {_colour};")
