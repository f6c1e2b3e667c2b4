"""The manual's machinery: what is generated, how its commands are run, how the site is built.

* `python -m tramontane.lab.manual [DIR]` writes the reference, docs/reference, one file per
  subject: `crds`, `faults`, `metrics`, `alerts`, `values`, `cli` (`pages` puts them together).
* `python -m tramontane.lab.manual.site` builds docs/ into site/, strictly, and refuses a page
  that would fetch anything from elsewhere.
* `blocks` reads the ```console blocks of a page and makes one script of them; the tests run it.

`markdown` is the few pieces of Markdown that the generators write.
"""
