"""Which ways lead into a node, as data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from galilean.settings import EnvironmentSettings
from spawner.doors import OWN_PORTS, doors_of, kept, start_variables, to_keep


def keys(environment: EnvironmentSettings | None, **more: object) -> list[str]:
    return [door.key for door in doors_of(environment, **more)]  # type: ignore[arg-type]


def test_a_plain_environment_has_jupyterlab_and_a_terminal():
    assert keys(EnvironmentSettings(title="Plain")) == ["lab", "terminal"]
    assert keys(None) == ["lab", "terminal"], "also one that the settings know no more"


def test_an_image_that_runs_as_it_is_has_the_one_door_that_its_own_server_answers():
    stock = EnvironmentSettings(
        title="Stock", image="r.example/x:1", interfaces=("jupyter", "desktop"), ports=(8050,), as_is=True
    )
    assert keys(stock, ports=(9000,)) == ["lab"]
    row = to_keep(stock)
    left = kept(row)
    assert left is not None and left.as_is and [door.key for door in doors_of(left, ports=(9000,))] == ["lab"]
    assert "as_is" not in str(to_keep(EnvironmentSettings(title="App", ports=(8050,))))
    assert to_keep(EnvironmentSettings(title="Plain")) == {}


def test_a_desktop_is_a_door_where_the_environment_has_one_and_its_programs_are_there():
    both = EnvironmentSettings(title="Both", interfaces=("jupyter", "desktop"))
    assert keys(both) == ["lab", "desktop", "terminal"]
    assert keys(both, missing={"desktop"}) == ["lab", "terminal"]
    assert keys(EnvironmentSettings(title="Only", interfaces=("desktop",))) == ["desktop", "terminal"]


def test_ports_of_environment_and_run_are_doors_each_once_in_order():
    environment = EnvironmentSettings(title="App", ports=(8050,))
    doors = doors_of(environment, ports=(9000, 8050, 5006))
    assert [door.key for door in doors[2:]] == ["port-5006", "port-8050", "port-9000"]
    assert doors[-1].path == "proxy/9000/" and doors[-1].when == "listens" and doors[-1].port == 9000


def test_a_program_without_jupyterlab_comes_first():
    only = EnvironmentSettings(title="App", interfaces=(), command="./serve", ports=(8050,))
    assert keys(only, ports=(1234,)) == ["port-8050", "terminal", "port-1234"]


@given(st.lists(st.integers(-10, 70000), max_size=20))
def test_no_door_leads_to_a_port_of_the_node_itself_or_of_the_system(ports: list[int]):
    for door in doors_of(None, ports=[*ports, *OWN_PORTS]):
        assert not door.path.startswith("/") and ".." not in door.path
        if door.port:
            assert 1024 <= door.port <= 65535 and door.port not in OWN_PORTS


def test_a_node_is_told_only_what_its_environment_says():
    assert start_variables() == {}
    assert start_variables(vnc_port=5901, vnc_password="x") == {
        "GALILEAN_VNC_PORT": "5901",
        "GALILEAN_VNC_PASSWORD": "x",
    }
    assert start_variables(interfaces=()) == {"GALILEAN_INTERFACES": "none"}
    assert start_variables(
        interfaces=("jupyter", "desktop"), ports=(8050, 8051), command="./serve", geometry="1280x720", dpi=120
    ) == {
        "GALILEAN_INTERFACES": "jupyter,desktop",
        "GALILEAN_PORTS": "8050,8051",
        "GALILEAN_START_COMMAND": "./serve",
        "GALILEAN_DESKTOP_GEOMETRY": "1280x720",
        "GALILEAN_DESKTOP_DPI": "120",
    }
