"""What people share, by API: somebody publishes a project with its data, another makes it theirs and runs it.

The same on one machine and on Kubernetes; only there can nobody but the owner write what is mounted.
"""

from __future__ import annotations

from tests.product.product import Person, wait_for

_DATA = "import os; heat = os.path.expanduser('~/datasets/io-nims/heat.csv')\n"
#: A cell that reads the data set of the story.
READ = _DATA + "print(sum(float(line) for line in open(heat).readlines()[1:]))"
#: What :data:`READ` prints.
WATTS = "4.0"
#: A cell that says how an attempt to write the data set ends.
WRITE = (
    _DATA
    + """
try:
    open(heat, 'a').close()
    print('written')
except OSError as error:
    print(error.strerror)
"""
)


def published(instructor: Person) -> str:
    """A public project of the instructor's, which reads a public data set of theirs; the project's slug."""
    answer = instructor.portal("POST", "/datasets", json={"name": "木卫一热流", "mount": "io-nims"})
    assert answer.status_code == 201, answer.text
    data = answer.json()
    answer = instructor.portal("POST", "/projects", json={"name": "木星的潮汐加热"})
    assert answer.status_code == 201, answer.text
    slug = answer.json()["slug"]
    shelf, project = f"/datasets/{instructor.name}/{data['slug']}", f"/projects/{instructor.name}/{slug}"
    for place, text in (
        (f"{shelf}/files/heat.csv", "watts\n1.5\n2.5\n"),
        (f"{project}/files/README.md", "#"),
    ):
        answer = instructor.portal("PUT", place, content=text.encode())
        assert answer.status_code == 201, answer.text
    answer = instructor.portal("POST", f"{project}/datasets", json={"dataset": data["id"]})
    assert answer.status_code == 201, answer.text
    for place in (shelf, project):
        answer = instructor.portal("PUT", f"{place}/publication")
        assert answer.status_code == 204, answer.text
    return slug


def found_forked_and_run(student: Person, instructor: Person, nodes: int = 1) -> str:
    """The student finds it by two characters, forks it, and has a cluster on the fork; the fork's slug."""
    query = {"q": "潮汐", "author": instructor.name}
    (found,) = student.portal("GET", "/explore", params=query).raise_for_status().json()["items"]
    answer = student.portal("POST", f"/projects/{found['owner']}/{found['slug']}/forks")
    assert answer.status_code in (201, 202), answer.text
    slug = answer.json()["project"]["slug"]
    fork = f"/projects/{student.name}/{slug}"
    wait_for(
        lambda: student.portal("GET", f"{fork}/copying").json()["state"] == "done",
        "the fork has its files",
        seconds=60,
    )
    assert student.portal("GET", f"{fork}/files/README.md").status_code == 200
    answer = student.run(slug, project=slug, nodes=nodes)
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: student.is_ready(slug), f"{slug} is ready", seconds=120)
    return slug
