"""The command line and what it is made of."""

import os

# Large tensors in pages of 2 MiB: a search makes and drops gigabytes a second, and in pages of
# 4 KiB a fifth of its time went into the kernel's handing them out. torch reads this at its first
# one.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
