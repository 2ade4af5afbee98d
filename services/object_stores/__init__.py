"""Object stores (S3): data comes from them into projects and data sets, and goes back to them (TI-2, TI-5).

An object store is no file system: it has no folders, no locks and no rename, and programs that treat it as one are slow or
wrong. So nothing is mounted into nodes. A store is a place that a person or the centre names once, with a key that is
kept sealed, and files are *copied*: an import brings objects into a folder, an export writes files as objects. A
store is read only until its owner says that it may be written to.

What holds, whatever breaks:

- A file has its name only when all of it is there and compared (size, and MD5 where the store's entity tag is one); an
  object is there as a whole or not at all. A copy that broke off is begun again and leaves alone what is the same
  (size and time), so it goes on where it was.
- Keys of objects are text of somebody else's. What is no path below the folder, or no name that people can read, is left out and
  told, never bent into something else.
- The portal connects only where :mod:`galilean.reachable` lets it, at each connection anew (:mod:`.wire`), and follows no redirect.
- The secret key is in no answer, log, address or audit line. Whoever loses a store, a share or their account
  loses the copy that is under way within seconds.

Runs do not get a store's key: what is in a node's environment is everybody's who comes into the node.
"""
