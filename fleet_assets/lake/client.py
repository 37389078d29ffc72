"""lakeFS: branches, commits, merges and objects. The only module that imports lakefs_client, so that it can be replaced.

In: an installation's address and keys. Out: Repository. Objects go through the S3 gateway: the client's get_object
expects a header that the server does not send.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from lakefs_client import ApiException, Configuration, models
from lakefs_client.client import LakeFSClient

from fleet_assets.errors import FleetError

T = TypeVar("T")
MAIN = "main"
_PAGE = 1000
# The supervisor restarts a server within seconds; longer than this it is down.
_RETRY_FOR_S = 20.0


class LakeUnreachable(FleetError):
    """lakeFS did not answer for a while."""


class MergeConflict(FleetError):
    """Both sides changed the same object."""


class NothingToCommit(FleetError):
    """The branch has no uncommitted change."""


class NotFound(FleetError):
    """No such branch, tag, commit or object."""


@dataclass(frozen=True)
class Change:
    """One difference between two references. kind: added, changed, removed."""

    path: str
    kind: str


@dataclass(frozen=True)
class Commit:
    id: str
    parents: tuple[str, ...]
    message: str
    t_s: int
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class ObjectInfo:
    path: str
    bytes: int
    t_s: int


class Repository:
    """One lakeFS repository. Calls are repeated while the server restarts, then fail with LakeUnreachable."""

    def __init__(self, url: str, access_key_id: str, secret_access_key: str, name: str = "fleet") -> None:
        self.url = url
        self.name = name
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key

    @cached_property
    def _client(self) -> LakeFSClient:
        configuration = Configuration(
            host=f"{self.url}/api/v1", username=self._access_key_id, password=self._secret_access_key
        )
        return LakeFSClient(configuration)

    @cached_property
    def s3(self) -> Any:
        """A boto3 client for the S3 gateway: bucket = repository, key = <reference>/<path>. Thread-safe."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            region_name="us-east-1",
            config=Config(
                # lakeFS does not know the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
                retries={"max_attempts": 8, "mode": "standard"},
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=32,
            ),
        )

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs needs to read and write through the S3 gateway."""
        return {
            "endpoint_url": self.url,
            "access_key_id": self._access_key_id,
            "secret_access_key": self._secret_access_key,
            "region": "us-east-1",
            "allow_http": str(self.url.startswith("http://")).lower(),
            "virtual_hosted_style_request": "false",
            # A commit is a conditional PUT: two writers of one version cannot both win.
            "aws_conditional_put": "etag",
            "timeout": "60s",
        }

    def uri(self, ref: str, path: str, scheme: str = "s3") -> str:
        return f"{scheme}://{self.name}/{ref}/{path}"

    # ---- repository ----

    def exists(self) -> bool:
        try:
            self._call(lambda: self._client.repositories_api.get_repository(self.name), "repository")
        except NotFound:
            return False
        return True

    def create(self) -> None:
        """Creates the repository; another process may have been first."""
        creation = models.RepositoryCreation(
            name=self.name, storage_namespace=f"local://{self.name}", default_branch=MAIN
        )
        try:
            self._call(lambda: self._client.repositories_api.create_repository(creation), "repository")
        except MergeConflict:
            return  # it is there

    def protect(self, pattern: str) -> None:
        """Only merges reach branches of this pattern."""
        rules = [models.BranchProtectionRule(pattern=pattern)]
        self._call(
            lambda: self._client.repositories_api.set_branch_protection_rules(self.name, rules), "branch protection"
        )

    # ---- references ----

    def commit_id(self, ref: str) -> str:
        """The commit that a branch, tag or (short) commit id stands for."""
        return str(self._call(lambda: self._client.commits_api.get_commit(self.name, ref), f"reference {ref}").id)

    def create_branch(self, name: str, source: str) -> None:
        creation = models.BranchCreation(name=name, source=source)
        self._call(lambda: self._client.branches_api.create_branch(self.name, creation), f"branch {name}")

    def delete_branch(self, name: str) -> None:
        """Gone is gone: deleting what is not there is no error."""
        try:
            self._call(lambda: self._client.branches_api.delete_branch(self.name, name), f"branch {name}")
        except NotFound:
            return

    def branches(self, prefix: str = "") -> Iterator[str]:
        for branch in self._pages(
            lambda after: self._client.branches_api.list_branches(self.name, prefix=prefix, after=after, amount=_PAGE),
            "branches",
        ):
            yield str(branch.id)

    def tag(self, name: str, ref: str) -> None:
        """Names are letters, digits, - and _ only. Tags are for ever: a name that is taken is a MergeConflict."""
        creation = models.TagCreation(id=name, ref=ref)
        self._call(lambda: self._client.tags_api.create_tag(self.name, creation), f"tag {name}")

    def tags(self, prefix: str = "") -> dict[str, str]:
        found = self._pages(
            lambda after: self._client.tags_api.list_tags(self.name, prefix=prefix, after=after, amount=_PAGE), "tags"
        )
        return {str(tag.id): str(tag.commit_id) for tag in found}

    def commit(self, branch: str, message: str, metadata: Mapping[str, str] | None = None) -> str:
        """Raises NothingToCommit."""
        creation = models.CommitCreation(message=message, metadata=dict(metadata or {}))
        return str(self._call(lambda: self._client.commits_api.commit(self.name, branch, creation), branch).id)

    def merge(self, source: str, target: str, message: str, metadata: Mapping[str, str] | None = None) -> str:
        """Merges source into target; gives the merge commit. Raises MergeConflict; pre-merge refusals are FleetErrors."""
        merge = models.Merge(message=message, metadata=dict(metadata or {}))
        # Not repeated on a lost connection: the merge may have happened. The publisher looks it up instead.
        result = self._call(
            lambda: self._client.refs_api.merge_into_branch(self.name, source, target, merge=merge),
            f"merge of {source} into {target}",
            repeat=False,
        )
        return str(result.reference)

    def diff(self, left: str, right: str, prefix: str = "") -> Iterator[Change]:
        """What right has changed since left, both as committed (two-dot: the plain difference)."""
        for entry in self._pages(
            lambda after: self._client.refs_api.diff_refs(
                self.name, left, right, prefix=prefix, after=after, amount=_PAGE, type="two_dot"
            ),
            f"difference of {left} and {right}",
        ):
            yield Change(str(entry.path), str(entry.type))

    def log(self, ref: str, limit: int | None = None, stop_at: str | None = None) -> Iterator[Commit]:
        """First-parent history, newest first; ends before stop_at (a commit id) or after limit commits."""
        options = {"stop_at": stop_at} if stop_at else {}
        entries = self._pages(
            lambda after: self._client.refs_api.log_commits(
                self.name, ref, after=after, amount=min(limit or 100, 100), first_parent=True, **options
            ),
            f"history of {ref}",
        )
        for number, entry in enumerate(entries):
            if entry.id == stop_at or (limit is not None and number >= limit):
                return
            yield Commit(
                str(entry.id), tuple(entry.parents), entry.message, entry.creation_date, dict(entry.get("metadata", {}))
            )

    # ---- objects ----

    def list(self, ref: str, prefix: str = "") -> Iterator[ObjectInfo]:
        for entry in self._pages(
            lambda after: self._client.objects_api.list_objects(
                self.name, ref, prefix=prefix, after=after, amount=_PAGE
            ),
            f"objects of {ref}",
        ):
            yield ObjectInfo(str(entry.path), int(entry.get("size_bytes", 0)), int(entry.mtime))

    def get(self, ref: str, path: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            return bytes(self.s3.get_object(Bucket=self.name, Key=f"{ref}/{path}")["Body"].read())
        except ClientError as error:
            raise NotFound(f"{path} is not at {ref[:12]}", where=str(error)) from error

    def put(self, branch: str, path: str, data: bytes) -> None:
        self.s3.put_object(Bucket=self.name, Key=f"{branch}/{path}", Body=data)

    def upload(self, branch: str, path: str, file: Path) -> None:
        """A file of any size, in parts."""
        self.s3.upload_file(str(file), self.name, f"{branch}/{path}")

    def copy(self, source_ref: str, path: str, branch: str) -> None:
        """Puts an object back to what it is at source_ref, without moving bytes."""
        creation = models.ObjectCopyCreation(src_path=path, src_ref=source_ref)
        self._call(lambda: self._client.objects_api.copy_object(self.name, branch, path, creation), path)

    def delete(self, branch: str, paths: list[str]) -> None:
        for start in range(0, len(paths), _PAGE):
            batch = models.PathList(paths=paths[start : start + _PAGE])
            self._call(lambda batch=batch: self._client.objects_api.delete_objects(self.name, branch, batch), branch)

    # ---- calls ----

    def _pages(self, call: Callable[[str], Any], what: str) -> Iterator[Any]:
        after = ""
        while True:
            page = self._call(lambda position=after: call(position), what)
            yield from page.results
            if not page.pagination.has_more:
                return
            after = page.pagination.next_offset

    def _call(self, call: Callable[[], T], what: str, *, repeat: bool = True) -> T:
        deadline = time.monotonic() + _RETRY_FOR_S
        pause_s = 0.1
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status and error.status < 500:
                    raise _explain(error, what) from error
                cause: Exception = error
            except (urllib3.exceptions.HTTPError, ConnectionError) as error:
                cause = error
            if not repeat or time.monotonic() > deadline:
                raise LakeUnreachable(
                    f"lakeFS at {self.url} does not answer",
                    where=f"{what}: {cause}".splitlines()[0],
                    remedy="`fleet status` shows the servers, `fleet up` starts them.",
                ) from cause
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause_s = min(pause_s * 2, 2.0)


def _explain(error: ApiException, what: str) -> FleetError:
    text = _message(error)
    match error.status:
        case 404:
            return NotFound(f"lakeFS has no {what}", where=text)
        case 409:
            return MergeConflict(f"Conflict at {what}", where=text)
        case 401 | 403:
            return FleetError(
                f"lakeFS refused access to {what}",
                where=text,
                remedy="Check the keys in FLEET_HOME/secrets.json; main takes merges only.",
            )
        case 412:
            return FleetError(f"The pre-merge action refused the {what}", where=text, remedy="See docs/operations.md.")
        case 400 if "no changes" in text:
            return NothingToCommit(f"Nothing to commit on {what}")
        case status:
            return FleetError(f"lakeFS refused {what} with status {status}", where=text)


def _message(error: ApiException) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
