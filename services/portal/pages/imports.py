"""Administration → People → Import: upload or paste, look, import, hand out passwords, undo (AP-33, SC-25)."""

from __future__ import annotations

from typing import Any

from galilean.errors import mark
from services.people import store
from services.people.importing import Line, results_csv
from services.portal import imports
from services.portal.pages.people import PeoplePage

SHOWN_MOST = 1000


class ImportPage(PeoplePage):
    """What the handlers share."""

    def file(self) -> tuple[bytes, str]:
        """What was uploaded or pasted, and what it is called."""
        uploaded = self.request.files.get("file")
        if uploaded and uploaded[0]["body"]:
            return uploaded[0]["body"], uploaded[0]["filename"][:200]
        return self.get_body_argument("text", "", strip=False).encode(), ""

    def said(self, line: Line) -> list[str]:
        return [self.translate(text).format(**values) for text, values in line.problems]


class New(ImportPage):
    """The form, and what the last imports did."""

    async def get(self) -> None:
        await self.render_page(
            "admin_import.html",
            address=f"{self.portal.prefix}admin/people-import",
            root=self.root,
            giveable=await self.giveable(),
            last=await self.portal.db.run_read(store.last_imports),
            count=imports.count,
        )


class Preview(ImportPage):
    """What the file would do; nothing is made."""

    async def post(self) -> None:
        raw, name = self.file()
        own_role = self.get_body_argument("role", "")
        lines = await imports.preview(self, raw, own_role)
        from services.people.importing import decode

        await self.render_fragment(
            "admin_import_preview.html",
            address=f"{self.portal.prefix}admin/people-import",
            lines=lines[:SHOWN_MOST],
            all_lines=len(lines),
            good=sum(line.good for line in lines),
            new=sum(line.good and not line.exists for line in lines),
            said=self.said,
            text=decode(raw),
            own_role=own_role,
            file=name,
            titles=await self.role_titles(),
        )


class Begin(ImportPage):
    """Import what was looked at."""

    async def post(self) -> None:
        raw, _ = self.file()
        lines = await imports.preview(self, raw, self.get_body_argument("role", ""))
        import_id = await imports.begin(self, lines, self.get_body_argument("file_name", "")[:200])
        self.set_header("HX-Redirect", f"{self.root}/import/{import_id}")
        self.finish("")


class Result(ImportPage):
    """How far an import is, and what came of each line."""

    async def get(self, import_id: str) -> None:
        found = await imports.get(self, import_id)
        job = imports.jobs(self).get(import_id)
        newest = await self.portal.db.run_read(store.last_imports, 1)
        await self.answer(
            "admin_import_result.html",
            "admin_import_rows.html",
            here=f"{self.root}/import/{import_id}",
            root=self.root,
            found=found,
            counts=imports.count(found.rows),
            running=job is not None and job.running,
            passwords=len(job.passwords) if job is not None and job.by == self.person.name else 0,
            undoable=bool(newest) and newest[0].id == import_id and found.undone_at is None,
        )

    async def delete(self, import_id: str) -> None:
        counts = await imports.undo(self, import_id)
        sentence = mark("Undone: {undone} accounts and changes; {kept} were used already and stay.")
        if counts[imports.LEFT]:
            sentence = mark(
                "Undone: {undone} accounts and changes; {left} could not be undone, each with its reason: "
                "try again."
            )
        self.done(
            sentence,
            "galilean:import",
            undone=counts.get(imports.UNDONE, 0),
            kept=counts.get(imports.KEPT, 0),
            left=counts[imports.LEFT],
        )


class Passwords(ImportPage):
    """The passwords that an import made, once."""

    async def post(self, import_id: str) -> None:
        found, taken = await imports.take_passwords(self, import_id)
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="people-{import_id}.csv"')
        self.finish(results_csv(found.rows, taken))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/admin/people/import/([0-9A-Z]{26})"
    return [
        (r"/admin/people-import", New),
        (r"/admin/people-import/preview", Preview),
        (r"/admin/people-import/begin", Begin),
        (one, Result),
        (one + "/passwords", Passwords),
    ]
