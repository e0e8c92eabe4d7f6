"""How a page looks: one style sheet, light and dark, on desks, phones and paper. It loads nothing."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fff; --card: #fff; --soft: #f4f6f8; --ink: #1a2027; --faint: #56606b; --rule: #d5dbe1; --link: #0a5c9e;
  --broken: #9e1030; --broken-ink: #fff; --leaks: #7a4100; --leaks-back: #fff3e0; --kept: #0a4a78; --kept-back: #e8f2fa;
  --s0: #0072b2; --s1: #c24e00; --s2: #00795a; --s3: #a8497f; --s4: #5a5a5a; --s5: #8a6d00;
}
@media screen and (prefers-color-scheme: dark) { :root {
  --page: #14181d; --card: #1b2127; --soft: #222a32; --ink: #e8ecf0; --faint: #a9b4bf; --rule: #3a444e; --link: #8cc5f2;
  --broken: #ff8fa3; --broken-ink: #2a0009; --leaks: #ffc37a; --leaks-back: #36270f; --kept: #9fd0f5;
  --kept-back: #122b3f;
  --s0: #56b4e9; --s1: #ff9a4d; --s2: #3ecf9f; --s3: #e39cc5; --s4: #bdbdbd; --s5: #e5c54a;
} }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; margin: 1.6rem 0 .2rem; line-height: 1.2; }
h2 { font-size: 1.45rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule);
  line-height: 1.25; }
h3 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
h4 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
h5 { font-size: 1rem; margin: 0 0 .3rem; }
p { max-width: 48rem; margin: .5rem 0; }
a { color: var(--link); }
small { display: block; color: var(--faint); font-size: .82rem; line-height: 1.35; }
code { font-size: .9em; overflow-wrap: anywhere; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; margin: 1rem 0; }
.lead { color: var(--faint); margin-bottom: 1rem; }
.banner { border: 2px solid var(--kept); border-left-width: .8rem; border-radius: .5rem; background: var(--kept-back);
  padding: .6rem 1.2rem; }
.banner.failed { border-color: var(--broken); background: var(--soft); }
.banner .verdict { font-size: 1.5rem; font-weight: 700; margin: .2rem 0; color: var(--kept); line-height: 1.25; }
.banner.failed .verdict { color: var(--broken); }
.banner p { max-width: none; }
.banner ul { margin: .4rem 0; padding-left: 1.3rem; }
.mark { display: inline-block; border: 2px solid; border-radius: .4rem; padding: .02rem .5rem; font-size: .85rem;
  font-weight: 600; line-height: 1.45; }
.mark.broken { background: var(--broken); border-color: var(--broken); color: var(--broken-ink); }
.mark.leaks { background: var(--leaks-back); color: var(--leaks); border-style: dashed; }
.mark.kept { background: var(--kept-back); color: var(--kept); }
.mark.chance { color: var(--kept); border-color: transparent; padding-left: 0; }
.mark.untried { color: var(--faint); border-color: transparent; font-weight: 400; padding-left: 0; }
.marks { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .5rem 1.5rem;
  margin: 1rem 0; }
.marks dd { margin: .1rem 0 0; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .5rem .7rem .5rem 0; border-top: 1px solid var(--rule); }
thead th { color: var(--faint); font-size: .85rem; border-top: 0; border-bottom: 2px solid var(--rule);
  vertical-align: bottom; }
tbody th, tfoot th { font-weight: 600; overflow-wrap: anywhere; }
td { overflow-wrap: anywhere; }
.title { display: block; font-weight: 600; }
th small { font-weight: 400; }
.even { table-layout: fixed; }
.even thead th:first-child { width: 24%; }
.group th { background: var(--soft); padding: .5rem .7rem; font-size: 1rem; }
.cell + .cell { margin-top: .8rem; padding-top: .6rem; border-top: 1px dotted var(--rule); }
.cell .plot { max-width: 9rem; }
.figure { font-size: 1.02rem; margin-top: .15rem; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; padding: 1rem 1.2rem;
  margin: 1rem 0; }
.about { margin-top: 0; color: var(--faint); font-size: .88rem; overflow-wrap: anywhere; }
.checklist .mark { white-space: nowrap; }
.cures th code { font-weight: 400; }
.note { max-width: none; background: var(--soft); border-radius: .3rem; padding: .4rem .7rem; font-size: .92rem; }
figure { margin: 1.2rem 0; }
figcaption { color: var(--faint); font-size: .88rem; max-width: 48rem; margin-top: .3rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1.2rem; }
.plots > * { max-width: 29rem; }
@media (min-width: 46.01rem) { .plots:has(> :nth-child(4):last-child) { grid-template-columns: repeat(2, 1fr); } }
.plots h3 { margin: .2rem 0; }
.plot { display: block; width: 100%; height: auto; overflow: visible; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; margin: .4rem 0;
  font-size: .9rem; }
.key { width: 30px; height: 16px; vertical-align: middle; margin-right: .35rem; }
.scroll { overflow-x: auto; }
.pictures { width: auto; }
.pictures th, .pictures td { padding-right: 1rem; font-size: .85rem; }
.pictures th, .pictures td { overflow-wrap: normal; }
.pictures tbody th, .pictures tfoot th { font-weight: 400; }
.pictures img { display: block; width: 6.5rem; min-width: 4rem; image-rendering: pixelated;
  border: 1px solid var(--rule);
  background: #000; }
.pairs img { display: inline-block; width: 5rem; margin-right: .2rem; }
.pairs span { display: block; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .5rem 2rem; }
.facts dt { font-weight: 400; color: var(--faint); font-size: .88rem; }
.terms { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: .8rem 2rem; }
dt { font-weight: 600; }
dd { margin: 0; }
footer { color: var(--faint); font-size: .88rem; padding-bottom: 3rem; }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit; }
svg .strong { font-weight: 600; }
svg .faint { fill: var(--faint); }
svg .rule { stroke: var(--rule); stroke-width: .7; }
svg .axis { stroke: var(--faint); stroke-width: 1; }
svg .chance { stroke: var(--faint); stroke-width: 1.2; stroke-dasharray: 5 4; fill: none; }
svg .claim { stroke: var(--ink); stroke-width: 2.5; }
svg .ceiling { fill: none; stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 2 3; }
svg .solid { stroke-dasharray: none !important; }
svg .unseen { fill: var(--faint); opacity: .14; }
svg .line { fill: none; stroke-width: 2; }
svg .band { stroke: none; opacity: .22; }
svg .dot { stroke: var(--page); stroke-width: .8; }
svg .whisker { stroke-width: 4; opacity: .45; }
svg .line.s0, svg .whisker.s0 { stroke: var(--s0); } svg .band.s0, svg .dot.s0, svg .bar.s0 { fill: var(--s0); }
svg .line.s1 { stroke: var(--s1); stroke-dasharray: 7 3; } svg .band.s1, svg .dot.s1, svg .bar.s1 { fill: var(--s1); }
svg .line.s2 { stroke: var(--s2); stroke-dasharray: 2 3; } svg .band.s2, svg .dot.s2, svg .bar.s2 { fill: var(--s2); }
svg .line.s3 { stroke: var(--s3); stroke-dasharray: 9 3 2 3; }
svg .band.s3, svg .dot.s3, svg .bar.s3 { fill: var(--s3); }
svg .line.s4 { stroke: var(--s4); stroke-dasharray: 12 4; } svg .band.s4, svg .dot.s4, svg .bar.s4 { fill: var(--s4); }
svg .line.s5 { stroke: var(--s5); stroke-dasharray: 4 2; } svg .band.s5, svg .dot.s5, svg .bar.s5 { fill: var(--s5); }
svg .whisker.broken { stroke: var(--broken); } svg .point.broken, svg .bar.broken { fill: var(--broken); }
svg .whisker.leaks { stroke: var(--leaks); } svg .point.leaks, svg .bar.leaks { fill: var(--leaks); }
svg .whisker.kept, svg .whisker.chance { stroke: var(--kept); stroke-dasharray: none; }
svg .point.kept, svg .point.chance, svg .bar.kept, svg .bar.chance { fill: var(--kept); }
svg .point { stroke: none !important; } svg .bar { stroke: none; }
svg text.broken { fill: var(--broken); } svg text.leaks { fill: var(--leaks); }
svg text.kept, svg text.chance { fill: var(--kept); stroke: none; }
@media (max-width: 46rem) {
  header, main, footer { padding: 0 .9rem; }
  h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; }
  article { padding: .8rem; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack, .stack tbody, .stack tr, .stack th, .stack td, .stack caption { display: block; width: auto; }
  .stack tr { border-top: 2px solid var(--rule); padding: .5rem 0; }
  .stack th, .stack td { border: 0; padding: .2rem 0; }
  .stack td { display: grid; grid-template-columns: 34% 1fr; gap: .6rem; }
  .stack td::before { content: attr(data-label); color: var(--faint); font-size: .85rem; }
  .pictures th, .pictures td { padding-right: .5rem; font-size: .75rem; }
  .pictures img { width: 4rem; }
  .pairs img { width: 3.6rem; }
}
@media (min-width: 46.01rem) {
  .cures { table-layout: fixed; }
  .cures thead th:nth-child(1) { width: 30%; }
  .cures thead th:nth-child(2) { width: 15%; }
  .cures thead th:nth-child(3) { width: 20%; }
}
@media print {
  nav { display: none; }
  body { font-size: 9.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  table { font-size: 8.5pt; }
  .scroll { overflow: visible; }
  .pictures img { width: 4.2rem; }
  figure, tr { break-inside: avoid; }
  h2, h3, h4, h5, caption, .group { break-after: avoid; }
}
"""
