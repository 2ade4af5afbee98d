"""Six small projects with two data sets, so that the gallery is not empty on the first day.

They are public projects of :data:`OWNER`, an account that nobody can have, put there once when a new site starts
(:mod:`services.catalog.starters.install`). Whoever forks one can run it from the first cell to the last in any
environment with Python 3: nothing but the standard library is used, and where a second node, ssh or a data set is
missing the notebook says so. Everything is written for this product and made anew from a few KB of text, the same
each time; the measurements in the data sets are made up, and say so.
"""

#: Account names are made small, so no account is ever called this.
OWNER = "Galilean"
