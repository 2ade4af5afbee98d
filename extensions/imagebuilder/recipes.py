"""What an image is built from: which files of a project say it, and what of a Dockerfile may stand in it. Pure.

The names are repo2docker's: ``binder/``, else ``.binder/``, else the top of the project; a ``Dockerfile`` there says
everything, otherwise ``apt.txt``, ``environment.yml`` and ``requirements.txt`` do (an ``environment.yml`` makes a
``requirements.txt`` be left alone). What else repo2docker would read is named as not read.

The daemon that builds has rights that a person has not: it fetches ``ADD http://…`` from the machine's own network,
and takes any image that it knows for ``FROM`` and ``COPY --from``, also other people's. So a Dockerfile is read here,
refused where it asks for such things, and written anew, one line for each instruction with the images by their ids: what
was checked is what is built, whatever escapes and continuations were in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from galilean.errors import UserError, mark

FOLDERS = ("binder", ".binder", "")
DOCKERFILE = "Dockerfile"
APT, CONDA, PIP = "apt.txt", "environment.yml", "requirements.txt"
FILES = (APT, CONDA, PIP)
#: Of repo2docker, and not read here.
UNREAD = (
    "postBuild", "start", "setup.py", "runtime.txt", "Pipfile", "Pipfile.lock", "install.R", "DESCRIPTION",
    "Project.toml", "default.nix",
)  # fmt: skip
TEXT_MOST_BYTES = 256 << 10
STEPS_MOST = 200
APT_MOST = 500

_KNOWN = frozenset(
    ("FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "WORKDIR", "USER", "LABEL", "SHELL", "EXPOSE", "ENTRYPOINT", "CMD",
     "STOPSIGNAL", "HEALTHCHECK", "MAINTAINER")
)  # fmt: skip
_REFUSED = ("ONBUILD", "VOLUME")
_STEP = re.compile(r"\s*([A-Za-z]+)(?:\s+(.*))?")
_FROM = re.compile(r"(\S+)(?:\s+AS\s+([a-z][a-z0-9_.-]*))?", re.I)
# Docker's builder honours quotes and backslashes in flags and takes the bytes 0x85 and 0xA0 for spaces: where a flag ends
# is certain only of what has none of these. The parts of a value: a name, a number, a variable.
_PART = r"(?:[\w.-]+|\$[A-Za-z_]\w*|\$\{[A-Za-z_]\w*\})"
_FLAG = re.compile(rf"--([a-z]+)=({_PART}(?::{_PART})?)(?:[ \t]+|$)", re.A)
_DIRECTIVE = re.compile(r"#\s*escape\s*=\s*(\S+)\s*", re.I)
_HEREDOC = re.compile(r"\d*<<-?[^<\s]+")
_APT_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,127}(?:=[A-Za-z0-9][A-Za-z0-9._+~:-]{0,127})?")


@dataclass(frozen=True)
class Recipe:
    """What a project says of its image.

    Attributes
    ----------
    folder
        Where it stands; empty = at the top.
    files
        Names of the files that are read, without the folder.
    unread
        What else is there that repo2docker would have read.
    """

    folder: str
    files: tuple[str, ...]
    unread: tuple[str, ...] = ()

    @property
    def by_dockerfile(self) -> bool:
        """Whether a Dockerfile says it."""
        return self.files == (DOCKERFILE,)

    def path(self, name: str) -> str:
        """A file's path in the project."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True)
class Step:
    """One instruction; ``line`` is where it begins."""

    line: int
    word: str
    rest: str


def candidates() -> list[str]:
    """All paths that matter, to be asked for."""
    names = (DOCKERFILE, *FILES, *UNREAD)
    return [
        path
        for folder in FOLDERS
        for path in ([folder] if folder else []) + [f"{folder}/{name}" if folder else name for name in names]
    ]


def recipe_of(there: Collection[str]) -> Recipe | None:
    """The recipe of a project in which these of :func:`candidates` are; None where it has none.

    As with repo2docker a folder that is there hides what is at the top.
    """
    folder = next((one for one in FOLDERS if not one or one in there), "")

    def has(name: str) -> bool:
        return (f"{folder}/{name}" if folder else name) in there

    unread = [name for name in UNREAD if has(name)]
    if has(DOCKERFILE):
        return Recipe(folder, (DOCKERFILE,), tuple(unread))
    files = [name for name in FILES if has(name)]
    if CONDA in files and PIP in files:
        files.remove(PIP)
        unread.insert(0, PIP)
    return Recipe(folder, tuple(files), tuple(unread)) if files else None


