"""What the review page answers to requests.

Each request opens the tables for its own reads and closes them, so that other processes can write
to them between two answers of a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from harmonizer_assets.core.apply.history import label_history
from harmonizer_assets.core.base.errors import InputError, StoreBusyError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.records.label import LabelKey, label_key
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.review.policy import ReviewPolicy
from harmonizer_assets.core.review.queue import MOST_LISTED, ReviewFilter
from harmonizer_assets.core.review.review import Review
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_assets.web.links import REVIEW
from harmonizer_assets.web.review.access import Access, remember_reviewer, reviewer_of
from harmonizer_assets.web.review.images import Images
from harmonizer_assets.web.review.keys import key_text, parse_key
from harmonizer_assets.web.review.pages import Pages

_BUSY_SECONDS: Final = 5.0
"""How long a request waits, at most, for another process that writes to the tables."""
_LISTED: Final = 50
_CHOSEN: Final = ("label_type", "merchant_key", "kind_id", "action", "to_label")
_NOT_HERE: Final = (
    "The review page is served under the names of this machine only. With [review] token_env in "
    "harmonizer.toml it is served under allowed origins, too, and asks for a token."
)

Endpoint = Callable[[Request], Awaitable[Response]]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Name(_Sent):
    name: str


class _Token(_Sent):
    token: str


class _Rule(_Sent):
    rule: str


class _Withdrawal(_Sent):
    answer_id: str


class _Answer(_Sent):
    """An answer about one label or several, as the page sends it.

    Attributes:
        labels: keys of the labels that the answer is about.
        kind: of the labels, where the answer is about all of it.
        proposal_shown: whether the page showed what is proposed.
    """

    labels: list[str] = Field(min_length=1)
    kind: str | None = None
    verdict: Answer
    to_label: str | None = None
    note: str | None = Field(default=None, max_length=2_000)
    proposal_shown: bool


SentT = TypeVar("SentT", bound=_Sent)


class Site:
    """The pages of one home, and what they send back."""

    def __init__(self, home: Home, settings: Settings, access: Access) -> None:
        self._home = home
        self._settings = settings.review
        self._access = access
        busy = min(settings.waits.database_seconds, _BUSY_SECONDS)
        self._warehouse = Warehouse(home, busy_timeout=busy)
        self._images = Images(home.root, settings.review.image_roots)
        self._pages = Pages()
        self.name_reviewer = _posting(_Name, self._name_reviewer)
        self.take_token = _posting(_Token, self._take_token)
        self.answer = _posting(_Answer, self._answer)
        self.undo = _posting(_Withdrawal, self._undo)
        self.reopen = _posting(_Rule, self._reopen)

    def queue(self, request: Request) -> Response:
        """Show what is open, how far the review is, and what the rules of the policy do."""
        reviewer = reviewer_of(request)
        if reviewer is None or "rename" in request.query_params:
            return self._ask_name(request)
        review, chosen = self._review(), _filter(request)
        with self._warehouse.session():
            values: dict[str, Any] = {
                "items": review.items(reviewer, chosen, _LISTED),
                "counts": review.counts(reviewer),
                "progress": review.progress(reviewer, chosen),
                "tiers": review.tiers(),
            }
        rules = review.policy.rules
        return HTMLResponse(
            self._pages.queue(reviewer=reviewer, chosen=chosen, rules=rules, **values)
        )

    def item(self, request: Request) -> Response:
        """Show one label: that of the address or, without one, the next of the queue."""
        reviewer = reviewer_of(request)
        if reviewer is None:
            return self._ask_name(request)
        review, chosen = self._review(), _filter(request)
        with self._warehouse.session():
            item, progress = review.next(reviewer, chosen)
            item = _named_item(review, reviewer, request) or item
            values = {
                "chosen": chosen,
                "reviewer": reviewer,
                "progress": progress,
                "last": review.last_answer(reviewer),
            }
            if item is not None:
                values |= self._around(review, label_key(item), item)
        if item is None:
            return HTMLResponse(self._pages.done(**values))
        return HTMLResponse(self._pages.item(item, **values))

    def list(self, request: Request) -> Response:
        """Show labels that one answer can settle: all of a kind, or all with the same proposal."""
        reviewer = reviewer_of(request)
        if reviewer is None:
            return self._ask_name(request)
        review, chosen = self._review(), _filter(request)
        item = _named_item(review, reviewer, request)
        listed, limit = ReviewFilter(kind_id=chosen.kind_id), None
        if item is not None and not item["is_blind"]:
            listed, limit = chosen.same_proposal(item), MOST_LISTED
        elif chosen.kind_id is None:
            raise InputError("there is no list: the label is not in the queue any more")
        items = review.listed(reviewer, listed, limit)
        if not items:
            raise InputError("no label of this list is open")
        page = self._pages.list(
            items,
            n_open=review.progress(reviewer, listed).open,
            reviewer=reviewer,
            chosen=chosen,
            listed=listed,
            label_types=self._taxonomy().label_types,
        )
        return HTMLResponse(page)

    def image(self, request: Request) -> Response:
        """Send the image that a word names, where it lies in an allowed root."""
        key = parse_key(request.query_params.get("key", ""))
        context = self._review().context(key)
        if context is None or context.image_uri is None:
            raise InputError("this word has no image")
        content, media_type = self._images.read(context.image_uri)
        return Response(content, media_type=media_type)

    def closed(self, request: Request) -> Response:
        """Answer somebody who may not see the page."""
        if not self._access.has_token:
            return PlainTextResponse(f"{_NOT_HERE}\n", HTTPStatus.FORBIDDEN)
        if request.method != "GET":
            return PlainTextResponse("The token is missing.\n", HTTPStatus.UNAUTHORIZED)
        page = self._pages.ask("token", _address(request))
        return HTMLResponse(page, HTTPStatus.UNAUTHORIZED)

    def failed(self, request: Request, error: Exception) -> Response:
        """Say in one sentence what went wrong."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, StoreBusyError):
            status = HTTPStatus.SERVICE_UNAVAILABLE
        elif isinstance(error, InputError):
            status = HTTPStatus.NOT_FOUND if request.method == "GET" else HTTPStatus.CONFLICT
        sentence = str(error)
        if request.method != "GET":
            return PlainTextResponse(f"{sentence}\n", status)
        return HTMLResponse(self._pages.message(status.phrase, sentence), status)

    def _ask_name(self, request: Request) -> Response:
        then = f"{REVIEW}/" if "rename" in request.query_params else _address(request)
        return HTMLResponse(self._pages.ask("name", then))

    def _name_reviewer(self, request: Request, sent: _Name) -> Response:
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        remember_reviewer(request, response, sent.name)
        return response

    def _take_token(self, request: Request, sent: _Token) -> Response:
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        if not self._access.let_in(request, response, sent.token):
            return PlainTextResponse("This is not the token.\n", HTTPStatus.UNAUTHORIZED)
        return response

    def _answer(self, request: Request, sent: _Answer) -> Response:
        """Store an answer; what this returns is sent once the answer is on the disk."""
        review, reviewer = self._review(), _known_reviewer(request)
        keys = [parse_key(text) for text in sent.labels]
        note = (sent.note or "").strip() or None
        said: dict[str, Any] = {"to_label": sent.to_label, "note": note}
        if sent.kind is not None:
            answer_id = review.answer_kind(sent.kind, reviewer, sent.verdict, expected=keys, **said)
        elif len(keys) == 1:
            shown = sent.proposal_shown
            answer_id = review.answer(keys[0], reviewer, sent.verdict, proposal_shown=shown, **said)
        else:
            answer_id = review.answer_listed(keys, reviewer, sent.verdict, **said)
        return JSONResponse({"answer_id": answer_id})

    def _undo(self, request: Request, sent: _Withdrawal) -> Response:
        review, reviewer = self._review(), _known_reviewer(request)
        last = review.last_answer(reviewer)
        if last is None or last["answer_id"] != sent.answer_id:
            raise InputError("this is not your last answer any more: load the page again")
        review.withdraw(sent.answer_id, reviewer)
        return JSONResponse({"key": key_text(label_key(last))})

    def _reopen(self, request: Request, sent: _Rule) -> Response:
        self._review().reopen(sent.rule, _known_reviewer(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _around(self, review: Review, key: LabelKey, item: dict[str, Any]) -> dict[str, Any]:
        """Read what is shown beside a label; nothing of a blind one that says what is proposed."""
        context = review.context(key)
        is_blind = item["is_blind"]
        return {
            "context": context,
            "has_image": bool(context and context.image_uri and self._images.are_shown),
            "grounds": None if is_blind else review.grounds(key),
            "history": [] if is_blind else label_history(self._warehouse, key.word),
            "others": review.opinions(key) if item["is_disputed"] and not is_blind else [],
            "label_types": self._taxonomy().label_types,
        }

    def _review(self) -> Review:
        """Open the review as policy and taxonomy are now; people edit them while it is served.

        Raises:
            InputError: the home holds no tables yet.
            ConfigurationError: the policy or the taxonomy cannot be read.
        """
        if not self._home.database.exists():
            raise InputError("this home holds no labels yet: `harmonizer run` brings them in")
        policy = ReviewPolicy.of_home(self._home)
        return Review(self._warehouse, policy, self._settings, self._taxonomy().names)

    def _taxonomy(self) -> Taxonomy:
        return Taxonomy.of_home(self._home)


def _posting(model: type[SentT], handle: Callable[[Request, SentT], Response]) -> Endpoint:
    """Make an endpoint of a function that takes what was sent as JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            sent = model.model_validate_json(await request.body())
        except ValidationError:
            return PlainTextResponse("This is not what the page sends.\n", HTTPStatus.BAD_REQUEST)
        return await run_in_threadpool(handle, request, sent)

    return endpoint


def _address(request: Request) -> str:
    """Return path and query of a request."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _filter(request: Request) -> ReviewFilter:
    given = {name: request.query_params.get(name) or None for name in _CHOSEN}
    return ReviewFilter(**given, disagreements=request.query_params.get("disagreements") == "1")


def _named_item(review: Review, reviewer: str, request: Request) -> dict[str, Any] | None:
    """Return the label that the address names, where it names one that is in the queue."""
    named = request.query_params.get("key")
    return None if named is None else review.item(reviewer, parse_key(named))


def _known_reviewer(request: Request) -> str:
    reviewer = reviewer_of(request)
    if reviewer is None:
        raise InputError("say who you are first: load the page again")
    return reviewer
