"""Publishing a version on the Hugging Face Hub: records and card, nothing else."""

from __future__ import annotations

import re

from dialogue.errors import AkuError, FileError, SettingsError
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, verify_version

PUBLISHED = ("README.md", *(f"{split}.jsonl" for split in SPLITS))
"""What leaves the house.  `rejected.jsonl` links into Label Studio, `checks.json` quotes personal data, and
`manifest.json` and `drafts.jsonl` are for the studio itself."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class HubError(AkuError):
    """The hub can not be reached, or answers what it should not."""


def push_to_hub(
    version: DatasetVersion,
    repository: str,
    *,
    private: bool = True,
    personal_data: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload a version as one commit; returns the address of the commit.

    The token is the one of `hf auth login` or of the environment variable `HF_TOKEN`.

    Args:
        version: the version; its files are checked against its id first.
        repository: `owner/name`; made if it is not there.
        private: whether a repository that is made now is private.
        personal_data: upload even though passages look like personal data.
        endpoint: address of the hub; default: what `huggingface_hub` takes.

    Raises:
        SettingsError: the repository's name makes no sense, or the hub refuses the token.
        FileError: the version was tampered with, or holds what looks like personal data.
        HubError: the hub does not answer.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not _REPOSITORY.fullmatch(repository):
        raise SettingsError(f"{repository!r} is not a repository of the hub; write it as owner/name.")
    verify_version(version)
    found = int(version.manifest["findings"]["personal_data"])
    if found and not personal_data:
        raise FileError(
            f"{version.path / 'checks.json'}: lists {found} passages that look like personal data; correct them in "
            "Label Studio and export again, or push with --with-personal-data."
        )
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=version.path,
            allow_patterns=list(PUBLISHED),
            commit_message=f"Data set version {version.id}",
        )
    except HFValidationError as error:
        raise SettingsError(f"{repository!r}: the hub does not take this name ({error}).") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise SettingsError(
                f"the hub refuses access to {repository} ({status}); run `hf auth login` or set HF_TOKEN."
            ) from error
        raise HubError(f"the hub answers with status {status} for {repository}; try again later.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise HubError(f"the hub does not answer ({type(error).__name__}); check the connection.") from error
    return str(commit.commit_url)
