#!/opt/galilean/bin/python
"""torchrun for Debian 12's PyTorch 1.13, which takes `no redirection` for nothing at all on Python 3.11 and ends."""

from torch.distributed.elastic.multiprocessing.api import Std
from torch.distributed.run import main

read = Std.from_str.__func__
Std.from_str = classmethod(lambda cls, text: read(cls, text) or cls.NONE)
main()
