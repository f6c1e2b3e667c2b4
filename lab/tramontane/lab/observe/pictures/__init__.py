"""Take pictures of our dashboards, for the docs: real data, Grafana's own drawing, no Grafana.

`page` is a small web page over Grafana's Apache-2.0 libraries (`@grafana/ui`, `@grafana/data`):
panel frames, time series, stats, bar gauges, tables, units, colours, transformations and legends
are theirs. State timelines and heat maps exist only inside Grafana itself, which is AGPL, so these
two are drawn by us over their scales and colours. npm and esbuild make the page in the cache;
`server` gives it the boards and the answers of Prometheus; Chromium, told what to do over its
debugging protocol (`browser`), photographs it whole. Nothing of this is shipped or tested in CI:
`make screenshots` is for people who changed a board.
"""
