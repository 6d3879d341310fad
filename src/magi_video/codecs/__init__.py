"""Codecs: how frames become the latents a model works on.

`PixelCodec` (no compression), `ImageVAECodec` (any diffusers 2D VAE), `VideoVAECodec` (its causal 3D VAEs) and
`OmniTokenizerCodec`. `codecs.training.train_image_vae` trains the project's own small VAE,
`codecs.statistics.measure_statistics` measures the normalisation of any.

How to add a codec
------------------
1. Subclass `Codec` in a file of its own. Set `latent_channels`, `spatial_factor`, `temporal_factor`; give `__init__`
   (decorated with diffusers' `register_to_config`) the arguments `latents_mean` and `latents_std` and end it with
   `self.set_statistics(...)`; write `encode_raw` and `decode_raw`. Normalisation, checks, saving, loading and the
   fingerprint are inherited. With `temporal_factor` > 1 subclass `TemporalCodec` and write `decode_piece` instead of
   `decode_raw`, with a causal cache.
2. Add its name and its module to `CODEC_MODULES` in `config.py`: `load_codec` builds nothing that is not
   listed there, and imports no codec but the one that is named.
3. Test that it saves and loads, that `decode_stream` equals `decode`, and that wrong input gives a `MagiError`.
"""
