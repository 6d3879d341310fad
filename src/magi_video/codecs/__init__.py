"""Codecs: how frames become the latents a model works on.

`PixelCodec` (no compression), `ImageVAECodec` (any diffusers 2D VAE), `VideoVAECodec` (its causal 3D VAEs),
`OmniTokenizerCodec`, `VQModelCodec` (diffusers' VQGAN), and `SmallVAECodec` and `VQCodec`, which are trained on the
data of the run. `VQModelCodec` and `VQCodec` are discrete: a latent is one of finitely many codes.
`codecs.statistics.measure_statistics` measures the normalisation of any.

How to add one
--------------
Write a file here with a subclass of `Codec` under `@register`. Its body says what it is in plain values; `__init__`,
under `capture_config` of `models.configured`, takes `latents_mean` and `latents_std` and ends with
`self.set_statistics(...)`, and `encode_raw` and `decode_raw` code. Normalisation, checks, saving, loading and the
fingerprint are inherited. With `temporal_factor` above 1 subclass
`TemporalCodec` and write `decode_piece` instead of `decode_raw`, with a causal cache. `load_codec` builds no class that
is not registered, and imports no codec but the one that is named.
"""
