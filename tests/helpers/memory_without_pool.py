"""A plugin of pytest, -p memory_without_pool: each CuPy array is an allocation of its own, which a memory checker sees.

CuPy's pool hands out parts of large blocks, where a kernel that runs past its array only reaches the next one.
"""

import cupy

cupy.cuda.set_allocator(None)
