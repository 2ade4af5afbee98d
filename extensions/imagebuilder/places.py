"""Where secrets, traces of one machine and things of one run lie in a file tree.

One list for two uses: what lies at such a place is taken out of a layer before it becomes an image, and is looked
for once more in what is about to be pushed. Paths are relative to the root, without a leading slash.
"""

from __future__ import annotations

import re

#: Ends of paths that hold a credential, whoever's home they are in.
_CREDENTIALS = re.compile(
    r"""(?:^|/)(?:
      \.netrc | _netrc | \.git-credentials | \.config/git/credentials | \.pgpass | \.my\.cnf | \.pypirc
    | \.docker/config\.json | \.dockercfg | \.config/containers/auth\.json | \.singularity/docker-config\.json
    | \.apptainer/docker-config\.json | \.kube/config | \.config/helm/registry/config\.json
    | \.aws/credentials | \.aws/(?:sso|cli)/cache/[^/]+ | \.boto | \.s3cfg | \.config/rclone/rclone\.conf
    | \.config/gcloud/(?:application_default_credentials\.json|credentials\.db|access_tokens\.db)
    | \.config/gcloud/legacy_credentials/.+ | \.azure/(?:accessTokens\.json|msal_token_cache\.(?:json|bin))
    | \.azure/service_principal_entries\.(?:json|bin)
    | \.config/gh/hosts\.yml | \.config/glab-cli/config\.yml | \.huggingface/token
    | \.cache/huggingface/(?:token|stored_tokens) | \.kaggle/kaggle\.json | \.cargo/credentials(?:\.toml)?
    | \.ssh/id_[^/.]+ | \.gnupg/(?:private-keys-v1\.d/.+|secring\.gpg) | \.vnc/passwd | \.config/tigervnc/passwd
    | jupyter_cookie_secret | jupyterhub_cookie_secret | \.local/share/jupyter/notebook_secret
    | jupyter/runtime/[^/]+ | jpserver-\d+\.json | nbserver-\d+\.json
    | \.Xauthority | \.ICEauthority
    )$""",
    re.VERBOSE,
)
_HISTORY = re.compile(
    r"""(?:^|/)(?:\.(?:bash|zsh|python|sqlite|mysql|psql|node_repl|R)_?history | \.sh_history | \.histfile
    | \.Rhistory | \.lesshst | \.viminfo | fish/fish_history | \.ipython/profile_[^/]+/history\.sqlite
    )$""",
    re.VERBOSE,
)
_HOST_KEY = re.compile(r"etc/ssh/ssh_host_[^/]*_key(?:\.pub)?|etc/dropbear/dropbear_[^/]*_host_key")
_LOCK = re.compile(
    r"""(?:^|/)(?:\.X\d+-lock | \.~lock\.[^/]*\# | \.fuse_hidden[^/]* | \.nfs[0-9a-f]{16,} )$
    | ^var/(?:lib/dpkg/(?:lock|lock-frontend|triggers/Lock)|lib/apt/lists/lock|cache/apt/archives/lock)$
    | ^var/cache/debconf/[^/]*\.lock$ | (?:^|/)\.config/(?:chromium|google-chrome)/Singleton[^/]*$""",
    re.VERBOSE,
)


def holds_credentials(path: str) -> bool:
    """Whether programs keep a credential in the file at this path."""
    return bool(_CREDENTIALS.search(path))


def is_history(path: str) -> bool:
    """Whether a shell or interpreter keeps there what was typed."""
    return bool(_HISTORY.search(path))


def is_host_key(path: str) -> bool:
    """Whether this is a key that tells one machine from another."""
    return bool(_HOST_KEY.fullmatch(path))


def is_stale_lock(path: str) -> bool:
    """Whether this only says that a process runs which will not run in the image."""
    return bool(_LOCK.search(path))
