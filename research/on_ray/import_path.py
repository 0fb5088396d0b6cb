"""The code that Ray's workers import if the driver's working directory has packages of the same names.

Ray (2.60) puts the driver's script folder and working directory first on its workers' import path. A ``vae.py`` there,
which somebody who works on VAEs may well have, would be imported in place of ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ray.job_config import JobConfig

from research.provenance import PACKAGES, ROOT


class _OursFirst(JobConfig):
    """Adds the folder of our packages as the last one: workers put each before those that came earlier."""

    def _get_proto_job_config(self) -> Any:  # noqa: ANN401 - Ray's own
        self._py_driver_sys_path = [*(path for path in self._py_driver_sys_path if path != str(ROOT)), str(ROOT)]
        return super()._get_proto_job_config()  # type: ignore[no-untyped-call] # Ray's is untyped


def import_arguments() -> dict[str, Any]:
    """Return what ``ray.init`` needs so that workers import our packages; nothing where no other has their names."""
    folders = {Path.cwd(), Path(os.path.realpath(sys.argv[0])).parent} - {ROOT}
    shadowed = any(
        (folder / name).is_dir() or (folder / f"{name}.py").exists() for folder in folders for name in PACKAGES
    )
    return {"job_config": _OursFirst()} if shadowed else {}