# ------------------------------------------------------------------------------------------------- a Dockerfile


def _no(line: int, message: str, **params: object) -> UserError:
    return UserError(422, message, reason="dockerfile", line=line, **params)


def parse(text: str) -> list[Step]:
    """Read a Dockerfile.

    Raises
    ------
    UserError
        422 with the line and the one thing that cannot be.
    """
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MOST_BYTES:
        raise _no(1, mark("The Dockerfile is too long: {most} KB fit."), most=TEXT_MOST_BYTES >> 10)
    steps: list[Step] = []
    begun, held = 0, ""
    for number, raw in enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1):
        if any(not sign.isprintable() and sign != "\t" for sign in raw):
            raise _no(number, mark("Line {line} of the Dockerfile has a sign that cannot be seen."))
        line = raw.strip()
        if line.startswith("#"):
            found = _DIRECTIVE.fullmatch(line)
            if found and not steps and not begun and found[1] != "\\":
                raise _no(number, mark("Line {line} of the Dockerfile: lines are continued by \\ only here."))
            continue
        if not line:
            continue
        begun = begun or number
        if line.endswith("\\"):
            held += raw.rstrip()[:-1]
            if held.rstrip().endswith("\\"):
                raise _no(number, mark("Line {line} of the Dockerfile ends with two backslashes."))
            continue
        steps.append(_step(begun, held + raw.rstrip()))
        begun, held = 0, ""
    if begun:
        steps.append(_step(begun, held.rstrip()))
    if len(steps) > STEPS_MOST:
        raise _no(1, mark("The Dockerfile has more than {most} instructions."), most=STEPS_MOST)
    _check(steps)
    return steps


def _step(line: int, text: str) -> Step:
    found = _STEP.fullmatch(text.strip())
    word = found[1].upper() if found else ""
    if word in _REFUSED:
        raise _no(
            line,
            mark("Line {line} of the Dockerfile: {word} has no use in an environment. Leave it out."),
            word=word,
        )
    if found is None or word not in _KNOWN:
        raise _no(
            line,
            mark("Line {line} of the Dockerfile: “{word}” is no instruction."),
            word=(text.split() or [""])[0][:40],
        )
    if not (found[2] or "").strip():
        raise _no(line, mark("Line {line} of the Dockerfile: {word} says nothing."), word=word)
    return Step(line, word, found[2].strip())


def _check(steps: list[Step]) -> None:
    stages: list[str] = []
    for step in steps:
        if step.word == "FROM":
            name = _from(step)[1]
            if name in stages:
                raise _no(
                    step.line, mark("Line {line} of the Dockerfile: two stages are “{name}”."), name=name
                )
            stages.append(name)
        elif not stages and step.word != "ARG":
            raise _no(step.line, mark("Line {line} of the Dockerfile: it must begin with FROM."))
        elif step.word == "RUN":
            if step.rest.startswith("--"):
                raise _options(step)
            _no_heredoc(step)
        elif step.word in ("COPY", "ADD"):
            _check_copy(step, stages)
            _no_heredoc(step)
    if not stages:
        raise _no(1, mark("Line {line} of the Dockerfile: it must begin with FROM."))


def _options(step: Step) -> UserError:
    return _no(
        step.line,
        mark(
            "Line {line} of the Dockerfile: {word} with {option} needs BuildKit, which does not build here."
        ),
        word=step.word,
        option=step.rest.split()[0].partition("=")[0][:40],
    )


def _no_heredoc(step: Step) -> None:
    if any(_HEREDOC.fullmatch(word) for word in step.rest.split()):
        raise _no(
            step.line,
            mark(
                "Line {line} of the Dockerfile: text between <<WORD and WORD needs BuildKit, which does not build "
                "here. Put it into a file of the project and copy that."
            ),
        )


def _from(step: Step) -> tuple[str, str]:
    """The image or stage, and the name of the new stage."""
    found = _FROM.fullmatch(step.rest)
    if found is None or "$" in found[1] or found[1].startswith("-"):
        raise _no(
            step.line,
            mark("Line {line} of the Dockerfile: write FROM with an environment's name, without variables."),
        )
    return found[1], (found[2] or "").lower()


