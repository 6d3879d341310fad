"""Scores of generated video: how far it is from real video, and from the video it should have continued.

`frechet` (the distance between two sets of features), `motion` (how much moves, without any network) and `metrics`
(both and PSNR, SSIM, LPIPS as `torchmetrics` classes that give the same figure on any number of processes).
Submodules are imported by name, so that reading a table of weights does not load scipy.
"""
