"""What administrators change: each page's handler, the call of the API that does the same, its lines in the audit log.

Whoever adds a page that changes something says here whether it is for administrators; then also by which call of
the API the same is done, by which section of a file or command where there is one, and which line it writes.
:mod:`tests.portal.test_administered` makes each call and looks for the line.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the API that changes something for others, such as ``POST /roles``; ``hub …`` = the hub's own.

    Attributes
    ----------
    audit
        Actions of its lines in the audit log, any of them.
    walk
        Of :mod:`tests.portal.test_administered`: where it is made; else a test file, which looks for these lines.
    also
        Sections of the file of ``galilean apply`` (``file roles``), or commands.
    """

    audit: tuple[str, ...]
    walk: str
    also: tuple[str, ...] = ()


AT_HUB = "tests/hub_config/test_people_api.py"
TOLD = "tests/hub_config/test_told.py"
STORES = "tests/portal/test_object_stores.py"

PROJECT, DATASET = "/projects/{owner}/{slug}", "/datasets/{owner}/{slug}"

CALLS: dict[str, Call] = {
    # what the centre decides
    "POST /roles": Call(audit=("role.create",), walk="decisions", also=("file roles",)),
    "PATCH /roles/{name}": Call(audit=("role.change",), walk="decisions", also=("file roles",)),
    "DELETE /roles/{name}": Call(audit=("role.delete",), walk="decisions"),
    "POST /groups": Call(audit=("group.create",), walk="decisions", also=("file groups",)),
    "PATCH /groups/{slug}": Call(audit=("group.change",), walk="decisions", also=("file groups",)),
    "DELETE /groups/{slug}": Call(audit=("group.delete",), walk="decisions"),
    "PATCH /quotas": Call(audit=("quota.set",), walk="decisions", also=("file roles",)),
    "POST /quota-exceptions": Call(audit=("exception.give",), walk="decisions", also=("file exceptions",)),
    "PATCH /quota-exceptions/{id}": Call(
        audit=("exception.change",), walk="decisions", also=("file exceptions",)
    ),
    "DELETE /quota-exceptions/{id}": Call(
        audit=("exception.end",), walk="decisions", also=("file exceptions",)
    ),
    "PATCH /release-rules": Call(
        audit=("release.set",), walk="decisions", also=("file release", "file roles")
    ),
    "PUT /site/home": Call(audit=("site.home",), walk="decisions", also=("file home",)),
    "DELETE /site/home": Call(audit=("site.home",), walk="decisions", also=("file home",)),
    "PATCH /site/messages": Call(audit=("site.messages",), walk="decisions", also=("file messages",)),
    "POST /site/announcements": Call(audit=("site.messages",), walk="decisions", also=("file messages",)),
    "PUT /site/announcements/{id}": Call(audit=("site.messages",), walk="decisions", also=("file messages",)),
    "DELETE /site/announcements/{id}": Call(
        audit=("site.messages",), walk="decisions", also=("file messages",)
    ),
    # people: the hub carries it out, and writes the line
    "POST /people": Call(audit=("person.create",), walk=AT_HUB, also=("user add", "people import")),
    "PATCH /people/{name}": Call(audit=("person.groups", "person.names"), walk=AT_HUB),
    "DELETE /people/{name}": Call(audit=("person.delete",), walk=AT_HUB),
    "PUT /people/{name}/block": Call(audit=("person.block",), walk=AT_HUB),
    "DELETE /people/{name}/block": Call(audit=("person.unblock",), walk=AT_HUB),
    "PUT /people/{name}/password": Call(audit=("person.password",), walk=AT_HUB),
    "PUT /groups/{slug}/members/{name}": Call(audit=("person.groups",), walk=AT_HUB),
    "DELETE /groups/{slug}/members/{name}": Call(audit=("person.groups",), walk=AT_HUB),
    "hub DELETE /users/{name}/tokens/{id}": Call(audit=("token.revoke-of",), walk=TOLD),
    "POST /imports": Call(audit=("people.import",), walk="imports", also=("people import",)),
    "POST /imports/{id}/passwords": Call(
        audit=("people.import.passwords",), walk="imports", also=("people import",)
    ),
    "DELETE /imports/{id}": Call(audit=("people.import.undo",), walk="imports"),
    # what people have
    "DELETE /clusters/{id}": Call(audit=("cluster.release",), walk="things", also=("clusters release",)),
    f"PATCH {PROJECT}": Call(audit=("project.change",), walk="things"),
    f"PUT {PROJECT}/cover": Call(audit=("project.change",), walk="things"),
    f"DELETE {PROJECT}/cover": Call(audit=("project.change",), walk="things"),
    f"PUT {PROJECT}/owner": Call(audit=("project.owner",), walk="things"),
    f"PUT {PROJECT}/taken-down": Call(audit=("project.take-down",), walk="things"),
    f"DELETE {PROJECT}/taken-down": Call(audit=("project.put-back",), walk="things"),
    f"PUT {PROJECT}/publication": Call(audit=("project.publish",), walk="things"),
    f"DELETE {PROJECT}/publication": Call(audit=("project.unpublish",), walk="things"),
    f"PUT {PROJECT}/shares": Call(audit=("project.share.give",), walk="things"),
    f"DELETE {PROJECT}/shares": Call(audit=("project.share.withdraw",), walk="things"),
    f"DELETE {PROJECT}": Call(audit=("project.delete",), walk="things", also=("project delete",)),
    "POST /bin/projects/{id}": Call(audit=("project.restore",), walk="things"),
    "DELETE /bin/projects/{id}": Call(audit=("project.delete-for-ever",), walk="things"),
    f"POST {PROJECT}/forks-for/{{group}}": Call(audit=("project.forked-for-group",), walk="things"),
    f"DELETE {PROJECT}/forks-for/{{group}}": Call(
        audit=("project.forks-for-group-cancelled",), walk="things"
    ),
    "POST /projects/export": Call(audit=("project.export",), walk="things", also=("project export",)),
    "POST /archives/{id}": Call(audit=("project.import",), walk="things", also=("project import",)),
    "DELETE /archives/{id}": Call(audit=("archive.give-up",), walk="things"),
    f"PATCH {DATASET}": Call(audit=("dataset.change",), walk="things"),
    f"PUT {DATASET}/cover": Call(audit=("dataset.change",), walk="things"),
    f"DELETE {DATASET}/cover": Call(audit=("dataset.change",), walk="things"),
    f"PUT {DATASET}/owner": Call(audit=("dataset.owner",), walk="things"),
    f"PUT {DATASET}/taken-down": Call(audit=("dataset.take-down",), walk="things"),
    f"DELETE {DATASET}/taken-down": Call(audit=("dataset.put-back",), walk="things"),
    f"DELETE {DATASET}": Call(audit=("dataset.delete",), walk="things", also=("dataset delete",)),
    "POST /bin/datasets/{id}": Call(audit=("dataset.restore",), walk="things"),
    "DELETE /bin/datasets/{id}": Call(audit=("dataset.delete-for-ever",), walk="things"),
    # what carries them
    "POST /volumes": Call(audit=("volume.register",), walk="things", also=("volume register",)),
    "PATCH /volumes/{id}": Call(audit=("volume.edit",), walk="things", also=("volume edit",)),
    "PUT /volumes/{id}/drain": Call(audit=("volume.drain",), walk="things", also=("volume drain",)),
    "DELETE /volumes/{id}": Call(audit=("volume.delete",), walk="things", also=("volume delete",)),
    "POST /object-stores": Call(audit=("object-store.add",), walk=STORES, also=("object-stores add",)),
    "PUT /object-stores/{id}": Call(audit=("object-store.change",), walk=STORES),
    "DELETE /object-stores/{id}": Call(
        audit=("object-store.delete",), walk=STORES, also=("object-stores delete",)
    ),
    "POST /machines": Call(audit=("machine.add",), walk="machines"),
    "POST /machines/{name}/orders": Call(
        audit=("machine.out", "machine.cordon", "machine.uncordon", "machine.compute", "machine.keep"),
        walk="machines",
    ),
    "DELETE /machines/{name}/orders/{id}": Call(audit=("machine.withdraw",), walk="machines"),
    "POST /machines/{name}/stop": Call(audit=("machine.stop-everything",), walk="machines"),
    "POST /image-places": Call(audit=("images.redistribute", "images.beforehand"), walk="images"),
    "PATCH /environments/{id}": Call(audit=("environment.edit",), walk="images"),
    "PUT /environments/{id}/retired": Call(
        audit=("environment.retire",), walk="images", also=("environments retire",)
    ),
    "DELETE /environments/{id}/retired": Call(
        audit=("environment.restore",), walk="images", also=("environments restore",)
    ),
    "DELETE /environments/{id}": Call(
        audit=("environment.delete",), walk="images", also=("environments delete",)
    ),
    "POST /environments/{id}/versions/{number}/adapted": Call(
        audit=("image.adapt",), walk="tests/portal/test_adapting.py"
    ),
}

