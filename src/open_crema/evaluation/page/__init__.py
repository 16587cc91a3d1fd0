"""One self-contained HTML page about a run: `found` what there is, `cases` the answers, `media`
their pictures and sounds, `tables` and `charts` the numbers, `build` the page."""
