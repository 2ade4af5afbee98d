"""What pages that show the file manager need (``templates/files.html``): one component for projects and data sets.

The manager is a client of the API (:mod:`services.portal.api.file_work`); a page only says which tree it is of and
what may be done there. Its sentences go along in the page, in the language of the request.
"""

from __future__ import annotations

from typing import Any

from galilean.errors import mark
from galilean.web import language
from services.portal.desks import Desk

#: By which a row says what it is.
ICONS = (
    "folder",
    "file-earmark",
    "file-earmark-code",
    "file-earmark-image",
    "file-earmark-text",
    "file-earmark-zip",
    "journal-code",
    "arrow-left",
    "check-lg",
    "exclamation-circle-fill",
    "three-dots",
    "x",
    "folder2-open",
)

_WORDS = (
    mark("{count} selected"),
    mark("{done} of {all}"),
    mark("{name} has {size}; you may upload {most} at once."),
    mark("{name} is there."),
    mark("{count} files are there."),
    mark("{name} is deleted."),
    mark("{count} are deleted."),
    mark("{total} in all"),
    mark("{count} could not be taken out, because their names or kinds may not be here: {names}"),
    mark("“{name}” is there already."),
    mark("these {count}"),
    mark("Actions for {name}"),
    mark("All of these"),
    mark("Back"),
    mark("Cancel"),
    mark("Checksum of {name}"),
    mark("Choose the file"),
    mark("Copied."),
    mark("Copy"),
    mark("Copy {what} to"),
    mark("Copying {what}"),
    mark("Delete"),
    mark("Delete “{name}”?"),
    mark("Delete these {count}?"),
    mark("Deleting {what}"),
    mark("Discard"),
    mark("Edit {name}"),
    mark("Folders go with everything in them. This cannot be undone."),
    mark("Go on"),
    mark("Into this folder"),
    mark("Keep both"),
    mark("Leave it out"),
    mark("link"),
    mark("Make file"),
    mark("Make folder"),
    mark("Move"),
    mark("Move {what} to"),
    mark("Moved."),
    mark("Moving {what}"),
    mark("Name"),
    mark("New folder"),
    mark("New name"),
    mark("New text file"),
    mark("No connection. Goes on by itself."),
    mark("No file here has that in its name."),
    mark("No folders here."),
    mark("Not saved yet. Leave all the same?"),
    mark("Pack"),
    mark("Pack {what}"),
    mark("Packed: {name}"),
    mark("Packing {what}"),
    mark("Pause"),
    mark("Paused"),
    mark("Preview of {name}"),
    mark("Rename"),
    mark("Rename “{name}”"),
    mark("Replace"),
    mark("Save"),
    mark("Saved"),
    mark("Select {name}"),
    mark("special"),
    mark("Taking checksums of {what}"),
    mark("The file could not be fetched. Try again."),
    mark("The folder goes with everything in it. This cannot be undone."),
    mark("The upload of {name} broke off: {problem}"),
    mark("This browser cannot upload in pieces."),
    mark("This cannot be undone."),
    mark("This is not the file that was begun: it must have {size} and be called {name}."),
    mark("Top folder"),
    mark("Try again"),
    mark("Unpacked into {name}"),
    mark("Unpacking {what}"),
    mark("Waiting"),
    mark("Zip, opened everywhere"),
    mark("Tar, packed by gzip"),
    mark("saved"),
    mark("{count} could not be copied: {problem}"),
    mark("{count} files came in."),
    mark("{count} files were written to {name}."),
    mark("{count} were left out, because something else has their name, or they are no files: {names}"),
    mark("A copy from or to {name} was broken off. What came whole is there."),
    mark("Choose what comes into this folder; nothing chosen = all that is shown here."),
    mark("Export"),
    mark("Export {what} to an object store"),
    mark("Exporting to {name}"),
    mark("Folder in the store"),
    mark("Import"),
    mark("Import from object store"),
    mark("Importing from {name}"),
    mark("Leave what is there"),
    mark("More"),
    mark("None of your object stores can be written to. Change one, or add one."),
    mark("Nothing had to be copied: all of it is there."),
    mark("Nothing here."),
    mark("Object store"),
    mark("Replace it"),
    mark("To the object stores"),
    mark("When a name is taken by something else"),
    mark("Whose names begin with"),
    mark("You have no object store to copy from. Add one first."),
)


def file_words() -> dict[str, str]:
    """The sentences of the manager's scripts, in the language of the request."""
    return {english: language.translate(english) for english in _WORDS}


def files_frame(desk: Desk) -> dict[str, Any]:
    """What a template hands to ``file_manager`` as ``files``, and the words for ``files_head``."""
    return {
        "files": {
            "api": desk.api,
            "page": desk.page,
            "kind": desk.kind,
            "title": desk.item.name,
            "top": "work" if desk.kind == "project" else desk.item.slug,
            "may_write": desk.may_write,
            "most": desk.limit_bytes or 0,
            "icons": ICONS,
            "object_stores": desk.portal.settings.object_stores.enabled
            and desk.person.has_role
            and desk.person.node is None,
        },
        "file_words": file_words,
    }
