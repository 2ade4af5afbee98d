#!/usr/bin/env python3
"""Build the container images of this clone, ``images/*/Containerfile``, and keep them outside of it.

Each image becomes a docker archive in ``~/.cache/galilean/images/<hash>/``; the hash is over everything that
its Containerfile copies, over the file itself and over the base, so what is there is never built again and
yesterday's code is never taken for today's. The same hash is the image's tag.

Built by Docker where a daemon answers, else by buildah, which needs none. The base is an argument: any
Debian with Python 3.11 by its name in a registry, or ``local``, a minimal one made here from Debian's
packages by mmdebstrap. The machine's certificate authorities, its package indexes and its proxies reach the
build as secrets and are in no layer. Only Python's standard library is used, so this runs in a bare clone.

Prints one line for each image: its name, its reference and its archive.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {"control": "galilean", "proxy": "galilean-proxy", "jupyter": "galilean-jupyter"}
SUITE = "bookworm"
LEFT_OUT = ("doc", "info", "locale", "man")
LEFT_BEHIND = r"__pycache__/|static/vendor/|lab/labextensions/"
KEEP_SECONDS = 3 * 24 * 3600
#: Half a gigabyte each, and every change of the code makes another.
KEEP_OF_EACH = 5
IN_USE_SECONDS = 3 * 3600
SOURCE_TIME = 1_577_836_800  # 2020: old enough for every clock, new enough for archives
KEEP_LAYERS_SECONDS = 7 * 24 * 3600
#: Ways to packages, which may hold passwords.
PASSED_ON = (
    "NPM_CONFIG_REGISTRY", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX",
)  # fmt: skip
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def say(text: str) -> None:
    print(f"images: {text}", file=sys.stderr, flush=True)


def run(*command: str, env: dict[str, str] | None = None) -> None:
    """A command of which nothing is told unless it fails; then its last lines are."""
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
        )
        if done.returncode:
            log.seek(0)
            print("".join(log.readlines()[-40:]), file=sys.stderr)
            raise subprocess.CalledProcessError(done.returncode, command)


# ------------------------------------------------------------------------------------------------- what goes in


def copied(containerfile: str) -> list[str]:
    """What a Containerfile takes from the clone, in its own order."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", containerfile, re.MULTILINE)
    return [source for line in lines for source in shlex.split(line)[:-1]]


def files_of(source: Path) -> Iterator[Path]:
    """The files below a path that ``.dockerignore`` lets through."""
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        if path.is_file() and not re.search(LEFT_BEHIND, path.as_posix()):
            yield path


def digest_of(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:20]


def snapshot(name: str, target: Path, root: Path = ROOT) -> None:
    """Copy what an image is made of: somebody may be writing in the clone, and its modes and times are its own."""
    own = f"images/{name}/Containerfile"
    for source in [own, *copied((root / own).read_text())]:
        for file in files_of(root / source):
            copy = target / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
            os.utime(copy, (SOURCE_TIME, SOURCE_TIME))
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
        os.utime(folder, (SOURCE_TIME, SOURCE_TIME))


def key_of(base: str, context: Path) -> str:
    """The tag of an image: a hash of all that it is made of."""
    parts = [platform.machine().encode(), base.encode()]
    for file in files_of(context):
        parts += [file.relative_to(context).as_posix().encode(), file.read_bytes()]
    return digest_of(parts)


def base_key() -> str:
    """The tag of the local base."""
    return digest_of(word.encode() for word in (platform.machine(), SUITE, *LEFT_OUT))


# ----------------------------------------------------------------------------------------------------- builders


