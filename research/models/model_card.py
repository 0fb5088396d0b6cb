"""A model folder's README.md: what the model is, on what, how good, how it looks, and the command that makes it again."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from research.text import markdown_code, markdown_text


def model_card(config: dict[str, Any], row: dict[str, Any], record: dict[str, Any], pictures: list[str]) -> str:
    """Markdown of a kept model: its config, the row that its weights belong to, its record, its pictures' file names."""
    figures = [name for name in row if name.startswith("val/") and isinstance(row[name], int | float)]
    lines = [
        f"# {_name(config)}",
        "",
        f"{_sentence(config, record)}",
        "",
        "## Data",
        "",
        f"{markdown_code(str(config['data']['kind']))}, data hash `{record['data_hash'][:12]}`, split hash `{record['split_hash'][:12]}`.",
        *_labels(record.get("label_names") or []),
        "",
        "## Metrics",
        "",
        f"Of the kept weights, epoch {row['epoch']}, on the validation split; nats per example where nothing else is said.",
        f"Measure: {markdown_code(str(row.get('measure', 'none: nothing was held out')))}. Only rows of equal measure compare.",
        "",
        "| metric | value |",
        "|---|---|",
        *[
            f"| {markdown_code(name, in_table=True)} | "
            + (f"{row[name]:.4f} |" if isinstance(row[name], float) else f"{row[name]} |")
            for name in figures
        ],
        "",
        *[line for name in pictures for line in (f"![{markdown_text(name.partition('.')[0])}]({quote(name)})", "")],
        "## Make it again",
        "",
        "```sh",
        "research reproduce .      # in this folder: trains the same configuration and compares every row",
        "```",
        "",
        f"Seed {record['seed']}, config `{record['config_hash'][:12]}`, code `{str(record['code'].get('source_sha256'))[:12]}`.",
        "",
        "## Use it",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "from vae.portable import load_model",
        "",
        'config, model = load_model(Path("."))',
        "```",
        "",
        "`research sample .`, `reconstruct .`, `traverse .`, `encode .`, `score .`, `export .`",
        "",
        "## Config",
        "",
        "```json",
        json.dumps(config, indent=2, sort_keys=True, allow_nan=False),
        "```",
        "",
    ]
    return "\n".join(lines)


def _labels(names: list[str]) -> list[str]:
    """Return the labels' names in the order of their numbers, as code, of which Markdown reads nothing."""
    shown = ", ".join(
        f"{i} `{json.dumps(name, ensure_ascii=False).replace('`', ' ')}`" for i, name in enumerate(names[:50])
    )
    return ["", f"Labels: {shown}{' and more' if len(names) > 50 else ''}."] if names else []  # noqa: PLR2004 - a page


def _name(config: dict[str, Any]) -> str:
    """Return the field's name for this combination of parts."""
    objective, posterior, conditional = config["objective"], config["posterior"]["kind"], config["conditioning"]["kind"]
    names = {
        "capacity": "Capacity-annealed VAE",
        "iwae": f"IWAE-{objective.get('k')}",
        "beta_tcvae": "β-TCVAE",
        "info_vae": "InfoVAE",
        "wae_mmd": "WAE-MMD",
        "dip_vae": f"DIP-VAE {objective.get('version')}",
        "factor_vae": "FactorVAE",
        "reconstruction": "Autoencoder",
    }
    name = names.get(objective["kind"], "VAE")
    if name == "VAE" and objective.get("beta", 1.0) != 1.0:
        name = f"β-VAE, β = {objective['beta']:g}"
    if objective["kind"] == "reconstruction" and objective["sparsity"]["kind"] != "none":
        name = "Sparse autoencoder"
    if config["corruption"]["kind"] != "none":
        name = f"Denoising {name[0].lower() + name[1:] if name == 'Autoencoder' else name}"
    if conditional != "none":
        name = f"Conditional {name} ({'label' if conditional == 'label' else 'part of the image'})"
    if config["prior"]["kind"] not in {"standard_normal", "label_conditional"}:
        name += f", {config['prior']['kind']} prior"
    return name + (", full covariance" if posterior == "full_covariance" else "")


def _sentence(config: dict[str, Any], record: dict[str, Any]) -> str:
    of = f"trial {record['trial']} of sweep {markdown_code(record['sweep'])}" if record["sweep"] else "a single run"
    return (
        f"{markdown_text(config['network']['kind'])} network, {config['latent_size']} latents, "
        f"{markdown_text(config['likelihood']['kind'])} likelihood; {of}, "
        f"{record['status']}."
    )
