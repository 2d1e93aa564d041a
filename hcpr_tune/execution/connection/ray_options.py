"""Where Ray is, as the user says it."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
NO_DASHBOARD = "none"
"""Given as the dashboard's host: start Ray without its dashboard, which takes several processes."""


@dataclass(frozen=True)
class RayOptions:
    """Which Ray to use.

    `address`: of a cluster to join; None starts Ray on this machine, or uses the one that this process is connected to.
    `wait`: seconds to wait for the first node with room for a trial. `dashboard_host`: where the dashboard of a Ray
    that is started here listens, or "none".
    """

    address: str | None = None
    wait: int = 0
    dashboard_host: str = LOOPBACK
