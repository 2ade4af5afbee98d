"""JupyterLab as somebody meets it in a node: in their language, without questions about news."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spawner.node.home import write_language, write_quiet
from spawner.process.layout import ClusterDirectory, read_json
from tests.process.hub import Hub, Zygote, eventually


@pytest.mark.process
@pytest.mark.parametrize("way", ["forked", "plain"])
def test_a_node_speaks_the_language_of_whoever_started_it_and_asks_nothing(
    hub: Hub, zygote: Zygote, way: str
) -> None:
    hub.user("lihua")
    if way == "plain":
        zygote.kill()
    try:
        answer = hub.api.post(
            "/users/lihua/servers/tongue", json={}, headers={"Accept-Language": "zh-CN,zh;q=0.9"}
        )
        assert answer.status_code in (201, 202), answer.text
        eventually(lambda: hub.ready("lihua", "tongue"), 60)
        said = read_json(ClusterDirectory.of(hub.state / "clusters", "lihua", "tongue").node_file(0))
        assert said is not None
        assert bool(said["zygote"]) is (way == "forked")
        browser = hub.browser("lihua")
        base = "/user/lihua/tongue/lab/api/"
        browser.get("/user/lihua/tongue/lab")
        notices = browser.get(base + "settings/@jupyterlab/apputils-extension:notification").json()
        assert notices["settings"]["fetchNews"] == "false"
        locale = browser.get(base + "settings/@jupyterlab/translation-extension:plugin").json()
        assert locale["settings"]["locale"] == "zh_CN"
        words = browser.get(base + "translations/zh_CN").json()["data"]["jupyterlab"]
        assert "笔记本" in json.dumps(words, ensure_ascii=False)
        hub.release("lihua", "tongue")
    finally:
        if way == "plain":
            zygote.start()


def test_what_a_person_chose_in_jupyterlab_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".jupyter/lab/user-settings/@jupyterlab"
    for plugin in ("apputils-extension/notification", "translation-extension/plugin"):
        path = folder / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    write_quiet(tmp_path)
    assert write_language(tmp_path, "zh_CN")
    assert [path.read_text() for path in folder.rglob("*.jupyterlab-settings")] == ["{}", "{}"]


@pytest.mark.parametrize("language", ["", "en", "en_GB", "xx_XX", "../zh_CN", "zh_CN/..", "os"])
def test_a_language_without_a_pack_changes_nothing(tmp_path: Path, language: str) -> None:
    assert not write_language(tmp_path, language)
    assert list(tmp_path.iterdir()) == []
