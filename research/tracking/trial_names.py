"""Short names for what people filter and look at: the family of a config, what a trial's pictures show."""

from __future__ import annotations

from typing import Any

# What each picture of a trial shows, by its name.
CAPTIONS = {
    "reconstructions": "held-out examples, each above E[x|z] at its posterior mean",
    "samples": "E[x|z] of draws from the prior",
    "traversals": "the code of one held-out example, one latent moved from -2 to 2 standard deviations in each row",
    "codes": "posterior means of held-out examples, coloured by label",
}


def family(config: dict[str, Any]) -> str:
    """A member of the family in one word, e.g. ``vae``, ``cvae``, ``denoising_ae``; empty for an empty config."""
    if not config:
        return ""
    objective = config["objective"]
    name = str(objective["kind"])
    if name == "elbo":
        name = "vae" if objective.get("beta", 1.0) == 1.0 else "beta_vae"
    elif name == "reconstruction":
        name = "ae" if objective["sparsity"]["kind"] == "none" else "sparse_ae"
    given = config["conditioning"]["kind"]
    if given != "none":
        name = f"c{name}" if given == "label" and name in {"vae", "beta_vae"} else f"{given}_{name}"
    return f"denoising_{name}" if config["corruption"]["kind"] != "none" else name