@dataclass(frozen=True)
class Builder:
    """Docker or buildah; the latter with a store of its own in ``cache``, kept for its layers."""

    name: str
    cache: Path

    @property
    def command(self) -> list[str]:
        if self.name == "docker":
            return ["docker"]
        store = self.cache / "store"
        return [
            "buildah",
            "--root",
            str(store),
            "--runroot",
            str(store / "run"),
            "--storage-driver",
            "overlay",
        ]

    def build(self, context: Path, containerfile: Path, reference: str, *more: str) -> None:
        arguments = [*more, "--file", str(containerfile), "--tag", reference, str(context)]
        if self.name == "docker":
            for proxy in PROXIES:
                arguments[:0] = ["--build-arg", proxy] if os.environ.get(proxy) else []
            run("docker", "build", *arguments, env=os.environ | {"DOCKER_BUILDKIT": "1"})
        else:  # no container of its own: works inside one, and needs no network set up
            run(*self.command, "build", "--isolation", "chroot", "--layers", "--format", "docker", *arguments)

    def has(self, reference: str) -> bool:
        kind = ["image", "inspect"] if self.name == "docker" else ["inspect", "--type", "image"]
        return (
            subprocess.run([*self.command, *kind, reference], capture_output=True, check=False).returncode
            == 0
        )

    def save(self, reference: str, archive: Path) -> None:
        if self.name == "docker":
            run("docker", "save", "--output", str(archive), reference)
        else:
            run(*self.command, "push", "--quiet", reference, f"docker-archive:{archive}:{reference}")

    def push(self, archive: Path, reference: str, target: str) -> None:
        if self.name == "docker":
            run("docker", "load", "--quiet", "--input", str(archive))
            run("docker", "tag", reference, target)
            run("docker", "push", target)
        else:
            run(*self.command, "pull", "--quiet", f"docker-archive:{archive}")
            run(*self.command, "push", reference, f"docker://{target}")

    def tidy(self) -> None:
        """What a build leaves mounted, or left when it was killed; nobody else uses the store meanwhile."""
        if self.name == "buildah" and (self.cache / "store").exists():
            run(*self.command, "rm", "--all")
            subprocess.run(
                ["umount", str(self.cache / "store" / "overlay")], capture_output=True, check=False
            )

    def forget(self) -> None:
        """Drop every layer and base that was kept for later builds: they grow, and Debian mends its packages."""
        if self.name == "buildah" and (self.cache / "store").exists():
            run(*self.command, "rmi", "--all", "--force")
        for base in self.cache.glob("base-*.tar"):
            base.unlink()


def find_builder(cache: Path, wanted: str = "") -> Builder:
    """The builder asked for, else a Docker that answers, else buildah."""
    if wanted:
        return Builder(wanted, cache)
    answers = ["docker", "info", "--format", "{{.ServerVersion}}"]
    if shutil.which("docker") and subprocess.run(answers, capture_output=True, check=False).returncode == 0:
        return Builder("docker", cache)
    if shutil.which("buildah"):
        return Builder("buildah", cache)
    sys.exit("Images are built by Docker or buildah, and neither is here. On Debian: apt install buildah")


# -------------------------------------------------------------------------------------------------------- build


def local_base(builder: Builder) -> str:
    """The reference of a base made here from Debian's packages; made if it is not there."""
    key = base_key()
    reference = f"localhost/galilean-base:{key}"
    archive = builder.cache / f"base-{key}.tar"
    if not archive.exists():
        if not shutil.which("mmdebstrap"):
            sys.exit("The base is made by mmdebstrap, which is missing: install it, or name a base (BASE=…).")
        say("making the base from Debian's packages")
        part = archive.with_suffix(".part")
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
        mirror = os.environ.get("GALILEAN_DEBIAN_MIRROR")
        run(
            "mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "--include=ca-certificates", *excluded,
            "--aptopt=Acquire::Retries 3", "--skip=output/dev", SUITE, str(part), *([mirror] if mirror else []),
        )  # fmt: skip
        part.rename(archive)
    if not builder.has(reference):
        with tempfile.TemporaryDirectory(dir=builder.cache) as folder:
            os.link(archive, Path(folder) / "root.tar")
            (Path(folder) / "Containerfile").write_text("FROM scratch\nADD root.tar /\n")
            builder.build(Path(folder), Path(folder) / "Containerfile", reference)
    return reference


