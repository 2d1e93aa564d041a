"""Ray's Job API, for searches whose driver runs on the cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hcpr_tune.common.text import first_line
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.tokens import own_mode, use_mode, usual_mode

DASHBOARD = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d+/?")
"""URLs that may be passed to Ray: for other schemes it would import a module of that name."""


def on_head(path: Path | None) -> tuple[str, bool]:
    """The path of Python on the cluster's head, and whether `path` exists there."""
    import ray

    def interpreter(text: str | None) -> tuple[str, bool]:
        import os
        import sys

        return sys.executable, text is None or os.path.exists(text)  # noqa: PTH110  # it must not need this package

    # Only the head has this resource.
    remote = ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})(interpreter)
    found: tuple[str, bool] = ray.get(remote.remote(None if path is None else str(path)), timeout=60)
    return found


def job_client(dashboard: str) -> Any:
    """Ray's client for jobs, which looks for the token where Ray does. Raises `InputError`."""
    import logging

    url = dashboard if "://" in dashboard else f"http://{dashboard}"
    if not DASHBOARD.fullmatch(url):
        raise InputError(f"a cluster's dashboard is at HOST:PORT, got {dashboard}; ray's head names it when it starts")
    try:
        with own_mode():
            # Its requests carry the token if the mode says so when it is made.
            use_mode(usual_mode())
            from ray.job_submission import JobSubmissionClient

            logging.getLogger("ray").setLevel(logging.ERROR)
            return JobSubmissionClient(url)
    except (RuntimeError, ConnectionError, ValueError) as error:
        reason = first_line(error)
        raise InputError(
            f"the cluster's dashboard at {url} does not take jobs: {reason}; check that it runs, and that the token in"
            " ~/.ray/auth_token or RAY_AUTH_TOKEN is its own"
        ) from None
