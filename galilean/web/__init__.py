"""What every page and every API answer of the product stands on.

The hub's own pages and ours are one site: our templates extend the hub's ``page.html``, one theme file
made of design tokens lies over the Bootstrap that the hub ships, and the same navigation, language and
light/dark switch stand on all of them. ``jinja.GalileanExtension`` gives both environments (the portal's
and the hub's) the same filters, icons and translations, so ``templates/page.html`` renders in either.

Promises
- Who the visitor is comes from the hub by OAuth or token; *what they may do* comes from their groups,
  read live with the portal's own token and kept for at most 30 s, never from the OAuth model.
- Every change of state needs the XSRF token or an ``Authorization: token`` header; GET changes nothing.
- A `UserError` reaches people as a sentence (page, toast or RFC 9457 document); everything else is
  logged under an id, and the id is all that is shown.
- What people wrote is escaped; it is rendered as HTML or a notebook only in a sandboxed frame of opaque
  origin (:mod:`galilean.web.csp`). Our own pages run no inline script without the request's nonce.
- This package knows no feature: rooms hand in their pages as routes and templates.
"""