def secrets(folder: Path) -> list[str]:
    """Arguments that hand the machine's own ways to packages to a build, and to nothing that it makes."""
    lines = [f"export {name}={shlex.quote(value)}" for name in PASSED_ON if (value := os.environ.get(name))]
    given: list[str] = []
    authorities = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    if authorities.is_file():
        given += ["--secret", f"id=ca,src={authorities.resolve()}"]
        lines += ["export UV_SYSTEM_CERTS=1"]
        for name in ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"):
            lines.append(f"export {name}=/run/secrets/ca")
    env = folder / "env"
    env.write_text("\n".join(lines) + "\n")
    return [*given, "--secret", f"id=env,src={env}"]


def build(name: str, base: str, builder: Builder) -> tuple[str, Path]:
    """Reference and archive of an image; built if it is not there."""
    with tempfile.TemporaryDirectory(prefix="galilean-images-") as folder:
        context = Path(folder) / "context"
        snapshot(name, context)
        key = key_of(base_key() if base == "local" else base, context)
        reference = f"localhost/{IMAGES[name]}:{key}"
        archive = builder.cache / key / f"{name}.tar"
        if archive.exists():
            return reference, archive
        began = time.monotonic()
        try:
            more = ["--build-arg", f"BASE={local_base(builder) if base == 'local' else base}"]
            say(f"building {name} by {builder.name}")
            more += secrets(Path(folder))
            if base == "local" and builder.name == "buildah":
                more += ["--pull=false"]
            builder.build(context, context / "images" / name / "Containerfile", reference, *more)
            archive.parent.mkdir(exist_ok=True)
            part = archive.with_suffix(".part")
            part.unlink(missing_ok=True)
            builder.save(reference, part)
            part.rename(archive)
        finally:
            builder.tidy()
        say(f"built {name} in {time.monotonic() - began:.0f} s, {archive.stat().st_size / 1e6:.0f} MB")
        return reference, archive


def forget(cache: Path, used: set[Path]) -> None:
    """Remove archives that nobody has used for days, or for hours when there are many newer ones of the image."""
    now = time.time()
    for path in used:
        os.utime(path)
    for name in {path.name for path in cache.glob("*/*.tar")}:
        found = sorted(cache.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for place, path in enumerate(found):
            unused = now - path.stat().st_mtime
            if unused > KEEP_SECONDS or (place >= KEEP_OF_EACH and unused > IN_USE_SECONDS):
                path.unlink()
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*IMAGES, []], help="which images; all when left out")
    parser.add_argument("--base", default="local", help="the base image; local = made here by mmdebstrap")
    parser.add_argument("--builder", default="", choices=["docker", "buildah"])
    parser.add_argument("--push", metavar="PREFIX", help="push to <PREFIX>/galilean:<TAG> and so on")
    parser.add_argument("--tag", help="the tag to push by; the hash when left out")
    parser.add_argument("--fresh", action="store_true", help="use nothing that was kept, so packages are new")
    arguments = parser.parse_args()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = home / "galilean" / "images"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is under way; waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        builder = find_builder(cache, arguments.builder)
        base = cache / f"base-{base_key()}.tar"
        if arguments.fresh or (base.exists() and time.time() - base.stat().st_mtime > KEEP_LAYERS_SECONDS):
            builder.forget()
        if arguments.fresh:
            for path in cache.glob("*/*.tar"):
                path.unlink()
        used: set[Path] = set()
        for name in arguments.names or IMAGES:
            reference, archive = build(name, arguments.base, builder)
            used.add(archive)
            print(name, reference, archive, sep="\t", flush=True)
            if arguments.push:
                tag = arguments.tag or reference.rpartition(":")[2]
                builder.push(archive, reference, f"{arguments.push.rstrip('/')}/{IMAGES[name]}:{tag}")
        forget(cache, used)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"images: {shlex.join(error.cmd[:2])} … ended with {error.returncode}; see above")
