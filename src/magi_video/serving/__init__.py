"""The web page: generate, watch frames arrive, play. `magi serve` runs it; needs the extra `serve`.

`app.py` has the addresses, `worker.py` the one thread that uses the model, `videos.py` and `play.py` what it works on,
`guard.py` and `uploads.py` what keeps strangers out, `static/` the page itself.
"""
