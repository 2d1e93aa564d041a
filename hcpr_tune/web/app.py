"""The routes of the live page. Everything but the style, the scripts and the error pages needs the token."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hcpr_tune.common.settings import parse_assignment, shorten, show
from hcpr_tune.common.text import first_line
from hcpr_tune.errors import HcprTuneError, InputError
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.storage.notes import checked_note
from hcpr_tune.views.report.figures import ALL_FIGURES
from hcpr_tune.views.report.figures.comparison import distribution_of_each, progress_of_each
from hcpr_tune.views.report.figures.contour import contour
from hcpr_tune.views.report.figures.optimisation import trial_curves
from hcpr_tune.web import pages
from hcpr_tune.web.listing import Listing
from hcpr_tune.web.watched import Studies, WatchedStudy

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""plotly's parallel coordinates make functions from text, and all its figures write styles."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_SIGNS = 15.0
"""A silent connection is closed by proxies, and a browser that is gone is noticed only by writing to it."""
MOST_BODY = 100_000
"""Most bytes of a request's body."""
LONGEST_NUMBER = 9
STATIC = Path(__file__).parent / "static"
Reading = Callable[[Request], Response]
Writing = Callable[[Request, Any], Response]
"""The second argument: the body of the request."""


class LivePage:
    """The pages of the studies of a storage."""

    def __init__(self, storage: str, token: str) -> None:
        self._token = token
        self.studies = Studies(storage)
        self._listing = Listing(self.studies)

    def app(self) -> Starlette:
        """The web application."""
        study, trial = "/studies/{name}", "/studies/{name}/trials/{number}"
        reads: dict[str, Reading] = {
            "/": self._list,
            "/parts": self._list_parts,
            "/compare": self._compare,
            "/compare/parts": self._compare_parts,
            "/compare/figures/{figure}": self._compare_figure,
            study: self._study,
            f"{study}/parts": self._study_parts,
            f"{study}/table": self._table,
            f"{study}/figures/{{figure}}": self._figure,
            trial: self._trial,
            f"{trial}/parts": self._trial_parts,
            f"{trial}/figures/curves": self._trial_figure,
            f"{trial}/examples/{{rung}}.png": self._examples,
        }
        writes: dict[str, Writing] = {
            f"{study}/enqueue": self._enqueue,
            f"{study}/kill": self._kill,
            f"{study}/stop": self._stop,
            f"{study}/note": self._note,
        }
        routes = [Route(path, self._answering(endpoint)) for path, endpoint in reads.items()]
        routes += [Route(path, self._carrying_out(endpoint), methods=["POST"]) for path, endpoint in writes.items()]
        routes += [
            Route("/changes", self._streaming(self._list_version)),
            Route(f"{study}/changes", self._streaming(self._study_version)),
            Route("/static/{file}", static_file),
        ]
        return Starlette(routes=routes, exception_handlers={404: not_found, Exception: broken})

    # What every answer goes through

    def _allowed(self, request: Request, writes: bool = False) -> bool:
        """Whether a request has the token; one that changes something in a header, which other sites cannot set."""
        _, _, given = request.headers.get("Authorization", "").rpartition("Bearer ")
        if not writes:
            given = given or request.query_params.get("token", "")
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _answering(self, endpoint: Reading) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if not self._allowed(request):
                return refused(request)
            return await answered(request, partial(endpoint, request), 404)

        return answer

    def _carrying_out(self, endpoint: Writing) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if not self._allowed(request, writes=True):
                return refused(request)
            try:
                body = json.loads(await limited_body(request))
            except (ValueError, RecursionError):
                return failed(request, InputError("the body of the request is not JSON, or too large"), 400)
            return await answered(request, partial(endpoint, request, body), 400)

        return answer

    def _streaming(self, version_of: Callable[[Request], str]) -> Callable[[Request], Awaitable[Response]]:
        """Server-sent events: the version of what is shown, whenever it changes."""

        async def stream(request: Request) -> Response:
            if not self._allowed(request):
                return refused(request)
            try:
                first = await run_in_threadpool(version_of, request)
            except (HcprTuneError, OSError) as error:
                return failed(request, error, 404)

            async def events() -> AsyncIterator[str]:
                latest, silent = first, 0.0
                yield f"retry: 2000\ndata: {latest}\n\n"
                while not await request.is_disconnected():
                    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
                    silent += SECONDS_BETWEEN_LOOKS
                    try:
                        version = await to_thread.run_sync(version_of, request)
                    except (HcprTuneError, OSError) as error:
                        version = f"trouble: {first_line(error)}"
                    if version != latest or silent >= SECONDS_BETWEEN_SIGNS:
                        yield f"data: {version}\n\n" if version != latest else ": still here\n\n"
                        latest, silent = version, 0.0

            return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)

        return stream

    def _study_version(self, request: Request) -> str:
        return self._watched(request).version

    def _list_version(self, _: Request) -> str:
        return self._listing.version

    def _watched(self, request: Request) -> WatchedStudy:
        return self.studies.get(request.path_params["name"])

    def _trial_of(self, request: Request) -> tuple[WatchedStudy, Trial]:
        watched, number = self._watched(request), whole(request.path_params["number"])
        with watched.reading() as stored:
            if number is None or number not in stored.history.trials:
                given = shorten(request.path_params["number"])
                raise InputError(f"{watched.name} has no trial {given}; it has {len(stored.history.trials)}, from 0")
            return watched, stored.history.trials[number]

    # Pages, and their parts

    def _list(self, _: Request) -> Response:
        return HTMLResponse(pages.list_page(self.studies, self._listing.now()))

    def _list_parts(self, _: Request) -> Response:
        return JSONResponse(pages.list_parts(self.studies, self._listing.now()))

    def _study(self, request: Request) -> Response:
        copied = whole(request.query_params.get("copy", ""))
        return HTMLResponse(pages.study_page(self._watched(request), copied))

    def _study_parts(self, request: Request) -> Response:
        return JSONResponse(pages.study_parts(self._watched(request)))

    def _table(self, request: Request) -> Response:
        return HTMLResponse(pages.trials_table(self._watched(request), request.query_params))

    def _figure(self, request: Request) -> Response:
        watched, name = self._watched(request), request.path_params["figure"]
        if name == "contour":
            return JSONText(self._contour(watched, request))
        if name not in ALL_FIGURES:
            raise InputError(f"there is no figure {show(name)}; known: {', '.join(ALL_FIGURES)}, contour")
        _, draw = ALL_FIGURES[name]
        return JSONText(
            watched.made(("figure", name), lambda stored: pages.figure_json(draw(stored.spec, stored.history)))
        )

    def _contour(self, watched: WatchedStudy, request: Request) -> str:
        with watched.reading() as stored:
            space = list(stored.spec.space)
        first, second = (
            request.query_params.get(axis) or name for axis, name in zip("xy", [*space, *space][:2], strict=False)
        )
        if first not in space or second not in space:
            raise InputError(f"x and y must each be one of {', '.join(space)}, got {show(first)} and {show(second)}")
        return watched.made(
            ("contour", first, second),
            lambda stored: pages.figure_json(contour(stored.spec, stored.history, first, second)),
        )

    def _trial(self, request: Request) -> Response:
        return HTMLResponse(pages.trial_page(*self._trial_of(request)))

    def _trial_parts(self, request: Request) -> Response:
        return JSONResponse(pages.trial_parts(*self._trial_of(request)))

    def _trial_figure(self, request: Request) -> Response:
        watched, trial = self._trial_of(request)
        with watched.reading() as stored:
            return JSONText(pages.figure_json(trial_curves(stored.spec, stored.history, trial)))

    def _examples(self, request: Request) -> Response:
        watched, trial = self._trial_of(request)
        with watched.reading() as stored:
            rung = whole(request.path_params["rung"]) or 0
            path = stored.folder.trial(trial.number) / pages.examples_name(rung)
        if not path.is_file():
            raise InputError(f"there is no picture of trial {trial.number} at that epoch")
        return Response(path.read_bytes(), media_type="image/png")

    def _compared(self, request: Request) -> list[str]:
        names = list(dict.fromkeys(request.query_params.getlist("study")))
        if not 2 <= len(names) <= pages.MOST_COMPARED:
            raise InputError(
                f"a comparison takes 2 to {pages.MOST_COMPARED} studies, got {len(names)}; tick them in the list"
            )
        return names

    def _compare(self, request: Request) -> Response:
        return HTMLResponse(pages.compare_page(self.studies, self._compared(request)))

    def _compare_parts(self, request: Request) -> Response:
        return JSONResponse(pages.compare_parts(self.studies, self._compared(request)))

    def _compare_figure(self, request: Request) -> Response:
        figures = {"progress": progress_of_each, "distribution": distribution_of_each}
        name = request.path_params["figure"]
        if name not in figures:
            raise InputError(f"there is no figure {show(name)}; known: {', '.join(figures)}")
        with self.studies.reading(self._compared(request)) as histories:
            return JSONText(pages.figure_json(figures[name](histories)))

    # Requests

    def _enqueue(self, request: Request, body: Any) -> Response:
        values = body.get("values") if isinstance(body, dict) else None
        if not isinstance(values, dict):
            raise InputError("the values must be a table of texts by dimension")
        given = dict(parse_assignment(f"{name}={text}") for name, text in values.items() if str(text).strip())
        watched = self._watched(request)
        with watched.reading():
            watched.study.enqueue(given)
            alive = watched.alive
        return told(
            "The trial is queued: the search takes it with its next free worker."
            if alive
            else "The trial is queued: the search takes it when it is resumed."
        )

    def _kill(self, request: Request, body: Any) -> Response:
        number = body.get("trial") if isinstance(body, dict) else None
        if isinstance(number, bool) or not isinstance(number, int):
            raise InputError(f"trial must be the number of a trial, got {show(number)}")
        watched = self._watched(request)
        with watched.reading():
            watched.study.kill(number)
        return told(f"Trial {number} will end after its running epoch.")

    def _stop(self, request: Request, _: Any) -> Response:
        watched = self._watched(request)
        with watched.reading():
            watched.study.stop(wait=0)
        return told("The search was asked to stop. Running epochs are abandoned, all else is kept.")

    def _note(self, request: Request, body: Any) -> Response:
        plain = body if isinstance(body, dict) else {}
        text, tags, trial = plain.get("text", ""), plain.get("tags", ""), plain.get("trial")
        if not isinstance(text, str) or not isinstance(tags, str) or not (trial is None or type(trial) is int):
            raise InputError("a note has a text, tags with commas between them, and perhaps the number of a trial")
        watched = self._watched(request)
        with watched.reading():
            now = watched.study.notes.of(trial)
            # What the form was opened with: a note that somebody else has written since is not overwritten.
            if plain.get("was", f"{now.text}|{','.join(now.tags)}") != f"{now.text}|{','.join(now.tags)}":
                raise InputError("somebody has changed this note since the page was opened; reload the page first")
            watched.study.note(text, tags.split(","), trial)
        now = checked_note(text, tags.split(","))
        return JSONResponse({"done": "Saved.", "was": f"{now.text}|{','.join(now.tags)}"})


