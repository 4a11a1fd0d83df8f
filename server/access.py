"""Who may call what, decided before a request's body is read."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc

from unface.errors import Forbidden, Unauthenticated
from unface.server.record import Observer, Record
from unface.server.status import REQUEST_ID_KEY, failure_from_exception
from unface.server.tokens import Caller, Tokens

__all__ = ["ANYBODY", "CALLER", "SCOPES", "Access", "Caller", "caller_of", "request_id"]

LOCAL = "local"  # who calls over a UNIX socket
MAX_NAME = 128

# What a call needs: a scope, any token at all, or nothing. A path that ends in "/" stands for all
# methods of a service. What is not here is not served, also when a handler for it exists.
ANY_TOKEN, ANYBODY = "any", "open"
SCOPES: Mapping[str, str] = {
    "/unface.v1.Unface/Detect": "detect",
    "/unface.v1.Unface/DetectStream": "detect",
    "/unface.v1.Unface/Report": "detect",
    "/unface.v1.Unface/Anonymize": "anonymize",
    "/unface.v1.Unface/AnonymizeStream": "anonymize",
    "/unface.v1.Unface/GetServerInfo": ANY_TOKEN,
    "/unface.v1.Admin/": "admin",
    "/grpc.health.v1.Health/": ANYBODY,
    "/grpc.reflection.v1.ServerReflection/": ANYBODY,
    "/grpc.reflection.v1alpha.ServerReflection/": ANYBODY,
}

CALLER: ContextVar[Caller] = ContextVar("CALLER")  # of the call that is being answered

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _no_reason(method: str) -> Exception | None:
    return None


class Access(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # no generic at run time
    """Lets in who may call, and refuses others before their request is read.

    Without `tokens` everybody may detect and anonymize, and do what Admin offers where
    `admin_open`. `early(method)`, such as "Detect", may return what to refuse a call of a service
    of ours with, `Overloaded` for one. `observe` is told of what was refused here.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        admin_open: bool,
        early: Callable[[str], Exception | None] = _no_reason,
        observe: Observer | None = None,
    ) -> None:
        self._tokens = tokens
        self._everybody = frozenset({"detect", "anonymize", *(["admin"] if admin_open else [])})
        self._early = early
        self._observe = observe

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler, or one that refuses; None, UNIMPLEMENTED, if there is none.

        gRPC runs the handler in this very task: it sees the `CALLER` set here.
        """
        method = handler_call_details.method
        scope = SCOPES.get(method) or SCOPES.get(method[: method.rfind("/") + 1])
        handler = await continuation(handler_call_details) if scope else None
        if handler is None or scope is None or scope == ANYBODY:
            return handler  # type: ignore[return-value]  # the stubs forget None
        metadata = handler_call_details.invocation_metadata
        name = method.rpartition("/")[2]
        try:
            CALLER.set(self.caller(scope, metadata))
            self.check_early(name)
        except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
            return self._refusing(error, name, metadata)
        return handler

    def caller(self, scope: str, metadata: Metadata) -> Caller:
        """Return who calls what needs a scope; the name may be empty.

        Raises `Unauthenticated` or `Forbidden`.
        """
        if self._tokens is None:
            caller = Caller("", self._everybody)
        else:
            caller = self._tokens.check(_only(metadata, "authorization"))
        if scope != ANY_TOKEN and scope not in caller.scopes:
            raise Forbidden(_lack(scope, self._tokens is not None))
        return caller

    def check_early(self, method: str) -> None:
        """Raise what a call of a method, such as "Detect", is refused with at once, if it is."""
        if (reason := self._early(method)) is not None:
            raise reason

    def _refusing(self, error: Exception, method: str, metadata: Metadata) -> Handler:
        """Return a handler that ends the call without reading what was sent."""
        began = time.time()
        number = request_id(metadata)
        failure = failure_from_exception(error, number)

        async def refuse(_: Any, context: Context) -> None:
            if self._observe is not None:
                known = CALLER.get(None)
                self._observe(
                    Record(
                        number,
                        method,
                        caller_of(context).name if known else _peer(context),
                        failure.code.name,
                        failure.reason,
                        began,
                        seconds=time.time() - began,
                        trace_parent=str(next(iter(_values(metadata, "traceparent")), "")),
                    )
                )
            await context.abort(
                failure.code, failure.message, trailing_metadata=failure.metadata(number)
            )

        return grpc.stream_stream_rpc_method_handler(refuse)


def caller_of(context: Context) -> Caller:
    """Return who makes the call that is being answered.

    The name is the token's subject, else that of the client's certificate, else the address of the
    peer. Raises `LookupError` where no `Access` has looked at the call.
    """
    caller = CALLER.get()
    return caller if caller.name else caller._replace(name=_certified(context) or _peer(context))


def request_id(metadata: Metadata) -> str:
    """Return the id that the client gave its call, or a new one where it gave none we take."""
    given = _values(metadata, REQUEST_ID_KEY)
    if len(given) == 1 and isinstance(given[0], str) and _REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return uuid.uuid4().hex[:16]


def _certified(context: Context) -> str:
    """Return the name in the client's certificate, which gRPC has verified; empty without one."""
    found = context.auth_context()
    for key in ("x509_common_name", "x509_subject_alternative_name"):
        for value in found.get(key, ()):
            if value:
                return value.decode("utf-8", "backslashreplace")[:MAX_NAME]
    return ""


def _peer(context: Context) -> str:
    """Return the peer's address without its port, out of "ipv6:%5B::1%5D:50" and the like."""
    kind, _, rest = unquote(context.peer()).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else LOCAL


def _values(metadata: Metadata, name: str) -> list[str | bytes]:
    return [value for key, value in metadata if key == name]


def _only(metadata: Metadata, name: str) -> str | None:
    """Return the one value of a header; which of two a proxy had checked, nobody knows."""
    values = _values(metadata, name)
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise Unauthenticated(f"there are several {name} headers; send one")
    return str(values[0]) if values else None


def _lack(scope: str, has_tokens: bool) -> str:
    if has_tokens:
        return f'the token lacks the scope "{scope}"'
    return "Admin needs tokens where other machines reach the server, and it has none configured"