#: Calls with a right of their own that change nothing, and why not.
CHANGE_NOTHING = {
    "POST /volumes/{id}/look": "each machine is asked whether it has the volume",
    "POST /archives": "what came in is looked at, and forgotten after a day; its import has a line",
}

#: Page and calls, for pages' handlers that are for administrators, also where the visitor may be the owner.
PAGES: dict[str, tuple[str, ...]] = {
    "frame.Release.post": ("DELETE /clusters/{id}",),
    "online.ReleaseMany.post": ("DELETE /clusters/{id}",),
    "imports.Begin.post": ("POST /imports",),
    "imports.Result.delete": ("DELETE /imports/{id}",),
    "imports.Passwords.post": ("POST /imports/{id}/passwords",),
    "people.NewPerson.post": ("POST /people",),
    "people.Roles.post": ("PATCH /people/{name}",),
    "people.Groups.post": ("PATCH /people/{name}",),
    "people.Password.post": ("PUT /people/{name}/password",),
    "people.Block.post": ("PUT /people/{name}/block",),
    "people.Block.delete": ("DELETE /people/{name}/block",),
    "people.Delete.post": ("DELETE /people/{name}",),
    "person.Names.post": ("PATCH /people/{name}",),
    "person.Token.delete": ("hub DELETE /users/{name}/tokens/{id}",),
    "roles.Roles.post": ("POST /roles",),
    "roles.Role.post": ("PATCH /roles/{name}",),
    "roles.Role.delete": ("DELETE /roles/{name}",),
    "roles.Groups.post": ("POST /groups",),
    "roles.Group.post": ("PATCH /groups/{slug}",),
    "roles.Group.delete": ("DELETE /groups/{slug}",),
    "roles.GroupMembers.post": ("PUT /groups/{slug}/members/{name}", "DELETE /groups/{slug}/members/{name}"),
    "site.Home.post": ("PUT /site/home", "DELETE /site/home"),
    "site.Announcements.post": (
        "POST /site/announcements",
        "PUT /site/announcements/{id}",
        "DELETE /site/announcements/{id}",
    ),
    "site.Links.post": ("PATCH /site/messages",),
    "archives.Export.post": ("POST /projects/export",),
    "archives.Import.post": ("POST /archives/{id}",),
    "archives.Import.delete": ("DELETE /archives/{id}",),
    "machines.Add.post": ("POST /machines",),
    "machines.TakeOut.post": ("POST /machines/{name}/orders",),
    "machines.StopEverything.post": ("POST /machines/{name}/stop",),
    "machines.Act.post": ("POST /machines/{name}/orders", "DELETE /machines/{name}/orders/{id}"),
    "image_places.Images.post": ("POST /image-places",),
    "quotas.Changes.post": ("PATCH /quotas",),
    "quotas.ExceptionDialog.post": ("POST /quota-exceptions", "PATCH /quota-exceptions/{id}"),
    "quotas.EndDialog.post": ("DELETE /quota-exceptions/{id}",),
    "release_rules.RuleChanges.post": ("PATCH /release-rules",),
    "all_projects.ActOnProjects.post": (
        f"PUT {PROJECT}/taken-down",
        f"DELETE {PROJECT}/taken-down",
        f"DELETE {PROJECT}/publication",
        f"PUT {PROJECT}/owner",
        f"DELETE {PROJECT}",
    ),
    "all_datasets.ActOnDatasets.post": (
        f"PUT {DATASET}/taken-down",
        f"DELETE {DATASET}/taken-down",
        f"PUT {DATASET}/owner",
        f"DELETE {DATASET}",
    ),
    "all_environments.ActOnEnvironments.post": (
        "PUT /environments/{id}/retired",
        "DELETE /environments/{id}/retired",
        "POST /image-places",
        "DELETE /environments/{id}",
    ),
    "projects.InBin.post": ("POST /bin/projects/{id}", "DELETE /bin/projects/{id}"),
    "projects.Copying.post": (f"DELETE {PROJECT}",),
    "class_forks.ForksFor.post": (
        f"POST {PROJECT}/forks-for/{{group}}",
        f"DELETE {PROJECT}/forks-for/{{group}}",
    ),
    "environments.Environment.post": ("POST /environments/{id}/versions/{number}/adapted",),
    "object_stores.ObjectStores.post": ("POST /object-stores",),
    "object_stores.OneObjectStore.post": ("PUT /object-stores/{id}",),
    "object_stores.OneObjectStore.delete": ("DELETE /object-stores/{id}",),
}

#: Handlers of administrators that only show something: what they take is too long for an address.
SHOW = frozenset(
    {"imports.Preview.post", "site.Preview.post", "volumes.Look.post", "object_stores.Test.post"}
)

#: What people do with their own things alone; nobody's right opens it for others'.
OWN = frozenset(
    {
        "frame.ReleaseAll.post",
        "frame.Extend.post",
        "frame.WhenDone.post",
        "ssh.Keys.post",
        "ssh.Key.delete",
        "person.Tokens.post",
        "sign_out.SignOut.post",
        "schedules.Schedules.post",
        "schedules.Schedule.post",
        "disks.Disks.post",
        "disks.OneDisk.post",
        "projects.Fork.post",
        "explore.Star.post",
        "workbenches.Workbenches.post",
        "workbenches.Workbench.post",
        "builds.OfProject.post",
        "builds.OfImage.post",
        "my_images.Save.post",
        "my_images.Image.post",
        "renewals.Renew.post",
        "port_people.People.post",
        "port_people.Withdraw.post",
    }
)