class JSONText(Response):
    """A response that is JSON text already."""

    media_type = "application/json"


async def answered(request: Request, endpoint: Callable[[], Response], code: int) -> Response:
    """The endpoint's answer, from a thread; `code`: the status of bad input."""
    try:
        response = await run_in_threadpool(endpoint)
    except InputError as error:
        return failed(request, error, code)
    except (HcprTuneError, OSError) as error:
        return failed(request, error, 500)
    except Exception as error:  # a file that somebody wrote by hand may break anything
        return await broken(request, error)
    response.headers.update(HEADERS)
    return response


def told(words: str) -> Response:
    """The answer to a request that was accepted."""
    return JSONResponse({"done": words})


async def limited_body(request: Request) -> bytes:
    """The body of a request. Raises `ValueError` if it is too large."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            raise ValueError("too large")
    return body


def refused(request: Request) -> Response:
    """The answer without the token."""
    words = (
        "This page needs a token. Open the whole URL that hcpr_tune watch printed; it ends in ?token=... If it is lost,"
        " run the command again."
    )
    return page_of_error(request, "The token is missing or wrong", words, 401)


def failed(request: Request, error: Exception, code: int) -> Response:
    """The answer to what cannot be done."""
    return page_of_error(request, "That is not possible", first_line(error), code)


async def broken(request: Request, error: Exception) -> Response:
    """The answer to a fault of ours, or of a file that makes no sense."""
    return page_of_error(request, "That failed", f"{type(error).__name__}: {first_line(error)}", 500)


def whole(text: str) -> int | None:
    """A number of a URL; None if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else None


async def not_found(request: Request, _: Exception) -> Response:
    """The answer for an address that does not exist."""
    return page_of_error(request, "There is no such page", "See the list of studies.", 404)


def page_of_error(request: Request, title: str, words: str, code: int) -> Response:
    """An error as JSON for scripts, as a page for people."""
    if "text/html" not in request.headers.get("Accept", ""):
        return JSONResponse({"error": words}, code, headers=HEADERS)
    return HTMLResponse(pages.render("error", title=title, words=words), code, headers=HEADERS)


FILES = {
    "plots.js": ("text/javascript", lambda: pages.of_report("plots.js").encode()),
    "live.js": ("text/javascript", lambda: (STATIC / "live.js").read_bytes()),
    "page.css": ("text/css", lambda: pages.styles().encode()),
    "plotly.js": ("text/javascript", lambda: pages.plotly_script().encode()),
}


async def static_file(request: Request) -> Response:
    """The style and the scripts, which contain nothing of a study."""
    name = request.path_params["file"]
    if name not in FILES:
        return PlainTextResponse("there is no such file", 404)
    kind, read = FILES[name]
    return Response(await run_in_threadpool(read), media_type=kind, headers=HEADERS | {"Cache-Control": "max-age=3600"})
