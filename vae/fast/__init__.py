"""Code that exists for speed only. Nothing here is needed to understand what is computed.

The plain code takes it in through two modules: ``vae.fast.training`` for a training step, and ``vae.fast.evaluation`` for
the estimate of log p(x). Each equals the plain version to rounding, and names the test that shows it. ``vae.fast.stacked``
is a third way in: it trains several configurations as one batched model, where ``vae.train`` trains one.
"""
