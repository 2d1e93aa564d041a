"""Ask the head of a cluster, before Ray itself connects, whether it is one and whether it takes the token.

Ray's own client would repeat a question that is refused or not answered for two minutes, and print from C++ meanwhile.
"""

from __future__ import annotations

import os
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.access import is_loopback
from hcpr_tune.execution.connection.tokens import DISABLED, TOKEN, read_token, usual_mode

IS_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A request to a head of which the empty message is a valid one."""
PATIENCE_SECONDS = 10.0
CLIENT = "ray://"


def mode_of(address: str) -> str:
    """How the cluster at `address` is joined: with its token (`TOKEN`), or without one (`DISABLED`).

    It is asked without a token first, so that only a cluster that wants one is sent it. A cluster with TLS, or behind
    Ray's client (ray://), cannot be asked. Raises `InputError` if the cluster does not take the token that is here, has
    none although other machines reach it, or is no cluster.
    """
    if address.startswith(CLIENT) or os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return usual_mode()
    try:
        if _takes(address, ""):
            if is_loopback(address.rpartition(":")[0]):
                return DISABLED
            raise InputError(
                f"the cluster at {address} takes everyone without a token: anyone who reaches it can run code on it;"
                " start it with RAY_AUTH_MODE=token, or by launch/cluster/head.sh"
            )
        token, where = read_token()
        if not token:
            raise InputError(
                f"the cluster at {address} wants a token, and there is none here; copy its ~/.ray/auth_token to the"
                " same place on this machine (scp), or name it by RAY_AUTH_TOKEN_PATH"
            )
        if not _takes(address, token):
            raise InputError(
                f"the cluster at {address} does not take the token in {where}; copy the ~/.ray/auth_token of its head"
                " to this machine (scp), or name it by RAY_AUTH_TOKEN_PATH"
            )
    except ConnectionError as error:
        raise InputError(
            f"what answers at {address} is not the head of a Ray cluster ({error}); give the address that head.sh or"
            " `ray start --head` has printed, usually HOST:6379"
        ) from None
    return TOKEN


def _takes(address: str, token: str) -> bool:
    """Whether the head takes this token, or none. Raises `ConnectionError` for what is no head, with what it said."""
    import grpc

    header = (("authorization", f"Bearer {token}"),) if token else ()
    # Ray too goes around a proxy that the environment names.
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(IS_ALIVE)(b"", timeout=PATIENCE_SECONDS, metadata=header)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return False
            raise ConnectionError(_words(error)) from None
    return True


def _words(error: Any) -> str:
    import grpc

    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {PATIENCE_SECONDS:.0f} s"
    return str(error.code().name).lower().replace("_", " ")
