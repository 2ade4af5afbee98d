"""What an image is built from, and what of a Dockerfile is refused before any daemon reads it."""

from __future__ import annotations

import pytest

from extensions.imagebuilder import recipes
from extensions.imagebuilder.recipes import Recipe, dockerfile_of, parse, recipe_of, written
from galilean.errors import UserError

IMAGES = {"jupyter": "sha256:aa", "tools": "sha256:bb"}


def again(text: str) -> str:
    return written(parse(text), IMAGES)


# ---- which files


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"Dockerfile", "requirements.txt"}, Recipe("", ("Dockerfile",))),
        ({"apt.txt", "requirements.txt"}, Recipe("", ("apt.txt", "requirements.txt"))),
        ({"environment.yml", "requirements.txt"}, Recipe("", ("environment.yml",), ("requirements.txt",))),
        ({"binder", "binder/apt.txt", "Dockerfile"}, Recipe("binder", ("apt.txt",))),
        ({"binder", ".binder", ".binder/apt.txt", "binder/Dockerfile"}, Recipe("binder", ("Dockerfile",))),
        ({".binder", ".binder/environment.yml"}, Recipe(".binder", ("environment.yml",))),
        ({"requirements.txt", "postBuild"}, Recipe("", ("requirements.txt",), ("postBuild",))),
        ({"binder", "Dockerfile"}, None),
        ({"setup.py"}, None),
        (set(), None),
    ],
)  # fmt: skip
def test_the_files_are_found_as_repo2docker_finds_them(there: set[str], found: Recipe | None) -> None:
    assert recipe_of(there) == found


def test_every_file_that_matters_is_asked_for() -> None:
    asked = recipes.candidates()
    assert {"binder", ".binder/apt.txt", "requirements.txt", "binder/postBuild"} <= set(asked)
    assert asked.index("binder") < asked.index("binder/apt.txt"), "a folder before what is in it"


# ---- a Dockerfile


def test_a_dockerfile_is_written_anew_with_images_by_id() -> None:
    text = (
        "# syntax=docker/dockerfile:1\nARG WHO=x\nfrom tools as Build\nRUN make \\\n  # why\n\n  all && \\\n  true\n"
        "FROM jupyter\r\nCOPY --from=build --chown=1000 /out /out\nCOPY --from=0 a b\nENV A=1\n"
    )
    assert again(text) == (
        "ARG WHO=x\nFROM sha256:bb AS build\nRUN make   all &&   true\nFROM sha256:aa\n"
        "COPY --from=build --chown=1000 /out /out\nCOPY --from=0 a b\nENV A=1\n"
    )


def test_lines_are_joined_as_docker_joins_them() -> None:
    assert again("FROM jupyter\nRUN ma\\\nke \\  \n  all\n").splitlines()[1] == "RUN make   all"


