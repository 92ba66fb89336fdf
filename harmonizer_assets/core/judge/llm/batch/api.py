"""The OpenAI Batch API: submit jobs, look at them, read and delete their files."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from harmonizer_assets.core.base.clients import keep_clients_quiet
from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.judge.llm.batch.lines import BatchLines
from harmonizer_assets.core.judge.llm.wire.complaints import Complaint
from harmonizer_assets.core.judge.llm.wire.endpoint import require_key

_log = logging.getLogger(__name__)

URL: Final = "/v1/chat/completions"

_TAG: Final = "harmonizer_submission"


class NotThereError(JudgeError):
    """The endpoint does not know a job or a file."""


class BatchApi:
    """A client of the Batch API. It raises all errors as `JudgeError`."""

    def __init__(self, model: str) -> None:
        """Open a client with address and key from the environment.

        Raises:
            ConfigurationError: there is no key.
        """
        import openai

        require_key()
        keep_clients_quiet()
        self._model = model
        # Few calls, none of them a question: the client's own retries do.
        self._client = openai.OpenAI()

    def create(self, content: bytes, submission: str) -> Any:
        """Submit a job.

        Args:
            content: its calls, a line of JSON each.
            submission: our id of it, by which `submitted` finds it.

        Raises:
            JudgeError: the endpoint does not take it.
        """
        file_id = self._upload(content, submission)
        try:
            return self._start(file_id, submission)
        except JudgeError:
            self._delete(file_id)
            raise

    def _upload(self, content: bytes, submission: str) -> str:
        with self._translated():
            file = self._client.files.create(
                file=(_file_name(submission), content), purpose="batch"
            )
            # Where the endpoint answers with a page, the client returns its text.
            return file.id

    def _start(self, file_id: str, submission: str) -> Any:
        with self._translated():
            return _batch(
                self._client.batches.create(
                    input_file_id=file_id,
                    endpoint=URL,
                    completion_window="24h",
                    metadata={_TAG: submission},
                )
            )

    def submitted(self) -> Mapping[str, Any]:
        """Return the latest jobs by our ids of their submissions."""
        with self._translated():
            return {
                made.metadata[_TAG]: made
                for made in self._client.batches.list(limit=100)
                if made.metadata and _TAG in made.metadata
            }

    def retrieve(self, batch_id: str) -> Any:
        """Return a job as it stands now.

        Raises:
            NotThereError: the endpoint does not know it.
            JudgeError: the endpoint does not tell.
        """
        with self._translated(batch_id):
            return _batch(self._client.batches.retrieve(batch_id))

    def cancel(self, batch_id: str) -> Any:
        """Cancel a job, and return it.

        Raises:
            NotThereError: the endpoint does not know it.
            JudgeError: the endpoint does not cancel it.
        """
        with self._translated(batch_id):
            return _batch(self._client.batches.cancel(batch_id))

    def results(self, batch_id: str) -> BatchLines:
        """Read the output and the error file of a job that has ended; either may be missing.

        Raises:
            JudgeError: the endpoint does not return them now.
        """
        made = self.retrieve(batch_id)
        names = (made.output_file_id, made.error_file_id)
        return BatchLines.read([self._content(name) for name in names if name])

    def _content(self, name: str) -> bytes | None:
        try:
            with self._translated(name):
                content = self._client.files.content(name).content
        except NotThereError:
            _log.warning("a file of results is gone from the Batch API: its calls have no answer")
            return None
        if content.lstrip().startswith(b"<"):
            # What was bought would count as not answered, and be deleted there.
            raise JudgeError(
                "a page has come in place of a batch's results: does the network want a login? "
                "Check OPENAI_BASE_URL, and collect again"
            )
        return content

    def delete_files(self, batch_id: str) -> bool:
        """Delete all files of a job; return whether nothing is left to be tried again."""
        try:
            made = self.retrieve(batch_id)
        except NotThereError:
            return True
        except JudgeError as error:
            _log.warning("files at the Batch API are not deleted yet: %s", error)
            return False
        names = (made.input_file_id, made.output_file_id, made.error_file_id)
        left = [name for name in names if name and not self._delete(name)]
        return not left

    def delete_uploads(self, submissions: Collection[str]) -> dict[str, bool]:
        """Delete the files of submissions that have become no job.

        Returns:
            Whether a file was there, by submission; without those whose file is still there, and
            empty if the endpoint does not list its files now.
        """
        wanted = {_file_name(submission): submission for submission in submissions}
        try:
            with self._translated():
                found = {
                    wanted[file.filename]: file.id
                    for file in self._client.files.list(purpose="batch")
                    if file.filename in wanted
                }
        except JudgeError as error:
            _log.warning("files at the Batch API are not deleted yet: %s", error)
            return {}
        return {
            submission: submission in found
            for submission in submissions
            if submission not in found or self._delete(found[submission])
        }

    def _delete(self, name: str) -> bool:
        """Delete a file; return whether there is nothing left to be tried again."""
        try:
            with self._translated(name):
                self._client.files.delete(name)
        except NotThereError:
            return True
        except JudgeError as error:
            _log.warning("a file at the Batch API is not deleted yet: %s", error)
            return False
        return True

    def _translated(self, wanted: str | None = None) -> AbstractContextManager[None]:
        """Raise errors of the client as ours; `wanted` names the job or file that is asked for."""
        return translated(lambda failed: _ours(failed, self._model, wanted))


def _file_name(submission: str) -> str:
    """Name the file of a submission, so that it is found whatever became of the process."""
    return f"harmonizer-{submission}.jsonl"


def _batch(made: Any) -> Any:
    """Return what the client has read; it reads text where the endpoint answers with a page.

    Raises:
        TypeError: it is no batch job.
    """
    import openai.types

    if not isinstance(made, openai.types.Batch):
        raise TypeError("the answer is no batch job")
    return made


def _ours(failed: Exception, model: str, wanted: str | None) -> JudgeError:
    import openai

    if wanted is not None and isinstance(failed, openai.NotFoundError):
        return NotThereError(
            f"the endpoint does not know {wanted} (HTTP 404): check OPENAI_BASE_URL and "
            f"OPENAI_API_KEY, or give a batch up with `harmonizer batch cancel {wanted}`"
        )
    if isinstance(failed, openai.APIStatusError):
        return JudgeError(Complaint.of(failed).told(model))
    return JudgeError(
        f"the endpoint cannot be reached ({type(failed).__name__}): check OPENAI_BASE_URL"
    )
