"""Scores of generated video: how far it is from real video, and from the video it should have continued.

`score` compares two sets of clips, `evaluate` continues real clips with a model and scores the result, both by a named
`Protocol`. Beneath them: `frechet` (the distance between two sets of features), `measures` (how much moves, without any
network) and `paired` (PSNR, SSIM, LPIPS). Everything is loaded when it is asked for, so that reading a table of weights
does not load scipy.
"""
