#!/usr/bin/env python3
"""Build the container images of this clone, ``images/*/Containerfile``, and keep them outside of it.

Each image becomes a docker archive in ``~/.cache/galilean/images/<hash>/``; the hash is over everything that
its Containerfile copies, over the file itself and over the images that it begins from, so what is there is
never built again and yesterday's code is never taken for today's. The same hash is the image's tag. What an
image begins from (``ARG NAME=localhost/galilean-<image>``) is built first and stays with the builder.

Built by Docker where a daemon answers, else by buildah, which needs none. The base is an argument: any
Debian with Python 3.11 by its name in a registry, or ``local``, a minimal one made here from Debian's
packages by mmdebstrap. The machine's certificate authorities, its package indexes and its proxies reach the
build as secrets and are in no layer. Only Python's standard library is used, so this runs in a bare clone.

Prints one line for each image: its name, its reference, its archive.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What is built when nothing is named; the rest is large, or a part of others.
USUAL = ("control", "proxy", "jupyter")
MORE = ("mpi", "desktop", "pytorch-cpu", "pytorch-gpu", "adapter")
PARTS = ("tools", "base", "node")
SUITE = "bookworm"
LEFT_OUT = ("doc", "info", "locale", "man")
#: Who leaves documentation out keeps the licences.
KEPT = ("doc/*/copyright",)
LEFT_BEHIND = r"__pycache__/|static/vendor/|lab/labextensions/|desktop/static/|portal/static/pdf/"
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


def again(do: Callable[[], None]) -> None:
    """Do what fetches packages, and what fails twice more: a network may fail, and layers are kept."""
    for pause_seconds in (5, 20):
        try:
            return do()
        except subprocess.CalledProcessError:
            say(f"that failed; once more in {pause_seconds} s")
            time.sleep(pause_seconds)
    return do()


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


def parents(containerfile: str) -> dict[str, str]:
    """The images of this clone that one begins from, by the arguments that name them."""
    return dict(re.findall(r"^ARG (\w+)=localhost/galilean-([a-z-]+)$", containerfile, re.MULTILINE))


def called(name: str) -> str:
    """The name of an image where it is kept, without its tag."""
    return "galilean" if name == "control" else f"galilean-{name}"


def digest_of(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:20]


def made_of(name: str, root: Path) -> list[Path]:
    """The files that an image is made of, in order, relative to ``root``."""
    own = f"images/{name}/Containerfile"
    sources = [own, *copied((root / own).read_text())]
    return sorted({file.relative_to(root) for source in sources for file in files_of(root / source)})


def snapshot(name: str, target: Path, root: Path = ROOT) -> None:
    """Copy what an image is made of: somebody may be writing in the clone, and its modes and times are its own."""
    for file in made_of(name, root):
        copy = target / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, copy)
        copy.chmod(0o755 if os.access(root / file, os.X_OK) else 0o644)
        os.utime(copy, (SOURCE_TIME, SOURCE_TIME))
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
        os.utime(folder, (SOURCE_TIME, SOURCE_TIME))


def key_of(name: str, root: Path, base: str) -> str:
    """The tag of an image: a hash of all that it is made of, the tags of what it begins from among it."""
    text = (root / "images" / name / "Containerfile").read_text()
    parts = [platform.machine(), *(key_of(parent, root, base) for parent in parents(text).values())]
    if re.search(r"^ARG BASE=", text, re.MULTILINE):
        parts.append(base_key() if base == "local" else base)
    found = [word.encode() for word in parts]
    for file in made_of(name, root):
        found += [file.as_posix().encode(), (root / file).read_bytes()]
    return digest_of(found)


def base_key() -> str:
    """The tag of the local base."""
    return digest_of(word.encode() for word in (platform.machine(), SUITE, *LEFT_OUT, *KEPT))


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

    def load(self, archive: Path) -> None:
        """Take an image in that was built before."""
        if self.name == "docker":
            run("docker", "load", "--quiet", "--input", str(archive))
        else:
            run(*self.command, "pull", "--quiet", f"docker-archive:{archive}")

    def save(self, reference: str, archive: Path) -> None:
        if self.name == "docker":
            run("docker", "save", "--output", str(archive), reference)
        else:
            run(*self.command, "push", "--quiet", reference, f"docker-archive:{archive}:{reference}")

    def push(self, archive: Path, reference: str, target: str) -> None:
        self.load(archive)
        if self.name == "docker":
            run("docker", "tag", reference, target)
            run("docker", "push", target)
        else:
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
    """The builder asked for, else a Docker that answers and can build, else buildah."""
    if wanted:
        return Builder(wanted, cache)
    if shutil.which("docker") and docker_builds():
        return Builder("docker", cache)
    if shutil.which("buildah"):
        return Builder("buildah", cache)
    sys.exit(
        "Images are built by Docker with BuildKit or by buildah, and neither is here. "
        "On Debian: apt install buildah"
    )


def docker_builds() -> bool:
    """Whether a daemon answers, and the client has BuildKit: its own until 22, since then a plugin's."""

    def says(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    version = says("version", "--format", "{{.Client.Version}} {{.Server.Version}}")
    if not version:
        return False
    major = version.partition(".")[0]
    return (major.isdecimal() and int(major) < 23) or bool(says("buildx", "version"))


# -------------------------------------------------------------------------------------------------------- build


def local_base(builder: Builder) -> str:
    """The reference of a base made here from Debian's packages; made if it is not there."""
    key = base_key()
    reference = f"localhost/galilean-debian:{key}"
    archive = builder.cache / f"base-{key}.tar"
    if not archive.exists():
        if not shutil.which("mmdebstrap"):
            sys.exit("The base is made by mmdebstrap, which is missing: install it, or name a base (BASE=…).")
        say("making the base from Debian's packages")
        part = archive.with_suffix(".part")
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
        excluded += [f"--dpkgopt=path-include=/usr/share/{name}" for name in KEPT]
        mirror = os.environ.get("GALILEAN_DEBIAN_MIRROR")
        command = [
            "mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "--include=ca-certificates", *excluded,
            "--aptopt=Acquire::Retries 3", "--skip=output/dev", SUITE, str(part), *([mirror] if mirror else []),
        ]  # fmt: skip
        again(lambda: run(*command))
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


@dataclass(frozen=True)
class Workshop:
    """Builds images and what they begin from, each once, from one state of the clone.

    Parameters
    ----------
    base
        The base's name in a registry, or ``local``.
    builder
        Who builds.
    root
        A copy of what all these images are made of.
    """

    base: str
    builder: Builder
    root: Path

    def archive(self, name: str) -> tuple[str, Path]:
        """Reference and archive of an image; built if it is not there."""
        key = key_of(name, self.root, self.base)
        reference = f"localhost/{called(name)}:{key}"
        found = self.builder.cache / key / f"{name}.tar"
        if not found.exists():
            try:
                self.image(name)
                found.parent.mkdir(exist_ok=True)
                part = found.with_suffix(".part")
                part.unlink(missing_ok=True)
                self.builder.save(reference, part)
                part.rename(found)
            finally:
                self.builder.tidy()
        say(f"{name}: {found.stat().st_size / 1e6:.0f} MB")
        return reference, found

    def in_docker(self, name: str) -> str:
        """Reference of an image that Docker has; no archive is written where Docker itself builds."""
        if self.builder.name == "docker":
            return self.image(name)
        reference, archive = self.archive(name)
        docker = Builder("docker", self.builder.cache)
        if not docker.has(reference):
            docker.load(archive)
        return reference

    def image(self, name: str) -> str:
        """Reference of an image that the builder has; built with all that it begins from if it has not."""
        key = key_of(name, self.root, self.base)
        reference = f"localhost/{called(name)}:{key}"
        if self.builder.has(reference):
            return reference
        archive = self.builder.cache / key / f"{name}.tar"
        if archive.exists():
            self.builder.load(archive)
            return reference
        own = self.root / "images" / name / "Containerfile"
        text = own.read_text()
        given = {argument: self.image(parent) for argument, parent in parents(text).items()}
        if re.search(r"^ARG BASE=", text, re.MULTILINE):
            given["BASE"] = local_base(self.builder) if self.base == "local" else self.base
        more = [word for item in given.items() for word in ("--build-arg", "=".join(item))]
        if self.builder.name == "buildah":
            more += ["--pull=false"]  # what is here is what it begins from
        began = time.monotonic()
        say(f"building {name} by {self.builder.name}")
        with tempfile.TemporaryDirectory(prefix="galilean-images-") as folder:
            snapshot(name, Path(folder) / "context", self.root)
            given_secrets = secrets(Path(folder))
            again(lambda: self.builder.build(Path(folder) / "context", own, reference, *more, *given_secrets))
        say(f"built {name} in {time.monotonic() - began:.0f} s")
        return reference


def family(names: Iterable[str], root: Path = ROOT) -> set[str]:
    """Images with all that they begin from."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += parents((root / "images" / name / "Containerfile").read_text()).values()
    return found


def kept(names: Iterable[str], base: str, root: Path, cache: Path) -> dict[str, tuple[str, Path]] | None:
    """References and archives of images when all are there, with their times of use set anew; else nothing."""
    found: dict[str, tuple[str, Path]] = {}
    for name in names:
        key = key_of(name, root, base)
        archive = cache / key / f"{name}.tar"
        try:
            os.utime(archive)  # from now on nobody removes it for hours
        except FileNotFoundError:
            return None
        found[name] = f"localhost/{called(name)}:{key}", archive
    return found


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=[*USUAL, *MORE, *PARTS, []],
        help=f"which images; {', '.join(USUAL)} when left out",
    )  # fmt: skip
    parser.add_argument("--base", default="local", help="the base image; local = made here by mmdebstrap")
    parser.add_argument("--builder", default="", choices=["docker", "buildah"])
    parser.add_argument("--push", metavar="PREFIX", help="push to <PREFIX>/galilean:<TAG> and so on")
    parser.add_argument("--tag", help="the tag to push by; the hash when left out")
    parser.add_argument(
        "--into-docker",
        action="store_true",
        help="bring them to Docker and print nothing but their references",
    )
    parser.add_argument("--fresh", action="store_true", help="use nothing that was kept, so packages are new")
    arguments = parser.parse_args()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = home / "galilean" / "images"
    cache.mkdir(parents=True, exist_ok=True)
    names = arguments.names or USUAL
    if not (arguments.fresh or arguments.into_docker or arguments.push):
        with tempfile.TemporaryDirectory(prefix="galilean-clone-") as clone:
            for name in family(names):
                snapshot(name, Path(clone))
            there = kept(names, arguments.base, Path(clone), cache)
        if there is not None:  # somebody else's build, which takes minutes, is none of ours
            for name, (reference, archive) in there.items():
                print(name, reference, archive, sep="\t", flush=True)
            return
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
        with tempfile.TemporaryDirectory(prefix="galilean-clone-") as clone:
            for name in family(names):
                snapshot(name, Path(clone))
            workshop = Workshop(arguments.base, builder, Path(clone))
            for name in names:
                if arguments.into_docker:
                    print(workshop.in_docker(name), flush=True)
                    continue
                reference, archive = workshop.archive(name)
                used.add(archive)
                print(name, reference, archive, sep="\t", flush=True)
                if arguments.push:
                    tag = arguments.tag or reference.rpartition(":")[2]
                    builder.push(archive, reference, f"{arguments.push.rstrip('/')}/{called(name)}:{tag}")
        forget(cache, used)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"images: {shlex.join(error.cmd[:2])} … ended with {error.returncode}; see above")