def _check_copy(step: Step, stages: list[str]) -> None:
    rest = step.rest
    while found := _FLAG.match(rest):
        flag, value, rest = found[1], found[2], rest[found.end() :]
        if flag == "from" and step.word == "COPY":
            known = {name for name in stages[:-1] if name} | {str(n) for n in range(len(stages) - 1)}
            if value.lower() not in known:
                raise _no(
                    step.line,
                    mark(
                        "Line {line} of the Dockerfile: COPY --from takes an earlier stage of the same file."
                    ),
                )
        elif flag != "chown":
            raise _options(step)
    if rest.startswith(("--from", "--chown")):
        raise _no(
            step.line,
            mark(
                "Line {line} of the Dockerfile: {option} takes a name or a number, as in --chown=1000:100, without "
                "quotes, spaces and \\."
            ),
            option=rest.split()[0].partition("=")[0][:40],
        )
    if rest.startswith("--"):
        raise _options(step)
    if step.word == "ADD" and any(sign in rest for sign in ":$\\"):
        raise _no(
            step.line,
            mark(
                "Line {line} of the Dockerfile: ADD takes files of the project only. Fetch others by RUN, with curl "
                "or Python."
            ),
        )


def bases(steps: Iterable[Step]) -> list[str]:
    """The images that a Dockerfile begins from, each once; the last is what the result stands on."""
    stages: set[str] = set()
    found: dict[str, None] = {}
    under: dict[str, str] = {}
    for step in steps:
        if step.word == "FROM":
            image, name = _from(step)
            base = under[image.lower()] if image.lower() in stages else image
            found.pop(base, None)
            found[base] = None
            if name:
                stages.add(name)
                under[name] = base
    return list(found)


def written(steps: Iterable[Step], images: Mapping[str, str]) -> str:
    """The Dockerfile anew: one line for each instruction, images by what they are.

    Raises
    ------
    UserError
        422 for an image that is not among ``images``.
    """
    stages: set[str] = set()
    lines: list[str] = []
    for step in steps:
        text = step.rest
        if step.word == "FROM":
            image, name = _from(step)
            if image.lower() not in stages and image not in images:
                raise unknown_base(step.line, image)
            text = image.lower() if image.lower() in stages else images[image]
            if name:
                stages.add(name)
                text += f" AS {name}"
        lines.append(f"{step.word} {text}")
    return "\n".join(lines) + "\n"


def unknown_base(line: int, image: str) -> UserError:
    """For FROM with something that is no environment of the person's."""
    return _no(
        line,
        mark(
            "Line {line} of the Dockerfile: FROM {image} is no environment that you may start. Write an environment's "
            "name, such as FROM jupyter, or register the image by its address first."
        ),
        image=image[:120],
    )


# -------------------------------------------------------------------------------------- apt, conda, pip


def apt_names(text: str) -> list[str]:
    """The packages of an ``apt.txt``: one in a line or several, ``#`` begins a comment.

    Raises
    ------
    UserError
        422 for what is no package's name.
    """
    found: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].split():
            if not _APT_NAME.fullmatch(word):
                raise UserError(
                    422,
                    mark("Line {line} of apt.txt: “{word}” is no name of a package."),
                    reason="recipe",
                    line=number,
                    word=word[:60],
                )
            found[word] = None
    if len(found) > APT_MOST:
        raise UserError(422, mark("apt.txt names more than {most} packages."), reason="recipe", most=APT_MOST)
    return list(found)


def dockerfile_of(recipe: Recipe, texts: Mapping[str, str], *, base: str, account: str, home: str) -> str:
    """A Dockerfile of apt.txt, environment.yml and requirements.txt.

    Parameters
    ----------
    recipe, texts
        Which files there are, and by name what is in them.
    base
        The environment that it stands on.
    account, home
        ``uid:gid`` of nodes and its HOME: Python packages become its own, as when somebody installs them on a node.
    """
    lines = [f"FROM {base}"]
    names = apt_names(texts.get(APT, "")) if APT in recipe.files else []
    if names:
        lines += [
            "USER root",
            "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
            + " ".join(names)
            + " && rm -rf /var/lib/apt/lists/*",
        ]
    lines.append(f"USER {account}")
    for name in (CONDA, PIP):
        if name in recipe.files:
            place = f"/var/cache/galilean-build/{name}"
            lines.append(f"COPY --chown={account} {json.dumps([recipe.path(name), place])}")
            if name == CONDA:
                lines.append(
                    'RUN tool="$(command -v mamba || command -v conda)" || { echo "this environment has no conda" >&2; '
                    f'exit 1; }}; HOME={home} "$tool" env update --name base --file {place} && "$tool" clean --all --yes'
                )
            else:
                lines.append(
                    f"RUN HOME={home} PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir "
                    f"--disable-pip-version-check --requirement {place}"
                )
    return "\n".join(lines) + "\n"