def test_the_last_image_is_what_the_result_stands_on() -> None:
    steps = parse("FROM jupyter AS a\nFROM tools AS b\nRUN x\nFROM a\nRUN y\n")
    assert recipes.bases(steps) == ["tools", "jupyter"]
    assert again("FROM jupyter AS a\nFROM a\n") == "FROM sha256:aa AS a\nFROM a\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RUN x\n",
        "FROM\n",
        "FROM $BASE\n",
        "FROM --platform=linux/arm64 jupyter\n",
        "FROM jupyter\nCOPY --from=127.0.0.1:5000/people/eve/secret /a /a\n",
        "FROM jupyter\nCOPY --from=0 /a /a\n",
        "FROM jupyter AS a\nCOPY --from=a /a /a\n",
        "FROM jupyter AS a\nFROM tools\nCOPY --chown=1 --from=$X /a /a\n",
        'FROM jupyter\nCOPY --chown="0${U:+ x}" --from=eve/secret / /x\n',
        "FROM jupyter\nCOPY --chown=a\\ b --from=eve/secret / /x\n",
        "FROM jupyter\nCOPY --chown='a b' --from=eve/secret / /x\n",
        "FROM jupyter\nCOPY --chown=a:b:c / /x\n",
        "FROM jupyter\nCOPY --chown= --from=eve/secret / /x\n",
        "FROM jupyter\nCOPY --chown --from=eve/secret / /x\n",
        "FROM jupyter\nCOPY --from eve/secret / /x\n",
        "FROM jupyter\nCOPY --chown=\u00c5--from=eve/secret / /x\n",
        "FROM jupyter\nCOPY --chown=\u00e0--from=eve/secret / /x\n",
        "FROM jupyter\nADD --chown=\u00e0http://127.0.0.1:5000/x /y\n",
        "FROM jupyter\nADD --chown=\u00c5http://127.0.0.1:5000/x /y\n",
        "FROM jupyter\nADD --chown=1\\ http://127.0.0.1:5000/x /y\n",
        "FROM jupyter\nCOPY -- a b\n",
        "FROM jupyter AS a\nFROM tools AS a\n",
        "FROM jupyter\nADD http://169.254.169.254/ /a\n",
        'FROM jupyter\nADD ["HTTP://10.0.0.1/x", "/a"]\n',
        'FROM jupyter\nADD ["h\\u0074tp\\u003a//10.0.0.1/x", "/a"]\n',
        "FROM jupyter\nARG U=http://10.0.0.1/x\nADD ${U} /a\n",
        "FROM jupyter\nADD \\\n  http://10.0.0.1/x /a\n",
        "FROM jupyter\nONBUILD ADD http://10.0.0.1/x /a\n",
        "FROM jupyter\nVOLUME /data\n",
        "FROM jupyter\nRUN --mount=type=bind,from=eve/secret,target=/x cp -r /x /y\n",
        "FROM jupyter\nRUN --network=host true\n",
        "FROM jupyter\nCOPY --chmod=777 a b\n",
        "FROM jupyter\nRUN <<EOF\nADD http://10.0.0.1/ /\nEOF\n",
        "FROM jupyter\nCOPY <<EOF /a\nx\nEOF\n",
        "FROM jupyter\nRUN true \\\\\nADD http://10.0.0.1/x /a\n",
        "# escape=`\nFROM jupyter\n",
        "FROM jupyter\nRUN echo \x00\n",
        "FROM jupyter\nRUN a\x0bADD http://10.0.0.1/x /a\n",
        "FROM jupyter\nRUN a\u2028ADD b c\n",
        "FROM jupyter\n\\\n",
        "FROM jupyter\nINSTALL vim\n",
        "FROM jupyter\n" + "RUN true\n" * 300,
        "FROM jupyter\nRUN " + "x" * 300_000 + "\n",
    ],
    ids=lambda text: ascii(text)[1:60],
)  # fmt: skip
def test_what_would_reach_beyond_the_build_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(UserError) as refused:
        again(text)
    assert refused.value.status == 422
    assert int(refused.value.params["line"]) >= 1


def test_an_image_that_is_no_environment_is_named() -> None:
    with pytest.raises(UserError) as refused:
        again("FROM jupyter AS a\n\nFROM docker.io/library/debian:12\n")
    assert refused.value.params == {"line": 3, "image": "docker.io/library/debian:12"}


@pytest.mark.parametrize(
    "line",
    [
        "RUN echo $((1<<n))",
        "COPY --chown=${NB_UID}:$NB_GID a b",
        "ADD --chown=1000:users a.tar /",
        "RUN cat <<<word",
        "RUN a << b",
        'SHELL ["/bin/bash", "-c"]',
        "COPY . /x",
    ],
)
def test_what_only_looks_so_is_taken(line: str) -> None:
    assert again(f"FROM jupyter\n{line}\n") == f"FROM sha256:aa\n{line}\n"


# ---- lists of packages


def test_lists_of_packages_become_steps_of_a_dockerfile() -> None:
    recipe = Recipe("binder", ("apt.txt", "requirements.txt"))
    text = dockerfile_of(
        recipe,
        {"apt.txt": "vim # editor\n\nlibgsl-dev=2.7\n"},
        base="jupyter",
        account="1000:1000",
        home="/home/j",
    )
    lines = again(text).splitlines()
    assert lines[0] == "FROM sha256:aa"
    assert "install -y --no-install-recommends vim libgsl-dev=2.7 &&" in lines[2]
    assert lines[3] == "USER 1000:1000"
    assert '["binder/requirements.txt", ' in lines[4]
    assert "HOME=/home/j" in lines[5] and "pip install" in lines[5]


def test_conda_says_when_there_is_none() -> None:
    recipe = Recipe("", ("environment.yml",))
    text = again(dockerfile_of(recipe, {}, base="jupyter", account="1:1", home="/h"))
    assert "env update" in text and "no conda" in text and "USER root" not in text


@pytest.mark.parametrize("text", ["vim; curl evil", "$(x)", "-o=APT::x", "Vim", "a\\", "../x"])
def test_apt_is_handed_names_of_packages_only(text: str) -> None:
    with pytest.raises(UserError) as refused:
        recipes.apt_names(f"git\n{text}\n")
    assert refused.value.params["line"] == 2
