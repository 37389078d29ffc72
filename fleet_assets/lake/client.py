"""lakeFS: branches, commits, merges and objects. The only module that imports lakefs_client, so that it can be replaced.

In: an installation's address and keys. Out: Repository. Objects go through the S3 gateway: the client's get_object
expects a header that the server does not send.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import urllib3
from lakefs_client import ApiException, Configuration, models
from lakefs_client.client import LakeFSClient

from fleet_assets.errors import FleetError
from fleet_assets.lake.refusals import AlreadyExists, NotFound, refusal, unreachable

MAIN = "main"
_PAGE = 1000
# The supervisor restarts a server within seconds; longer than this it is down.
_RETRY_FOR_S = 20.0
_TIMEOUT_S = (5.0, 120.0)  # to connect, to answer: a merge with a pre-merge action is the slowest call


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
    metarange: str  # the file of lakeFS that lists what it holds


@dataclass(frozen=True)
class ObjectInfo:
    """address: where its bytes lie in the storage behind lakeFS."""

    path: str
    bytes: int
    t_s: int
    address: str


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
        configuration.retries = urllib3.Retry(0, redirect=3)  # _call repeats, and knows what may be repeated
        configuration.connection_pool_maxsize = 16
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

    @cached_property
    def _http(self) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=_TIMEOUT_S[0], read=_TIMEOUT_S[1])
        return urllib3.PoolManager(maxsize=32, retries=False, timeout=timeout)

    @cached_property
    def _authorization(self) -> dict[str, str]:
        return urllib3.make_headers(basic_auth=f"{self._access_key_id}:{self._secret_access_key}")

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
            "retry_timeout": f"{_RETRY_FOR_S:.0f}s",
        }

    def uri(self, ref: str, path: str, scheme: str = "s3") -> str:
        return f"{scheme}://{self.name}/{ref}/{path}"

    # ---- repository ----

    def exists(self) -> bool:
        try:
            self._call("repository", self._client.repositories_api.get_repository, self.name)
        except NotFound:
            return False
        return True

    def create(self) -> None:
        """Creates the repository; another process may have been first."""
        creation = models.RepositoryCreation(
            name=self.name, storage_namespace=f"local://{self.name}", default_branch=MAIN
        )
        try:
            self._call("repository", self._client.repositories_api.create_repository, creation)
        except FleetError:
            # Two at once: the second meets the name, or the namespace, that the first one took.
            if not self._appears():
                raise

    def _appears(self) -> bool:
        for _ in range(50):
            if self.exists():
                return True
            time.sleep(0.1)
        return False

    def protect(self, pattern: str) -> None:
        """Only merges reach branches of this pattern."""
        rules = [models.BranchProtectionRule(pattern=pattern)]
        self._call("branch protection", self._client.repositories_api.set_branch_protection_rules, self.name, rules)

    def protected(self) -> set[str]:
        """Patterns of the branches that take merges only."""
        rules = self._call("branch protection", self._client.repositories_api.get_branch_protection_rules, self.name)
        return {str(rule.pattern) for rule in getattr(rules, "value", rules)}

    # ---- references ----

    def commit_id(self, ref: str) -> str:
        """The commit that a branch, tag or (short) commit id stands for."""
        return str(self._call(f"reference {ref}", self._client.commits_api.get_commit, self.name, ref).id)

    def create_branch(self, name: str, source: str) -> None:
        """Raises AlreadyExists."""
        creation = models.BranchCreation(name=name, source=source)
        self._call(
            f"branch {name}", self._client.branches_api.create_branch, self.name, creation, done_on=AlreadyExists
        )

    def delete_branch(self, name: str) -> None:
        """Gone is gone: deleting what is not there is no error."""
        try:
            self._call(f"branch {name}", self._client.branches_api.delete_branch, self.name, name)
        except NotFound:
            return

    def branches(self, prefix: str = "") -> Iterator[str]:
        return iter(self.heads(prefix))

    def heads(self, prefix: str = "") -> dict[str, str]:
        """Commit id of every branch."""
        found = self._pages("branches", self._client.branches_api.list_branches, self.name, prefix=prefix)
        return {str(branch.id): str(branch.commit_id) for branch in found}

    def tag(self, name: str, ref: str) -> None:
        """Names are letters, digits, - and _ only. Tags are for ever: a name that is taken is AlreadyExists."""
        creation = models.TagCreation(id=name, ref=ref)
        self._call(f"tag {name}", self._client.tags_api.create_tag, self.name, creation, done_on=AlreadyExists)

    def tags(self, prefix: str = "") -> dict[str, str]:
        """Commit id of every tag."""
        found = self._pages("tags", self._client.tags_api.list_tags, self.name, prefix=prefix)
        return {str(tag.id): str(tag.commit_id) for tag in found}

    def commit(self, branch: str, message: str, metadata: Mapping[str, str] | None = None) -> str:
        """Raises NothingToCommit; after a lost answer that may mean that the commit was made."""
        creation = models.CommitCreation(message=message, metadata=dict(metadata or {}))
        return str(self._call(f"branch {branch}", self._client.commits_api.commit, self.name, branch, creation).id)

    def merge(self, source: str, target: str, message: str, metadata: Mapping[str, str] | None = None) -> str:
        """Merges source into target; gives the merge commit.

        Raises MergeConflict, NothingToCommit, FleetError when the pre-merge action refuses it, and LakeUnreachable
        when the answer is lost: the merge may have happened then, so it is never repeated here.
        """
        merge = models.Merge(message=message, metadata=dict(metadata or {}))
        result = self._call(
            f"merge of {source} into {target}",
            self._client.refs_api.merge_into_branch,
            self.name,
            source,
            target,
            merge=merge,
            repeat=False,
        )
        return str(result.reference)

    def diff(self, left: str, right: str, prefix: str = "") -> Iterator[Change]:
        """What right has changed since left, both as committed (two-dot: the plain difference)."""
        for entry in self._pages(
            f"difference of {left} and {right}",
            self._client.refs_api.diff_refs,
            self.name,
            left,
            right,
            prefix=prefix,
            type="two_dot",
        ):
            yield Change(str(entry.path), str(entry.type))

    def log(
        self, ref: str, limit: int | None = None, stop_at: str | None = None, *, first_parent: bool = True
    ) -> Iterator[Commit]:
        """History (of first parents alone, unless told), newest first; ends before stop_at (a commit id) or after limit
        commits."""
        options: dict[str, Any] = {"stop_at": stop_at} if stop_at else {}
        entries = self._pages(
            f"history of {ref}",
            self._client.refs_api.log_commits,
            self.name,
            ref,
            amount=min(limit or 100, 100),
            first_parent=first_parent,
            **options,
        )
        for number, entry in enumerate(entries):
            if entry.id == stop_at or (limit is not None and number >= limit):
                return
            yield Commit(
                str(entry.id),
                tuple(entry.parents),
                entry.message,
                entry.creation_date,
                dict(entry.get("metadata", {})),
                str(entry.meta_range_id),
            )

    # ---- objects ----

    def list(self, ref: str, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Objects below a prefix in order of their paths, from the first one behind `after`."""
        for entry in self._pages(
            f"objects of {ref}", self._client.objects_api.list_objects, self.name, ref, prefix=prefix, after=after
        ):
            size, address = int(entry.get("size_bytes", 0)), str(entry.physical_address)
            yield ObjectInfo(str(entry.path), size, int(entry.mtime), address)

    def has(self, ref: str, path: str) -> bool:
        """Whether the object is there."""
        try:
            self._call(path, self._client.objects_api.stat_object, self.name, ref, path)
        except NotFound:
            return False
        return True

    def get(self, ref: str, path: str) -> bytes:
        """Raises NotFound, LakeUnreachable."""
        return bytes(self._s3(ref, path, "get_object")["Body"].read())

    def get_range(self, ref: str, path: str, offset: int, length: int) -> bytes:
        """Part of an object. Raises NotFound, LakeUnreachable.

        Not through S3, whose client signs and parses for longer than such a read takes.
        """
        url = f"{self.url}/api/v1/repositories/{self.name}/refs/{ref}/objects"
        headers = {**self._authorization, "Range": f"bytes={offset}-{offset + length - 1}"}
        deadline = time.monotonic() + _RETRY_FOR_S
        while True:
            try:
                answer = self._http.request("GET", url, fields={"path": path}, headers=headers)
            except urllib3.exceptions.HTTPError as error:
                cause: Exception = error
            else:
                if answer.status in (200, 206):
                    return bytes(answer.data)
                if answer.status == 404:
                    raise NotFound(f"{path} is not at {ref[:12]}", where=answer.data[:200].decode(errors="replace"))
                refused = refusal(f"{path} at {ref[:12]}", answer.status, answer.data, answer.reason)
                if answer.status not in (423, 429) and answer.status < 500:
                    raise refused
                cause = refused
            if time.monotonic() > deadline:
                raise unreachable(self.url, path, cause) from cause
            time.sleep(0.5)

    def put(self, branch: str, path: str, data: bytes) -> None:
        self._s3(branch, path, "put_object", Body=data)

    def upload(self, branch: str, path: str, file: Path) -> None:
        """A file of any size, in parts."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError

        try:
            self.s3.upload_file(str(file), self.name, f"{branch}/{path}")
        except (S3UploadFailedError, BotoCoreError) as error:
            raise FleetError(f"{file} could not be put to {path} on branch {branch}", where=str(error)) from error

    def _s3(self, ref: str, path: str, operation: str, **options: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + _RETRY_FOR_S
        while True:
            try:
                return getattr(self.s3, operation)(Bucket=self.name, Key=f"{ref}/{path}", **options)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    raise NotFound(f"{path} is not at {ref[:12]}", where=str(error)) from error
                raise FleetError(f"lakeFS refused {path} at {ref[:12]}", where=str(error)) from error
            except BotoCoreError as error:
                if time.monotonic() > deadline:
                    raise unreachable(self.url, path, error) from error
                time.sleep(0.5)

    def copy(self, source_ref: str, path: str, branch: str) -> None:
        """Puts an object back to what it is at source_ref."""
        creation = models.ObjectCopyCreation(src_path=path, src_ref=source_ref)
        self._call(path, self._client.objects_api.copy_object, self.name, branch, path, creation)

    def delete(self, branch: str, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), _PAGE):
            batch = models.PathList(paths=list(paths[start : start + _PAGE]))
            self._call(f"branch {branch}", self._client.objects_api.delete_objects, self.name, branch, batch)

    # ---- calls ----

    def _pages(self, what: str, method: Any, *args: Any, after: str = "", **options: Any) -> Iterator[Any]:
        options.setdefault("amount", _PAGE)
        while True:
            page = self._call(what, method, *args, after=after, **options)
            yield from page.results
            if not page.pagination.has_more:
                return
            after = page.pagination.next_offset

    def _call(
        self,
        what: str,
        method: Any,
        *args: Any,
        repeat: bool = True,
        done_on: type[FleetError] | None = None,
        **options: Any,
    ) -> Any:
        """done_on: the refusal that means, in a repeat after a lost answer, that the first try was carried out."""
        deadline = time.monotonic() + _RETRY_FOR_S
        pause_s = 0.1
        lost = False
        while True:
            try:
                return method(*args, _request_timeout=_TIMEOUT_S, **options)
            except ApiException as error:
                # 423 and 429: others are at it too, and nothing was done.
                busy = error.status in (423, 429)
                if error.status and error.status < 500 and not busy:
                    refused = refusal(what, error.status, error.body, error.reason)
                    if lost and done_on is not None and isinstance(refused, done_on):
                        return None
                    raise refused from error
                cause: Exception = error
                lost = lost or not busy
            except (urllib3.exceptions.HTTPError, ConnectionError) as error:
                cause = error
                busy = False
                lost = True
            if (not repeat and not busy) or time.monotonic() > deadline:
                raise unreachable(self.url, what, cause) from cause
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, 2.0)
